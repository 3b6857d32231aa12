"""Killed (SIGKILL) again and again, one process or all at once: the same bits as a run that nobody killed."""

import random
import signal

import pytest

# Long enough for twenty kills between one checkpoint and the next few.
FLAGS = (
    "--config.mesh.fsdp=2",
    "--config.train.num_steps=120",
    "--config.eval.every=40",
    "--config.train.checkpoint_every=2",
)
KILLS, IN_THE_RUN, SECONDS = 20, 15, (1.0, 3.0)
LOST_AFTER, SOON = 5.0, 15.0


def log(folder):
    """Lines of the log, and when it was written."""
    path = folder / "metrics.jsonl"
    return (path.read_text().count("\n"), path.stat().st_mtime_ns) if path.exists() else (0, 0)


def until_a_step_is_done(job, folder, last_step):
    """Returns after the first step of this start: the log was cut back to the checkpoint before it."""
    begun, (_, before) = last_step(folder), log(folder)
    job.wait_until(lambda: log(folder)[0] > begun and log(folder)[1] > before)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_twenty_times(running, finished, last_step, same_bits, tmp_path):
    """In turn one process, drawn at random (the other ends by itself, with 76), and all at once."""
    whole, folder = finished(tmp_path / "whole", 2, 2, *FLAGS, timeout=600), tmp_path / "run"
    rng, fell = random.Random(0), 0
    for i in range(KILLS):
        victims = [rng.randrange(2)] if i % 2 else [0, 1]
        with running(folder, 2, 2, *FLAGS) as job:
            until_a_step_is_done(job, folder, last_step)
            job.sleep(rng.uniform(*SECONDS))
            fell += all(process.poll() is None for process in job.processes)
            for process in victims:
                job.kill(process)
            codes = job.codes(LOST_AFTER + SOON)
        expected = [(0, -signal.SIGKILL) if p in victims else (0, 76) for p in range(2)]
        assert all(code in valid for code, valid in zip(codes, expected)), (
            f"kill {i}: {codes}\n{job.everything()}"
        )
        print(f"kill {i} of {victims}: {log(folder)[0]} steps, checkpoint {last_step(folder)}")
    assert fell >= IN_THE_RUN, f"only {fell} kills fell into the run"
    same_bits(finished(folder, 2, 2, *FLAGS, timeout=600), whole)
