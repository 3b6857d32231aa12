"""The gcloud commands, and `watch` against a gcloud that plays a preemption. Nothing here reaches Google."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import tpu_commands, tpu_pod

POD = ["--name=pod", "--zone=us-east5-b"]
KIND = ["--type=v6e-64", "--runtime=v2-alpha-tpuv6e"]
COMMAND = ["--", "run", "experiments/science_qa/qwen3_8b_sdsd.py", "--workdir=/mnt/sdd/runs/a b"]

# Answers like gcloud: each `describe` and each probe takes the next line of its file, the last one stays.
GCLOUD = """#!{python}
import pathlib, sys
here = pathlib.Path(__file__).parent
words = sys.argv[4:]
with open(here / "calls", "a") as file:
    file.write(" ".join(words[:2]) + chr(10))

def answer(name):
    path = here / name
    first, _, rest = path.read_text().partition(chr(10))
    if rest:
        path.write_text(rest)
    return first

if words[0] == "describe":
    state = answer("states")
    if state == "-":
        sys.exit("ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: no such thing")
    print(state)
elif words[0] == "ssh" and "echo absent" in words[-1]:
    print("Using ssh batch size of 1.")
    print(answer("workers"))
elif words[0] == "ssh" and "pip install" in words[-1] and (here / "broken").exists():
    sys.exit(1)
"""


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("create_spot", ["create", *POD, *KIND, "--spot"]),
        ("create_slices", ["create", *POD, *KIND, "--slices=2", "--reserved", "--service_account=a@b.iam"]),
        ("install", ["install", *POD, "--project=lab"]),
        (
            "run",
            [
                "run",
                *POD,
                "--nfs=10.0.0.2:/sdd",
                "--env",
                "JAX_COMPILATION_CACHE_DIR=/mnt/sdd/cache",
                *COMMAND,
            ],
        ),
        ("logs", ["logs", *POD, "--node=1", "--worker=3"]),
        ("status", ["status", *POD]),
        ("stop", ["stop", *POD]),
        ("delete", ["delete", *POD]),
        ("watch", ["watch", *POD, *KIND, "--spot", *COMMAND]),
    ],
)
def test_dry_run_shows_every_command(name, arguments, golden, capsys):
    assert tpu_pod.main([arguments[0], "--dry_run", *arguments[1:]]) == 0
    golden(f"tpu_{name}.txt", capsys.readouterr().out)


def test_flags_are_those_of_the_reference():
    """`gcloud compute tpus queued-resources ACTION`, as documented in gcloud's reference."""
    everywhere = {"--zone", "--project", "--quiet"}
    documented = {
        "create": {
            *("--accelerator-type", "--runtime-version", "--node-id", "--node-count", "--node-prefix"),
            *("--spot", "--reserved", "--service-account", "--scopes", "--async"),
        },
        "delete": {"--force", "--async"},
        "describe": {"--format"},
        "ssh": {"--node", "--worker", "--command", "--batch-size"},
        "scp": {"--node", "--worker", "--batch-size", "--recurse", "--compress"},
    }
    pods = [
        tpu_commands.Pod("pod", "zone", "project", "v6e-64", "image", slices, tier, "account")
        for slices in (1, 2)
        for tier in ("on_demand", "spot", "reserved")
    ]
    seen = set()
    for pod in pods:
        c = tpu_commands
        commands = [*c.create(pod), *c.install(pod, "f"), *c.run(pod, ["run"], [], 1), *c.logs(pod, 0, 0)]
        for words in [*commands, *c.status(pod), *c.stop(pod), *c.delete(pod)]:
            if words[0] == "gcloud":
                seen.add(words[4])
                flags = {word.split("=")[0] for word in words[5:] if word.startswith("--")}
                assert flags <= documented[words[4]] | everywhere
    assert seen == set(documented)


def test_scripts_are_bash(valid_bash):
    valid_bash("#!/bin/bash\n" + tpu_commands.INSTALL)
    valid_bash("#!/bin/bash\n" + tpu_commands.PROBE)
    script = tpu_commands.run_script(["run", "--workdir=/a b"], [("A", "$b")], 3, ("10.0.0.2", "/sdd"))
    valid_bash(script)
    valid_bash("#!/bin/bash\n" + tpu_commands.START.format(script=script))


@pytest.mark.parametrize(
    "state, worker, expected",
    [
        ("NOT_FOUND", "", "create"),
        *((state, "", "wait") for state in ("CREATING", "WAITING_FOR_RESOURCES", "PROVISIONING")),
        *((state, "", "wait") for state in ("SUSPENDING", "DELETING", "UNREACHABLE", "")),
        *((state, "", "recreate") for state in ("SUSPENDED", "FAILED", "PREEMPTED")),
        *(("ACTIVE", *pair) for pair in (("absent", "install"), ("running", "wait"), ("lost", "run"))),
        *(("ACTIVE", *pair) for pair in (("0", "finished"), ("1", "failed"), ("70", "failed"))),
        *(("ACTIVE", *pair) for pair in (("75", "wait"), ("76", "wait"), ("", "wait"))),
    ],
)
def test_next_step(state, worker, expected):
    assert tpu_pod.next_step(state, worker) == expected


