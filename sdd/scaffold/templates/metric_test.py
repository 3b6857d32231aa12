"""Tests of my_name: pytest test_my_name.py"""

from pathlib import Path

import numpy as np
import pytest

from sdd import config, experiment, lookup, loop
from sdd.metrics import Samples, rollout_metrics

EXPERIMENT = Path(__file__).with_name("my_name_config.py")


@pytest.fixture
def settings():
    return experiment.get_config(experiment.load(EXPERIMENT))


@pytest.fixture
def metric(settings):
    return lookup.resolve(config.resolve(settings).eval.metrics[0])


def measured(metric, strategy_BxN, correct_BxN):
    samples = Samples(np.array(correct_BxN, bool), np.array(strategy_BxN), 4)
    return rollout_metrics(samples, [metric])["my_name"]


def test_uniform_use_counts_every_strategy(metric):
    strategy = [[0, 0, 1, 1], [0, 1, 2, 3], [2, 2, 2, 2]]
    np.testing.assert_allclose(measured(metric, strategy, np.ones((3, 4))), [2, 4, 1])


def test_it_is_exp_of_shannon_entropy(metric):
    """Written out the naive way, a rollout at a time."""
    rng = np.random.default_rng(0)
    strategy, correct = rng.integers(0, 4, (20, 12)), rng.random((20, 12)) < 0.8
    expected = []
    for row, right in zip(strategy, correct, strict=True):
        used = row[right].tolist()
        shares = [used.count(s) / len(used) for s in set(used)]
        expected.append(np.exp(-sum(p * np.log(p) for p in shares)))
    np.testing.assert_allclose(measured(metric, strategy, correct), expected)


def test_nothing_right_is_undefined(metric):
    assert np.isnan(measured(metric, [[0, 1]], [[0, 0]])).all()


def test_a_run_measures_it(settings, tmp_path):
    settings.model.num_layers = 1  # seconds, most of them the compiler's
    settings.train.num_steps, settings.eval.every = 1, 0
    final = loop.run(config.resolve(settings), tmp_path)
    assert all("my_name" in metrics for metrics in final.values())
