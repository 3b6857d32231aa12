"""One process of several gets SIGTERM: all save and stop; other numbers of processes go on from there."""

import shutil
import signal

import pytest

FSDP = "--config.mesh.fsdp=2"
AHEAD = ("--config.train.async_steps=1", "--config.step.importance_clip=2.0")
# Verdicts of one process of four: in the first evaluation 8 a split and up to 8 of the teacher's answers;
# then 8 a step.
IN_STEP_2 = 24 + 8 + 4


def stopped(running, folder, *flags):
    """Process 2 alone gets the signal."""
    asked = lambda p: {"EASY_SIGNAL": str(int(signal.SIGTERM)), "EASY_AT": str(IN_STEP_2 * (p == 2))}  # noqa: E731
    with running(folder, 4, 1, *flags, variables=asked) as job:
        assert job.codes() == [75] * 4, job.everything()
    assert "SIGTERM: saving and stopping" in job.said(2)
    assert all("SIGTERM" not in job.said(p) for p in (0, 1, 3))
    assert all("stopped and saved at step " in job.said(p) for p in range(4))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    "flags",
    [
        pytest.param((FSDP,), id="newest"),
        pytest.param((FSDP, *AHEAD), id="ahead"),
    ],
)
def test_stopped_on_four_goes_on_with_two_and_with_one(
    running, finished, last_step, same_numbers, tmp_path, flags
):
    """To the numbers of one process that nobody stopped, within the tolerances of `same_numbers`."""
    alone = finished(tmp_path / "alone", 1, 4, *flags)
    stopped(running, tmp_path / "two", *flags)
    assert 0 < last_step(tmp_path / "two") < last_step(alone)
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    same_numbers(finished(tmp_path / "two", 2, 2, *flags), alone)
    same_numbers(finished(tmp_path / "one", 1, 4, *flags), alone)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stopped_on_one_goes_on_with_four(running, finished, same_numbers, tmp_path):
    alone = finished(tmp_path / "alone", 1, 4, FSDP)
    asked = lambda p: {"EASY_SIGNAL": str(int(signal.SIGTERM)), "EASY_AT": "110"}  # noqa: E731
    with running(tmp_path / "four", 1, 4, FSDP, variables=asked) as job:
        assert job.codes() == [75], job.everything()
    same_numbers(finished(tmp_path / "four", 4, 1, FSDP), alone)
