"""Rollouts that are sampled a step ahead: which parameters draw them, and that a stop loses none."""

import dataclasses
import signal

import jax
import numpy as np
import pytest

from sdd import collect, loop
from sdd.typed import ConfigError


@pytest.fixture
def ahead(small):
    """small.py with rollouts that are a step old; its options of SDSD weigh their tokens."""
    run = small(train_async_steps=1)
    options = dataclasses.replace(run.step.options, importance_clip=2.0)
    return dataclasses.replace(run, step=dataclasses.replace(run.step, options=options))


@pytest.fixture
def drawn_by(monkeypatch):
    """step -> a sum of the parameters that drew its rollouts."""
    seen, sample = {}, collect.sample

    def watched(job, params, examples, step):
        seen[step] = sum(float(abs(np.asarray(x)).sum()) for x in jax.tree.leaves(params))
        return sample(job, params, examples, step)

    monkeypatch.setattr(collect, "sample", watched)
    return seen


def test_rollouts_are_drawn_by_parameters_one_step_old(ahead, small, quiet_run, drawn_by, tmp_path):
    quiet_run(small(), tmp_path / "newest")
    newest = dict(drawn_by)
    drawn_by.clear()
    quiet_run(ahead, tmp_path / "old")
    last = ahead.train.num_steps
    assert set(newest) == set(drawn_by) == set(range(1, last + 1))
    assert len(set(newest.values())) == last  # every update changes the parameters
    assert drawn_by[1] == drawn_by[2] == newest[1]  # nothing has been learned when 2 is drawn
    assert len(set(drawn_by.values())) == last - 1


def test_a_stop_keeps_the_rollouts_that_were_drawn_ahead(ahead, quiet_run, leaves, monkeypatch, tmp_path):
    monkeypatch.setenv("EASY_SIGNAL", str(int(signal.SIGTERM)))
    monkeypatch.setenv("EASY_AT", "0")
    quiet_run(ahead, tmp_path / "undisturbed")
    for at in (110, 200, 275):
        folder = tmp_path / str(at)
        monkeypatch.setenv("EASY_AT", str(at))
        with pytest.raises(loop.Stopped, match="stopped and saved"):
            quiet_run(ahead, folder)
        assert any((folder / "checkpoints").glob("*/ahead"))
        monkeypatch.setenv("EASY_AT", "0")
        quiet_run(ahead, folder)
        assert leaves(folder) == leaves(tmp_path / "undisturbed")


def test_old_rollouts_must_be_weighed(small):
    run = small(train_async_steps=1)
    with pytest.raises(ConfigError, match="importance_clip"):
        run.step.options.check(run)
