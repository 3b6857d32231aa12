"""The policy's embedding against plain forward passes of single rows; padding and meshes change nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd.embedders import policy
from sdd.testing import tiny_mesh, tiny_model
from sdd.types import Rollouts

B, G, P, T, V = 4, 3, 9, 6, 16


def rollouts(seed=0) -> Rollouts:
    rng = np.random.default_rng(seed)
    length_B = np.array([P, 1, 4, 7], np.int32)
    context_BxP = rng.integers(1, V, (B, P)).astype(np.int32)
    context_BxP[np.arange(P) < P - length_B[:, None]] = 0
    mask_NxT = np.arange(T) < np.array([6, 1, 3, 2, 5, 4, 6, 0, 1, 2, 3, 4])[:, None]
    response_NxT = np.where(mask_NxT, rng.integers(1, V, (B * G, T)), 0).astype(np.int32)
    nothing = np.zeros(response_NxT.shape, np.float32)
    return Rollouts(context_BxP, length_B, response_NxT, mask_NxT, nothing, nothing, nothing)


def embeddings(r: Rollouts, mesh=(1, 1, 1)) -> np.ndarray:
    with jax.set_mesh(tiny_mesh(*mesh)):
        model = tiny_model(V)
        return np.asarray(policy.make(model)(model.init(jax.random.key(0)), r))


@pytest.fixture(scope="module")
def expected():
    return embeddings(rollouts())


def test_it_equals_a_plain_forward_pass_of_each_row(expected):
    r = rollouts()
    assert expected.dtype == np.float32 and expected.shape == (B * G, 32)
    with jax.set_mesh(tiny_mesh()):
        model = tiny_model(V)
        params = model.init(jax.random.key(0))
        apply = jax.jit(model.apply)
        for n, (response, mask) in enumerate(zip(r.response_NxT, r.mask_NxT)):
            context = r.context_BxP[n // G][P - r.context_length_B[n // G] :]
            tokens = np.concatenate([context, response[mask]])
            tokens_1xS = np.pad(tokens, (0, P + T - len(tokens)))[None]  # one shape; it comes after, unseen
            hidden = apply(params, tokens_1xS, np.arange(P + T, dtype=np.int32)[None])[0][0]
            predicting = np.asarray(hidden)[len(context) - 1 : len(tokens) - 1]
            mean = predicting.mean(axis=0) if mask.any() else np.zeros(32)
            np.testing.assert_allclose(expected[n], mean, rtol=0, atol=2e-5)


def test_padding_changes_nothing(expected):
    r = rollouts()
    wide = r._replace(
        context_BxP=np.pad(r.context_BxP, ((0, 0), (3, 0)), constant_values=5),
        response_NxT=np.pad(r.response_NxT, ((0, 0), (0, 2)), constant_values=7),
        mask_NxT=np.pad(r.mask_NxT, ((0, 0), (0, 2))),
    )
    wide = wide._replace(response_NxT=np.where(wide.mask_NxT, wide.response_NxT, 3))
    np.testing.assert_allclose(embeddings(wide), expected, rtol=0, atol=2e-5)


def test_a_mesh_of_eight_devices_gives_what_one_gives(expected):
    np.testing.assert_allclose(embeddings(rollouts(), (2, 2, 2)), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_pooling_reads_real_tokens_only_and_adds_in_float32(dtype):
    hidden = np.random.default_rng(0).normal(size=(3, 400, 2)) + 8
    mask = np.arange(400) < np.array([400, 7, 0])[:, None]
    hidden = jnp.asarray(hidden, dtype)
    expected = [np.asarray(h, np.float64)[m].mean(axis=0) for h, m in zip(hidden[:2], mask)] + [np.zeros(2)]
    got = policy.pooled_hidden(jnp.where(mask[..., None], hidden, jnp.nan), mask)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)