@pytest.fixture
def gcloud(tmp_path, monkeypatch) -> Path:
    """The folder of a gcloud that is first on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "gcloud").write_text(GCLOUD.format(python=sys.executable))
    (folder / "gcloud").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(tpu_pod.time, "sleep", lambda seconds: None)
    return folder


def watch(*more: str) -> int:
    return tpu_pod.main(["watch", *POD, *KIND, "--spot", *more, *COMMAND])


def test_watch_creates_installs_runs_and_does_so_again_after_a_preemption(gcloud):
    states = ["-", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE", "ACTIVE", "SUSPENDING", "SUSPENDED"]
    (gcloud / "states").write_text("\n".join([*states, "PROVISIONING", "ACTIVE", "ACTIVE", "ACTIVE"]))
    (gcloud / "workers").write_text("\n".join(["absent", "running", "absent", "lost", "0"]))
    assert watch("--yes") == 0
    calls = [line.split()[0] for line in (gcloud / "calls").read_text().splitlines()]
    assert [call for call in calls if call != "describe"] == [
        "create",
        *("ssh", "scp", "ssh", "ssh"),  # looks, copies, installs, starts
        "ssh",  # looks: running
        *("delete", "create"),
        *("ssh", "scp", "ssh", "ssh"),
        *("ssh", "ssh"),  # a worker that was rebooted has lost the run: starts it
        "ssh",  # looks: finished
    ]


def test_watch_ends_with_the_exit_code_of_a_run_that_failed(gcloud):
    (gcloud / "states").write_text("ACTIVE")
    (gcloud / "workers").write_text("70")
    assert watch("--yes") == 70


def test_watch_gives_up_where_the_installation_fails_again_and_again(gcloud, capsys):
    (gcloud / "states").write_text("ACTIVE")
    (gcloud / "workers").write_text("absent")
    (gcloud / "broken").touch()
    assert watch("--yes") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("launch: install failed 6 times in a row")


def test_watch_gives_up_where_the_request_fails_again_and_again(gcloud, capsys):
    (gcloud / "states").write_text("\n".join(["FAILED", "PROVISIONING"] * 6))
    assert watch("--yes") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("launch: recreate failed 6 times in a row")


def test_watch_that_is_interrupted_leaves_the_pod_alone(gcloud, monkeypatch, capsys):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(tpu_pod.time, "sleep", interrupt)
    (gcloud / "states").write_text("PROVISIONING")
    assert watch("--yes") == 130
    assert "go on without being watched" in capsys.readouterr().err
    assert (gcloud / "calls").read_text() == "describe pod\n"


def test_nothing_is_made_or_deleted_without_an_answer(gcloud, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    for arguments in (["create", *POD, *KIND], ["delete", *POD], ["watch", *POD, *KIND, *COMMAND]):
        assert tpu_pod.main(arguments) == 1
    assert not (gcloud / "calls").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["create", *POD], "--type v6e-64"),
        (["run", *POD], "put the command of sdd after --"),
        (["run", *POD, "--", "run", "c.py", "--workdir=runs/a"], "valid: such as /mnt/sdd/runs/NAME"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit):
        tpu_pod.main(arguments)
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def worker(stand_in, monkeypatch) -> Path:
    """A home folder as on a worker, with the stand-in for sdd installed."""
    (stand_in / "sdd" / ".venv" / "bin").mkdir(parents=True)
    (stand_in / "sdd" / ".venv" / "bin" / "python").symlink_to(sys.executable)
    shutil.copytree(stand_in / "sdd", stand_in / "sdd" / "sdd", ignore=shutil.ignore_patterns(".venv"))
    monkeypatch.setenv("HOME", str(stand_in))
    return stand_in


def at_worker(home: Path, script: str) -> str:
    done = subprocess.run(["bash", "-c", script], cwd=home, capture_output=True, text=True, timeout=20)
    return done.stdout.strip()


def start(home: Path, *program: str, retries: int = 1) -> None:
    script = tpu_commands.run_script(["run", f"--workdir={home}/w", *program], [], retries)
    at_worker(home, tpu_commands.START.format(script=script))


def probe_until(home: Path, *answers: str) -> str:
    limit = time.monotonic() + 20
    while (answer := at_worker(home, tpu_commands.PROBE)) not in answers:
        assert time.monotonic() < limit, answer
        time.sleep(0.1)
    return answer


def test_on_a_worker_a_run_starts_again_after_75_and_ends(worker):
    assert at_worker(worker, tpu_commands.PROBE) == "absent"
    start(worker, "--fail=75", "--count=2")
    assert probe_until(worker, "0", "75") == "0"
    lines = (worker / "sdd_run.log").read_text().splitlines()
    assert lines[:2] == ["start 0", "exit code 75, attempt 0 of at most 1"]
    assert lines[2:] == ["start 0", "finished 2", "exit code 0, attempt 1 of at most 1"]


def test_on_a_worker_a_run_that_is_told_to_stop_saves_and_stays_stopped(worker):
    start(worker, "--count=600")
    while not (worker / "w" / "log_0").exists():
        time.sleep(0.05)
    assert at_worker(worker, tpu_commands.PROBE) == "running"
    start(worker, "--count=600")  # does nothing: one is running
    (stop,) = tpu_commands.stop(tpu_commands.Pod("pod", "zone"))
    at_worker(worker, stop[-1].removeprefix("--command="))
    assert probe_until(worker, "75", "143") == "75"
    begun, saved = (worker / "w" / "log_0").read_text().splitlines()
    assert begun == "start 0" and saved.startswith("saved ")


def test_on_a_worker_a_run_that_was_killed_is_lost(worker):
    start(worker, "--count=600")
    while not (worker / "w" / "log_0").exists():
        time.sleep(0.05)
    os.killpg(os.getpgid(int((worker / "sdd_run.pid").read_text())), signal.SIGKILL)
    assert probe_until(worker, "lost", "0", "137") == "lost"
