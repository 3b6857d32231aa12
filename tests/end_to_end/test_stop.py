"""Asked to stop (SIGTERM, Ctrl-C): saves, says so, and the same command ends in the same bits."""

import signal

import pytest

from sdd import loop


@pytest.fixture
def stop_at(one_device, monkeypatch):
    def arrange(at, number=signal.SIGTERM):
        monkeypatch.setenv("EASY_AT", str(at))
        monkeypatch.setenv("EASY_SIGNAL", str(int(number)))

    return arrange


# 0 to 96: the evaluation before step 1; then 32 a step, with an evaluation after step 3 and one at the end.
@pytest.mark.parametrize(
    ("at", "number", "says"),
    [
        (5, signal.SIGTERM, "stopped at step 0"),  # in the first split of the first evaluation
        (80, signal.SIGTERM, "stopped at step 0"),  # in its second split
        (110, signal.SIGINT, "stopped and saved at step 1"),
        (200, signal.SIGTERM, "stopped and saved at step 3"),  # in the evaluation after step 3
        (275, signal.SIGTERM, "stopped and saved at step 3"),
        (390, signal.SIGTERM, "stopped and saved at step 6"),  # in the last evaluation
    ],
)
def test_stopped_and_started_again(
    small, quiet_run, undisturbed, leaves, stop_at, tmp_path, at, number, says
):
    stop_at(at, number)
    with pytest.raises(loop.Stopped, match=says):
        quiet_run(small(), tmp_path)
    saved = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert saved[-1:] == ([] if says.endswith("step 0") else [says[-1]])
    stop_at(0)
    quiet_run(small(), tmp_path)
    assert leaves(tmp_path) == leaves(undisturbed)


def test_the_exit_code(start, leaves, tmp_path):
    process = start(tmp_path, signal.SIGTERM, 110)
    output, _ = process.communicate()
    assert process.returncode == 75
    assert output.count("SIGTERM: saving and stopping") == 1
    assert "sdd: stopped and saved at step 1; the same command goes on from there" in output
    assert "Traceback" not in output
