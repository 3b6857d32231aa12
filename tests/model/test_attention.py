"""Attention's gradient, which is written out, against that of the plain formula; whole and in blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd.mesh import BATCH, rows
from sdd.mesh import P as Spec
from sdd.model.attention import Keys, Scoring, attend, head_axis, per_head
from sdd.testing import tiny_mesh

N, T, H, C = 4, 5, 4, 6
B, P = 2, 3  # prompts, columns of the prefix


def arrays(kv_heads):
    rng = np.random.default_rng(0)
    q = rng.standard_normal((N, T, H, C)).astype(np.float32)
    own = [rng.standard_normal((N, kv_heads, T, C)).astype(np.float32) for _ in range(2)]
    prefix = [rng.standard_normal((B, kv_heads, P, C)).astype(np.float32) for _ in range(2)]
    positions_NxT = P + np.tile(np.arange(T, dtype=np.int32), (N, 1))
    prefix_positions_BxP = np.array([[0, 1, 2], [-1, 0, 1]], np.int32)
    return q, own, prefix, positions_NxT, prefix_positions_BxP


def plain(q, own, prefix, at, prefix_at, window, softcap):
    """One softmax over prefix and own tokens, for each row."""
    repeat = lambda x: jnp.repeat(x, N // B, axis=0)  # noqa: E731
    k, v = (jnp.concatenate([repeat(p), o], axis=2) for p, o in zip(prefix, own, strict=True))
    keys_at = np.concatenate([np.repeat(prefix_at, N // B, axis=0), at], axis=1)
    k, v = (jnp.repeat(x, H // x.shape[1], axis=1) for x in (k, v))
    score = 0.3 * jnp.einsum("nthc,nhsc->nhts", q, k)
    score = softcap * jnp.tanh(score / softcap) if softcap else score
    seen = (keys_at[:, None] >= 0) & (keys_at[:, None] <= at[:, :, None])
    seen &= keys_at[:, None] > at[:, :, None] - (window or 100)
    weight = jax.nn.softmax(jnp.where(seen[:, None], score, -jnp.inf), axis=-1)
    return jnp.einsum("nhts,nhsc->nthc", weight, v)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 1, 2)])
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize(("window", "softcap"), [(None, 0.0), (4, 0.0), (None, 1.5)])
def test_values_and_gradients_equal_the_plain_formula(window, softcap, kv_heads, sizes):
    q, own, prefix, at, prefix_at = arrays(kv_heads)
    weight = np.random.default_rng(1).standard_normal((N, T, H, C)).astype(np.float32)
    expected = jax.value_and_grad(
        lambda q, own, prefix: jnp.sum(weight * plain(q, own, prefix, at, prefix_at, window, softcap)),
        argnums=(0, 1, 2),
    )(q, own, prefix)
    for block in (0, 2):

        def loss(q, own, prefix, block=block):
            keys = Keys(*own, jax.device_put(at, rows(2)))
            shared = Keys(*prefix, jax.device_put(prefix_at, rows(2)))
            how = Scoring(0.3, softcap, block)
            return jnp.sum(weight * attend(q, jax.device_put(at, rows(2)), keys, shared, window, how))

        with jax.set_mesh(tiny_mesh(*sizes)):
            split = Spec(BATCH, head_axis(kv_heads), None, None)
            placed = (
                jax.device_put(q, per_head(head_axis(H))),
                *([jax.device_put(x, split) for x in pair] for pair in (own, prefix)),
            )
            found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*placed)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
