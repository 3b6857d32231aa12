import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import common, local

SCRIPT = Path(local.__file__)


def dry_run(*arguments: str, **variables: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, SCRIPT, "--dry_run", *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    return shlex.split(result.stdout)


def start(folder: Path, *arguments: str, program: str = "--count=3") -> subprocess.Popen:
    """The launcher, in a folder where ``python -m sdd`` is the stand-in."""
    command = [sys.executable, SCRIPT, *arguments, "--", "run", *program.split(), "--workdir=w"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True)


def lines_of(folder: Path, process: int) -> list[str]:
    path = folder / "w" / f"log_{process}"
    return path.read_text().splitlines() if path.exists() else []


def wait_until_both_count(folder: Path) -> None:
    limit = time.monotonic() + 20
    while not all(lines_of(folder, p) for p in (0, 1)):
        assert time.monotonic() < limit, "the processes did not start"
        time.sleep(0.05)


def test_dry_run_prints_the_variables_and_the_command():
    assert dry_run("--devices", "3", "--", "run", "my config.py", "--workdir=runs/$HOME") == [
        "JAX_PLATFORMS=cpu",
        "XLA_FLAGS=--xla_force_host_platform_device_count=3",
        *(sys.executable, "-m", "sdd", "run", "my config.py", "--workdir=runs/$HOME"),
    ]


def test_dry_run_of_several_processes(golden, monkeypatch, capsys):
    monkeypatch.setattr(local, "free_port", lambda: 12345)
    monkeypatch.delenv("XLA_FLAGS")
    local.main(["--processes=2", "--devices=4", "--dry_run", "--", "run", "c.py", "--workdir=runs/a b"])
    golden("local_two_processes.txt", capsys.readouterr().out)


def test_flags_of_the_command_are_its_own():
    words = dry_run("--", "run", "c.py", "--devices=5", "--dry_run", "--", "x")
    assert words[-5:] == ["c.py", "--devices=5", "--dry_run", "--", "x"]


def test_other_xla_flags_stay_and_an_old_device_count_goes():
    old = "--xla_dump_to=/x --xla_force_host_platform_device_count=2 --xla_cpu_enable_fast_math=false"
    words = dry_run("--devices=4", "--", "run", XLA_FLAGS=old)
    flags = "--xla_dump_to=/x --xla_cpu_enable_fast_math=false --xla_force_host_platform_device_count=4"
    assert words[1] == f"XLA_FLAGS={flags}"


def test_the_printed_line_is_what_is_executed(monkeypatch, capsys):
    class Executed(Exception):
        pass

    def execve(*arguments):
        raise Executed(arguments)

    monkeypatch.setattr(local.os, "execve", execve)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/x")
    with pytest.raises(Executed) as executed:
        local.main(["--devices=2", "--", "run", "c.py"])
    local.main(["--devices=2", "--dry_run", "--", "run", "c.py"])
    program, command, variables = executed.value.args[0]
    assert program == command[0] == sys.executable
    words = shlex.split(capsys.readouterr().out)
    assert words[2:] == command
    assert words[:2] == [f"{name}={variables[name]}" for name in ("JAX_PLATFORMS", "XLA_FLAGS")]


def test_jax_sees_that_many_devices():
    count = "import jax; print(jax.device_count())"
    variables = local.environment(3, "")
    result = subprocess.run(
        [sys.executable, "-c", count], env=variables, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["3"]


@pytest.mark.parametrize(
    "arguments",
    [["--devices=0", "--", "run"], ["--processes=0", "--", "run"], ["--devices=2"], ["--devices=2", "--"]],
)
def test_mistakes_are_one_line(arguments, capsys):
    with pytest.raises(SystemExit):
        local.main(arguments)
    last = capsys.readouterr().err.splitlines()[-1]
    assert "0: valid: 1 or more" in last or "put the command of sdd after --" in last


def test_two_processes_say_who_they_are_and_know_their_place(stand_in):
    out, err = start(stand_in, "--processes=2").communicate(timeout=30)
    assert sorted(out.splitlines()) == sorted(
        f"[{p}] {text}" for p in (0, 1) for text in ("start 0", "finished 3")
    )
    assert err == "" and lines_of(stand_in, 1) == ["start 0", "finished 3"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_goes_to_all_and_nothing_starts_again(stand_in, number):
    job = start(stand_in, "--processes=2", "--retries=3", program="--count=600")
    wait_until_both_count(stand_in)
    job.send_signal(number)
    job.communicate(timeout=30)
    assert job.returncode == common.STOPPED
    for process in (0, 1):
        begun, saved = lines_of(stand_in, process)
        assert begun == "start 0" and saved.startswith("saved ")


@pytest.mark.parametrize("code", common.RETRY)
def test_all_start_again_after_75_and_76(stand_in, code):
    job = start(stand_in, "--processes=2", "--retries=1", program=f"--count=2 --fail={code}")
    _, err = job.communicate(timeout=30)
    assert job.returncode == 0
    assert err.splitlines() == [f"launch: exit code {code}: starting again (1 of 1)"]
    assert all(lines_of(stand_in, p) == ["start 0", "start 0", "finished 2"] for p in (0, 1))


@pytest.mark.parametrize("code, retries", [(1, 3), (70, 3), (75, 0)])
def test_the_exit_code_is_that_of_the_process_that_failed_and_other_codes_end_it(stand_in, code, retries):
    job = start(stand_in, "--processes=2", f"--retries={retries}", program=f"--count=2 --fail={code}")
    job.communicate(timeout=30)
    assert job.returncode == code  # process 1 said 76
    assert all(lines_of(stand_in, p) == ["start 0"] for p in (0, 1))


@pytest.mark.parametrize(
    "codes, expected",
    [([], 0), ([0, 0], 0), ([76, 1, 0], 1), ([76, 76], 76), ([0, 76], 76), ([75, 2], 75), ([137, 76], 137)],
)
def test_one_exit_code_for_all(codes, expected):
    assert common.verdict(codes) == expected


def test_a_terminal_reaches_the_launcher_alone(stand_in):
    (stand_in / "sdd" / "__main__.py").write_text("import os; print(os.getpgrp())")
    job = start(stand_in, "--processes=2")
    out, _ = job.communicate(timeout=30)
    groups = {int(line.split()[-1]) for line in out.splitlines()}
    assert len(groups) == 2 and os.getpgrp() not in groups


def test_a_process_that_was_killed_ends_the_job_with_what_a_shell_says(stand_in):
    program = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    (stand_in / "sdd" / "__main__.py").write_text(program)
    job = start(stand_in, "--processes=2", "--retries=3")
    _, err = job.communicate(timeout=30)
    assert job.returncode == 128 + signal.SIGKILL and err == ""


@pytest.mark.parametrize(
    "command, name",
    [
        (["run", "c.py", "--workdir=runs/Try_1"], "sdd-runs-try-1"),
        (["run", "c.py", "--workdir", "gs://b/x/"], "sdd-gs-b-x"),
        (["run", "c.py"], "sdd"),
        (["run", f"--workdir=runs/{'a' * 60}b"], "sdd-" + "a" * 35 + "b"),
    ],
)
def test_a_job_is_named_by_its_run_folder(command, name):
    assert common.job_name(command) == name
