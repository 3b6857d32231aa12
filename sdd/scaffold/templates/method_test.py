"""Tests of my_name against what it is derived from: pytest test_my_name.py"""

import itertools
import json
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from sdd import config, experiment, lookup, loop
from sdd.steps.base import LossBatch, init_state, make_train_step
from sdd.testing import generators, graded_batch, tiny_mesh, tiny_model, tiny_task

EXPERIMENT = Path(__file__).with_name("my_name_config.py")


@pytest.fixture
def settings():
    return experiment.get_config(experiment.load(EXPERIMENT))


@pytest.fixture
def method(settings):
    return lookup.resolve(config.resolve(settings).step.name)


@pytest.mark.parametrize("baseline", [True, False])
def test_the_expected_gradient_is_that_of_the_expected_reward(method, baseline):
    """By enumeration of every group of three draws from three answers.

    A policy softmax(z) has the gradient p_k (r_k - sum p r) of its expected reward, with respect to z.
    """
    logits_A, reward_A = np.array([0.3, -0.7, 1.1]), np.array([1.0, 0.0, 0.4])
    p_A = np.exp(logits_A) / np.exp(logits_A).sum()
    estimate_A = np.zeros(3)
    for group in itertools.product(range(3), repeat=3):
        drawn = list(group)
        advantage_G = method.advantages(reward_A[drawn], 3, baseline)
        score_GxA = np.eye(3)[drawn] - p_A  # of log p at each draw
        estimate_A += p_A[drawn].prod() * (advantage_G[:, None] * score_GxA).mean(axis=0)
    np.testing.assert_allclose(estimate_A, p_A * (reward_A - p_A @ reward_A), atol=1e-6)


def test_groups_do_not_see_each_other(method):
    advantage_N = method.advantages(np.array([1.0, 0.0, 0.0, 1.0, 1.0, 1.0]), 3, True)
    np.testing.assert_allclose(advantage_N, [1.0, -0.5, -0.5, 0.0, 0.0, 0.0])


def test_right_rollouts_become_likelier_and_wrong_ones_less(method):
    task = tiny_task()
    example = task.source("train")[0]
    *_, (_, (right, *_)) = task.supervised(example, np.random.default_rng(0), 1)  # with a demonstration
    graded = graded_batch(task, [[right, right[:1]]], [example])
    assert graded.grades.correct_N.tolist() == [True, False]
    step, optimizer = method.make(method.Config()), optax.adam(3e-3)
    with jax.set_mesh(tiny_mesh()):
        model = tiny_model(task.tokenizer.vocab_size, num_layers=1)
        chosen = step.choose(task, graded, generators(0, 1))
        batch = LossBatch(graded.rollouts, chosen.targets, chosen.contexts)
        state = init_state(step, optimizer, model.init(jax.random.key(0)))
        train_step = make_train_step(step, model, optimizer)
        losses = []
        for _ in range(10):
            state, metrics = train_step(state, batch)
            losses.append(float(metrics["loss"]))
    # The loss is -A (log p(right) - log p(wrong)) / 2 with A = 1 here.
    assert losses[-1] < losses[0] - 1


def test_it_trains(settings, tmp_path):
    settings.model.num_layers = 1  # seconds, most of them the compiler's
    settings.train.num_steps, settings.eval.every = 2, 0
    final = loop.run(config.resolve(settings), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(np.isfinite(line["loss"]) and line["skipped"] == 0 for line in lines)
    assert set(final) == set(settings.eval.splits)


def test_what_cannot_work_is_refused_in_one_line(settings):
    settings.train.group_size = 1
    with pytest.raises(config.ConfigError, match=r"^config\.train\.group_size=1: [^\n]+$"):
        config.resolve(settings)
