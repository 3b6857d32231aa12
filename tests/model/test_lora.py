"""Adapters: new ones change nothing, they alone are trained, and merging them changes nothing either."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdd.config import ConfigError, ModelConfig
from sdd.losses.divergence import token_logp
from sdd.losses.mean import Mean
from sdd.mesh import put_rows
from sdd.model import lora
from sdd.model import make as make_model
from sdd.steps.base import LossBatch, StepDef, init_state, make_train_step
from sdd.teacher import params as teacher_params
from sdd.testing import tiny_mesh, tiny_model
from sdd.types import Rollouts

ADAPTED = dict(lora_rank=3, lora_alpha=6.0, lora_targets="attention/.*|mlp/down")


@pytest.fixture
def mesh():
    with jax.set_mesh(tiny_mesh()) as mesh:
        yield mesh


def tokens(seed=0, rows=4):
    return np.random.default_rng(seed).integers(0, 16, (rows, 9)).astype(np.int32)


def logits(model, params, tokens_NxT):
    positions = np.broadcast_to(np.arange(tokens_NxT.shape[1], dtype=np.int32), tokens_NxT.shape)
    return model.unembed(params, model.apply(params, tokens_NxT, positions)[0])


def shaken(params, seed=1):
    """The adapters' B is drawn too, so that they do something."""
    trained, frozen = lora.split(params)
    keys = iter(jax.random.split(jax.random.key(seed), 100))
    return lora.join(jax.tree.map(lambda x: 0.3 * jax.random.normal(next(keys), x.shape), trained), frozen)


def test_new_adapters_change_nothing(mesh):
    plain, adapted = tiny_model(16), tiny_model(16, **ADAPTED)
    params = adapted.init(jax.random.key(0))
    assert sorted(lora.targets(adapted.config)) == sorted([*(f"attention/{x}" for x in "qkvo"), "mlp/down"])
    bare = plain.init(jax.random.key(0))
    np.testing.assert_array_equal(logits(adapted, params, tokens()), logits(plain, bare, tokens()))


def test_merged_parameters_are_those_of_a_plain_model(mesh):
    """W + alpha / rank A B, written out for one kernel; and the same logits for the whole model."""
    model = tiny_model(16, **ADAPTED)
    params = shaken(model.init(jax.random.key(0)))
    merged = lora.merged(params)
    plain = tiny_model(16)
    assert jax.tree.structure(merged) == jax.tree.structure(plain.init(jax.random.key(0)))
    layers = params["layers"]
    a, b = (layers["lora"]["adapters"]["attention"]["o"][x] for x in "ab")
    by_hand = layers["attention"]["o"]["kernel"] + 2 * np.einsum("lhcr,lre->lhce", a, b)
    np.testing.assert_allclose(merged["layers"]["attention"]["o"]["kernel"], by_hand, rtol=1e-5, atol=1e-6)
    found, expected = logits(model, params, tokens()), logits(plain, merged, tokens())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(found - logits(plain, plain.init(jax.random.key(0)), tokens())).max() > 0.1


def next_token(ema: float) -> StepDef:
    """Maximum likelihood of the rows, with an averaged teacher that does nothing."""

    def loss(model, params, teacher, batch):
        read_NxT = batch.rollouts.response_NxT
        logp_NxT = token_logp(logits(model, params, read_NxT)[:, :-1], read_NxT[:, 1:])
        return Mean(-jnp.sum(logp_NxT), jnp.asarray(logp_NxT.size, jnp.float32)), {}

    return StepDef(
        source="policy",
        choose=lambda *args: None,
        loss=loss,
        begin=lambda params: teacher_params.begin(params, "ema", False),
        after=lambda teacher, params: teacher_params.after_update(teacher, params, "ema", ema),
    )


def train(shape, num_steps=3):
    with jax.set_mesh(tiny_mesh(*shape)):
        rows = tokens(rows=8)
        batch = LossBatch(Rollouts(rows, *[rows[:, 0]], rows, rows > -1, *[rows * 1.0] * 3), (), None)
        batch = put_rows(tiny_mesh(*shape), batch)
        model, step, optimizer = tiny_model(16, **ADAPTED), next_token(0.5), optax.adam(0.05)
        state = init_state(step, optimizer, shaken(model.init(jax.random.key(0))))
        states = [jax.tree.map(np.array, state)]
        train_step = make_train_step(step, model, optimizer)
        for _ in range(num_steps):
            state, metrics = train_step(state, batch)
            states.append(jax.tree.map(np.array, state))
        return states, float(metrics["loss"])


def test_adapters_alone_are_trained_and_kept_by_the_optimizer():
    states, _ = train((1, 1, 1))
    first, last = states[0].params, states[-1].params
    trained, frozen = zip(*(lora.split(params) for params in (first, last)))
    for a, b in zip(*map(jax.tree.leaves, frozen), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(*map(jax.tree.leaves, trained), strict=True):
        assert (a != b).any()
    shapes = lambda tree: [x.shape for x in jax.tree.leaves(tree)]  # noqa: E731
    assert shapes(states[-1].opt_state[0].mu) == shapes(trained[0])


def test_the_teacher_averages_the_product():
    """Not the factors: the average of A B is not the average of A times that of B."""
    states, _ = train((1, 1, 1))
    average = lora.merged(states[0].params)
    for state in states[1:]:
        average = jax.tree.map(lambda a, p: 0.5 * a + 0.5 * p, average, lora.merged(state.params))
        for found, expected in zip(*map(jax.tree.leaves, (state.teacher.params, average)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_a_mesh_of_eight_devices_equals_one():
    (one, loss), (eight, other) = train((1, 1, 1)), train((2, 2, 2))
    assert loss == pytest.approx(other, rel=1e-4)
    for a, b in zip(*map(jax.tree.leaves, (one[-1].params, eight[-1].params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)  # three Adam steps of 0.05


@pytest.mark.parametrize(("targets", "says"), [("q", "names no kernel"), ("(", "no regular expression")])
def test_targets_that_name_nothing_are_refused(targets, says):
    config = dataclasses.replace(ModelConfig(), lora_rank=2, lora_targets=targets)
    with pytest.raises(ConfigError, match=f"^config.model.lora_targets=.*{says}"):
        make_model(config, 16)
