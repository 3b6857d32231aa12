"""One process fails, refuses or is killed: the others end soon, with its code or 76, and say who it was."""

import fcntl
import re
import signal
import socket
import time
from pathlib import Path

import pytest

FSDP = "--config.mesh.fsdp=2"
LOST_AFTER, SOON = 5.0, 15.0
HERE_IS = re.escape(socket.gethostname())


def training(folder):
    """Whether a step of training is done."""
    return lambda: (folder / "metrics.jsonl").exists() and bool((folder / "metrics.jsonl").read_text())


def seconds_until_all_end(job, timeout):
    began = time.monotonic()
    job.codes(timeout)
    return time.monotonic() - began


def test_a_refusal_of_one_is_the_end_of_all(running, tmp_path):
    """Only process 0 holds the folder's lock."""
    folder = tmp_path / "run"
    folder.mkdir()
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with running(folder, 2, 2, FSDP) as job:
            assert job.codes(120) == [2, 2]
    refused = f"--workdir={folder} is in use by another process"
    assert f"sdd: {refused}" in job.said(0)
    assert re.search(
        rf"sdd: process 0 \({HERE_IS}\) failed: {re.escape(refused)}; this process ends too", job.said(1)
    )
    assert "Traceback" not in job.everything()


@pytest.mark.slow
def test_a_folder_that_cannot_be_is_refused_by_all(running, tmp_path):
    (tmp_path / "file").write_text("")
    with running(tmp_path / "file" / "run", 2, 2, FSDP, output=tmp_path / "output") as job:
        assert job.codes(120) == [2, 2]
    assert "cannot be written" in job.said(0) and "cannot be written" in job.said(1)
    assert "Traceback" not in job.everything()


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_raises(running, tmp_path, process):
    folder = tmp_path / "run"
    flags = (FSDP, "--config.step.name=failing_step", f"--config.step.process={process}")
    with running(folder, 2, 2, *flags) as job:
        job.wait_until(lambda: "ValueError: this batch is bad" in job.said(process))
        assert seconds_until_all_end(job, 60) < SOON
    assert job.codes(1) == [1, 1]
    other = 1 - process
    assert "Traceback" in job.said(process)
    failed = rf"sdd: process {process} \({HERE_IS}\) failed: .*this batch is bad; this process ends too"
    assert re.search(failed, job.said(other)), job.said(other)


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_is_killed(running, tmp_path, process):
    folder, other = tmp_path / "run", 1 - process
    with running(folder, 2, 2, FSDP, "--config.train.num_steps=2000", "--config.eval.every=0") as job:
        job.wait_until(training(folder))
        job.kill(process)
        assert seconds_until_all_end(job, 60) < LOST_AFTER + SOON
    codes = job.codes(1)
    assert codes[process] == -signal.SIGKILL and codes[other] == 76, job.everything()
    named = {
        0: rf"sdd: process 0 \({HERE_IS}\), which coordinates, has not answered for \d+ s",
        1: rf"sdd: nothing was heard of process 1 \({HERE_IS}\) for \d+ s",
    }
    assert re.search(named[process], job.said(other)), job.said(other)
    assert "the same command goes on from the last checkpoint" in job.said(other)


@pytest.mark.slow
def test_one_of_four_is_killed_and_all_three_name_it(running, tmp_path):
    folder = tmp_path / "run"
    with running(folder, 4, 1, FSDP, "--config.train.num_steps=2000", "--config.eval.every=0") as job:
        job.wait_until(training(folder))
        job.kill(2)
        assert seconds_until_all_end(job, 60) < LOST_AFTER + SOON
    assert job.codes(1) == [76, 76, -signal.SIGKILL, 76], job.everything()
    assert all("process 2 (" in job.said(p) for p in (0, 1, 3))


@pytest.mark.slow
def test_a_process_that_hangs_is_lost_as_well(running, tmp_path):
    """SIGSTOP: the connection stays open, and nothing comes."""
    folder = tmp_path / "run"
    with running(folder, 2, 2, FSDP, "--config.train.num_steps=2000", "--config.eval.every=0") as job:
        job.wait_until(training(folder))
        job.processes[1].send_signal(signal.SIGSTOP)
        began = time.monotonic()
        job.processes[0].wait(60)
        assert time.monotonic() - began < LOST_AFTER + SOON
        assert job.processes[0].returncode == 76 and "nothing was heard of process 1" in job.said(0)


@pytest.mark.slow
def test_who_is_late_at_a_barrier_is_named(started, free_port, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    place = lambda p: [address, "2", str(p), "1"]  # noqa: E731
    with started([str(Path(__file__).parent / "late.py")], 2, 1, tmp_path, own=place) as job:
        assert job.codes(90) == [76, 76]
    assert re.search(
        rf"LostProcess: process 1 \({HERE_IS}\) did not come to 'lunch' within 2 s", job.said(0)
    ), job.said(0)
    assert "process 0" in job.said(1) and "did not come to 'lunch'" in job.said(1)
