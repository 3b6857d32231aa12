"""The batch script; and, marked slow, a real Slurm on this machine that runs, preempts and requeues it.

The slow tests need root, and Debian's packages slurm-wlm and munge.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from launch import slurm

ROOT = Path(__file__).parents[2]
COMMAND = ["run", "experiments/concept_graph/sdsd.py", "--workdir=runs/a b"]

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,sched_min_interval=0
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
KillWait=20
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2
NodeName={host}x NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2
PartitionName=low Nodes=ALL Default=YES PriorityTier=1
PartitionName=high Nodes=ALL PriorityTier=10
"""


def dry_run(capsys, *options: str) -> tuple[str, str]:
    """(the line that submits, the script)"""
    assert slurm.main(["--dry_run", *options, "--", *COMMAND]) == 0
    line, _, script = capsys.readouterr().out.partition("\n")
    return line, script


def test_one_process_a_node(golden, valid_bash, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    line, script = dry_run(capsys, "--nodes=2", "--time=12:00:00", "--env", "A=b $c")
    golden("slurm_nodes.sh", script)
    valid_bash(script)
    assert line == "sbatch"


def test_one_process_a_gpu(golden, valid_bash, capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = ("--nodes=2", "--gpus_per_node=8", "--wait", "--retries=3", "--sbatch=--partition=long")
    line, script = dry_run(capsys, *options)
    golden("slurm_gpus.sh", script)
    valid_bash(script)
    assert line == "sbatch --wait"


def test_mistakes_are_one_line(capsys):
    for arguments in (["--nodes=0", "--", "run"], ["--nodes=1"], ["--env", "1A=b", "--", "run"]):
        with pytest.raises(SystemExit):
            slurm.main(arguments)
        last = capsys.readouterr().err.splitlines()[-1]
        assert "valid: " in last or "after --" in last


class Cluster(NamedTuple):
    """A Slurm of two nodes, both on this machine; the first has a name at which jax finds process 0.

    Attributes:
      folder: with its logs.
      variables: the environment in which its commands find it.
    """

    folder: Path
    variables: dict[str, str]

    def call(self, *command: str | Path, cwd: Path | None = None) -> str:
        done = subprocess.run(command, env=self.variables, cwd=cwd, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, cwd: Path, *arguments: str) -> str:
        """The number of the job."""
        out = self.call(sys.executable, ROOT / "launch" / "slurm.py", *arguments, cwd=cwd)
        return out.split()[-1]

    def wait(self, job: str, *states: str, seconds: float = 90) -> None:
        limit = time.monotonic() + seconds
        while (state := self.field(job, "JobState")) not in states:
            ended = state in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED")
            assert time.monotonic() < limit and not ended, f"job {job} is {state}, not {states}"
            time.sleep(0.2)

    def field(self, job: str, name: str) -> str:
        shown = self.call("scontrol", "show", "job", job).split()
        return next(word.split("=", 1)[1] for word in shown if word.startswith(f"{name}="))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    needed = ("munged", "slurmctld", "slurmd", "sbatch")
    if missing := [name for name in needed if shutil.which(name) is None]:
        pytest.skip(f"{', '.join(missing)} not installed: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        pytest.skip("Slurm's daemons start as root only")
    folder = tmp_path_factory.mktemp("slurm")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)  # munge refuses a socket that others cannot reach
    host = socket.gethostname().split(".")[0]
    for name in ("state", f"spool.{host}", f"spool.{host}x"):
        (folder / name).mkdir()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    config = CONFIG.format(folder=folder, host=host, ports=ports)
    (folder / "slurm.conf").write_text(config)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    variables = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    munge = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munge.pid"}
    munge |= {"log-file": "munge.log", "seed-file": "munge.seed"}
    daemons = [
        ["munged", "--foreground", *(f"--{name}={folder / file}" for name, file in munge.items())],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
        ["slurmd", "-D", "-N", f"{host}x"],
    ]
    with contextlib.ExitStack() as stack:
        for command in daemons:
            process = subprocess.Popen(
                command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            if command[0] == "munged":
                wait_for(folder / "munge.sock")
        made = Cluster(folder, variables)
        stack.callback(subprocess.run, ["scancel", "--user=root"], env=variables)
        limit = time.monotonic() + 30
        while made.call("sinfo", "--noheader", "--format=%t", "--partition=low").split() != ["idle"]:
            assert time.monotonic() < limit, made.call("sinfo")
            time.sleep(0.2)
        yield made


def wait_for(path: Path, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < limit, f"{path} did not appear"
        time.sleep(0.05)


def lines_of(folder: Path, process: int) -> list[str]:
    return (folder / "w" / f"log_{process}").read_text().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["requeue", "preempt"])
def test_a_job_that_is_taken_away_saves_and_goes_on(cluster, stand_in, how):
    job = cluster.submit(stand_in, "--nodes=2", "--", "run", "--count=60", "--workdir=w")
    for process in (0, 1):
        wait_for(stand_in / "w" / f"log_{process}")
    if how == "requeue":
        cluster.call("scontrol", "requeue", job)
    else:
        urgent = ("--partition=high", "--nodes=2", "--exclusive", "--wrap=sleep 1", "--output=/dev/null")
        cluster.call("sbatch", *urgent, cwd=stand_in)
    cluster.wait(job, "PENDING")
    cluster.wait(job, "COMPLETED")
    for process in (0, 1):
        first, saved, again, finished = lines_of(stand_in, process)
        assert first == "start 0"
        assert saved.startswith("saved ") and again == saved.replace("saved", "start")
        assert finished == "finished 60"
    assert cluster.field(job, "Restarts") == "1"


@pytest.mark.slow
def test_the_script_requeues_itself_before_the_time_limit(cluster, stand_in):
    # Slurm counts in minutes and may signal up to one early: 50 seconds before the end of 1 minute is soon.
    options = ("--nodes=2", "--time=1", "--save_seconds=50")
    job = cluster.submit(stand_in, *options, "--", "run", "--count=450", "--workdir=w")
    cluster.wait(job, "RUNNING")
    cluster.wait(job, "PENDING")
    cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    cluster.wait(job, "COMPLETED", seconds=120)
    for process in (0, 1):
        _, saved, again, _ = lines_of(stand_in, process)
        assert saved.startswith("saved ") and again == saved.replace("saved", "start")


@pytest.mark.slow
@pytest.mark.parametrize("code, restarts", [(1, "0"), (70, "0"), (75, "1"), (76, "1")])
def test_only_75_and_76_put_a_job_back(cluster, stand_in, code, restarts):
    job = cluster.submit(stand_in, "--nodes=2", "--", "run", f"--fail={code}", "--count=2", "--workdir=w")
    if restarts == "1":
        cluster.wait(job, "RUNNING")
        cluster.wait(job, "PENDING")
    cluster.wait(job, "COMPLETED" if restarts == "1" else "FAILED")
    assert cluster.field(job, "Restarts") == restarts
    assert cluster.field(job, "ExitCode") == ("0:0" if restarts == "1" else f"{code}:0")
    assert not list((stand_in / "runs" / "slurm").glob("codes-*"))


@pytest.mark.slow
def test_no_more_restarts_than_retries(cluster, stand_in):
    options = ("--nodes=2", "--retries=0", "--wait")
    with pytest.raises(AssertionError):  # sbatch --wait exits as the job does
        cluster.submit(stand_in, *options, "--", "run", "--fail=75", "--count=2", "--workdir=w")
    assert lines_of(stand_in, 0) == ["start 0"]


@pytest.mark.slow
def test_a_sweep_waits_for_its_jobs_also_where_they_are_requeued(cluster, stand_in):
    launcher = f"{ROOT}/launch/slurm.py --wait --nodes 1"
    sweep = (sys.executable, ROOT / "launch" / "sweep.py", "--grid=config.fail=75,70", "--jobs=2")
    command = (*sweep, "--launcher", launcher, "--", "run", "--workdir=w")
    done = subprocess.run(command, cwd=stand_in, env=cluster.variables, capture_output=True, text=True)
    assert done.returncode == 70, done.stderr
    assert "fail=75: exit code 0" in done.stdout and "fail=70: exit code 70" in done.stdout
    lines = (stand_in / "w" / "fail=75" / "log_0").read_text().splitlines()
    assert lines == ["start 0", "start 0", "finished 2"]


@pytest.mark.slow
def test_jobs_of_one_run_folder_wait_for_each_other(cluster, stand_in):
    command = ("--", "run", "--count=30", "--workdir=w")
    first = cluster.submit(stand_in, *command)
    second = cluster.submit(stand_in, *command)
    cluster.wait(first, "RUNNING")
    assert cluster.field(second, "Reason") == "Dependency"
    cluster.wait(second, "COMPLETED")
    assert lines_of(stand_in, 0)[:2] == ["start 0", "finished 30"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sdd_on_two_nodes_is_requeued_and_ends_as_if_nothing_had_been(cluster, tmp_path):
    one_device = "XLA_FLAGS=--xla_force_host_platform_device_count=1"
    shared = ("--nodes=2", "--env", "JAX_PLATFORMS=cpu", "--env", one_device, "--log_dir", tmp_path / "logs")
    command = ("run", "experiments/concept_graph/smoke.py", "--config.train.checkpoint_every=1")
    small = ("--config.eval.splits=id", "--config.mesh.fsdp=2")
    folders = [tmp_path / "undisturbed", tmp_path / "requeued"]
    for folder in folders:
        job = cluster.submit(ROOT, *shared, "--", *command, *small, f"--workdir={folder}")
        if folder.name == "requeued":
            while not (folder / "checkpoints" / "1").exists():
                assert cluster.field(job, "JobState") in ("PENDING", "RUNNING")
                time.sleep(0.5)
            cluster.call("scontrol", "requeue", job)
            cluster.wait(job, "PENDING")
        cluster.wait(job, "COMPLETED", seconds=300)
        assert cluster.field(job, "Restarts") == ("1" if folder.name == "requeued" else "0")
    lines = [(folder / "evaluations.jsonl").read_text().splitlines() for folder in folders]
    assert lines[0] == lines[1]
    (log,) = (tmp_path / "logs").glob("*requeued*.log")
    assert "exit code 75" in log.read_text()
