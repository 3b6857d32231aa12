"""Killed (SIGKILL) and started again by the same command: the same bits as a run that nobody killed."""

import random
import signal
import time

import pytest

# Verdicts of a small run: 96 in the first evaluation (two splits of 32, the teacher's 32 between, fewer when
# some prompt has no right answer), 32 a step.
IN_FIRST_EVALUATION, IN_STEP_4, IN_LAST_EVALUATION = 50, 300, 400


@pytest.fixture(scope="module")
def reference(start, leaves, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    process = start(folder)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return leaves(folder)


def finish(start, folder, **environment):
    process = start(folder, **environment)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def killed_at(start, folder, at, **environment):
    process = start(folder, signal.SIGKILL, at, **environment)
    output, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, output


def test_a_killed_run_ends_in_the_same_bits(start, leaves, reference, tmp_path):
    killed_at(start, tmp_path, IN_STEP_4)
    assert "resuming from step 2" in finish(start, tmp_path)
    assert leaves(tmp_path) == reference


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, IN_FIRST_EVALUATION, IN_LAST_EVALUATION])
def test_killed_at_other_moments(start, leaves, reference, tmp_path, at):
    killed_at(start, tmp_path, at)
    finish(start, tmp_path)
    assert leaves(tmp_path) == reference


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_written(start, leaves, reference, tmp_path):
    process = start(tmp_path)
    while process.poll() is None and not any((tmp_path / "checkpoints").glob("4*tmp*")):
        time.sleep(0.0005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before the checkpoint was seen"
    finish(start, tmp_path)
    assert leaves(tmp_path) == reference


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_twenty_times(start, leaves, reference, tmp_path):
    """By verdicts (any moment of the host's work) and by the clock (start and end of the process, too)."""
    rng, kills = random.Random(0), 0
    for i in range(20):
        if i % 2:
            process = start(tmp_path, signal.SIGKILL, rng.randrange(1, 300))
        else:
            process = start(tmp_path)
            time.sleep(rng.uniform(1.0, 6.0))
            process.kill()
        output, _ = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), output
        kills += process.returncode != 0
    assert kills >= 5
    finish(start, tmp_path)
    assert leaves(tmp_path) == reference


@pytest.mark.slow
@pytest.mark.parametrize("step", ["sft", "grpo", "grpo_diversity"])
def test_other_methods(start, leaves, tmp_path, step):
    flags = (f"--config.step.name=sdd.steps.{step}",)
    finish(start, tmp_path / "whole", flags=flags)
    at = 100 if step == "sft" else IN_STEP_4
    killed_at(start, tmp_path / "killed", at, flags=flags)
    finish(start, tmp_path / "killed", flags=flags)
    assert leaves(tmp_path / "killed") == leaves(tmp_path / "whole")
