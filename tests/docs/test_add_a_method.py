"""The method of docs/add_a_method.md, as it stands there, on the task of docs/add_a_task.md."""

import importlib
import json

import jax
import numpy as np
import optax
import pytest

from sdd.steps.base import LossBatch, init_state, make_train_step
from sdd.testing import generators, graded_batch, tiny_mesh, tiny_model
from sdd.types import Grades


@pytest.fixture
def step_module(written):
    return importlib.import_module("my_package.my_step")


@pytest.fixture
def task(written):
    module = importlib.import_module("my_package.my_task")
    return module.make(module.Config(), "", 0)


@pytest.fixture
def graded(task):
    """Two prompts with four rollouts each: right by 1, 1 and 2, wrong; and none right."""
    source = task.source("train")
    even = next(e for e in source if e["n"] == 6 and "2" in e["right"])
    odd = next(e for e in source if e["n"] == 7)
    texts = (("1 <eos>", "1 <eos>", "2 <eos>", "5 <eos>"), ("5 <eos>", "5 <eos>", "4 <eos>", "1 1"))
    rows = [[task.tokenizer.encode(text) for text in group] for group in texts]
    return graded_batch(task, rows, [even, odd])


def test_it_is_short(written):
    code = (written / "my_package" / "my_step.py").read_text()
    assert len(code.splitlines()) < 60


def test_it_trains_in_the_loop(trained):
    lines = [json.loads(line) for line in (trained.workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 41))
    assert all(np.isfinite(line["loss"]) and line["skipped"] == 0 for line in lines)
    first, last = (np.mean([line["pass@1"] for line in part]) for part in (lines[:5], lines[-10:]))
    assert last > first + 0.3
    assert trained.final["id"]["pass@1"] > first + 0.3


def test_right_rollouts_become_likelier_and_wrong_ones_do_not(step_module, task, graded):
    with jax.set_mesh(tiny_mesh()):
        step, model, optimizer = (
            step_module.make(step_module.Config()),
            tiny_model(17, num_layers=1, token_shift=False),
            optax.adam(3e-3),
        )
        chosen = step.choose(task, graded, generators(0, 2))
        batch = LossBatch(graded.rollouts, chosen.targets, chosen.contexts)
        state = init_state(step, optimizer, model.init(jax.random.key(0)))
        before = jax.tree.map(np.array, state.params)
        train_step = make_train_step(step, model, optimizer)
        logp = []
        for _ in range(20):
            state, metrics = train_step(state, batch)
            logp.append(float(metrics["logp_right"]))
        assert logp[-1] > logp[0] + 1
        changed = [np.abs(a - b).max() for a, b in zip(*map(jax.tree.leaves, (before, state.params)))]
        assert max(changed) > 0

        @jax.jit
        def loss(response_NxT):
            rollouts = batch.rollouts._replace(response_NxT=response_NxT)
            return step.loss(model, state.params, (), batch._replace(rollouts=rollouts))[0].value

        given = graded.rollouts.response_NxT
        wrong, right = given.copy(), given.copy()
        wrong[3] = right[2] = task.tokenizer.encode("9 <eos>")
        assert float(loss(wrong)) == pytest.approx(float(loss(given)), abs=1e-6)
        assert float(loss(right)) > float(loss(given)) + 0.1


def test_balance_gives_each_right_strategy_the_same_weight(step_module, graded):
    weights = step_module.weights(graded.grades, 4, True)
    np.testing.assert_allclose(weights, [0.5, 0.5, 1, 0, 0, 0, 0, 0])
    np.testing.assert_allclose(step_module.weights(graded.grades, 4, False), [1, 1, 1, 0, 0, 0, 0, 0])
    rng = np.random.default_rng(1)
    correct, strategy = rng.random(24) < 0.6, rng.integers(0, 3, 24).astype(np.int32)
    weight = step_module.weights(Grades(correct, correct * 1.0, strategy, strategy), 6, True)
    for start in range(0, 24, 6):
        for s in range(3):
            rows = [n for n in range(start, start + 6) if correct[n] and strategy[n] == s]
            assert sum(weight[n] for n in rows) == pytest.approx(float(bool(rows)))
    assert (weight[~correct] == 0).all()
