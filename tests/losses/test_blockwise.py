"""Blocks of tokens give the same numbers as all tokens at once, in less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd.losses import blockwise
from sdd.losses import divergence as dv


def _problem(N=2, T=7, E=4, V=11):
    rng = np.random.default_rng(0)
    student, teachers = rng.normal(size=(N, T, E)), rng.normal(size=(N, 3, T, E))
    return student, teachers, rng.integers(0, V, (N, T)), rng.normal(size=(E, V))


def _loss(params, student, teachers, token, block_size):
    """A realistic fn: K teachers whose T is on axis 2, integers beside floats, closed-over parameters."""

    def fn(student_NxTxE, teacher_NxKxTxE, token_NxT):
        logits = student_NxTxE @ params
        teacher = teacher_NxKxTxE @ jax.lax.stop_gradient(params)
        weights = np.ones(teacher.shape[:2])
        value = dv.divergence_to_teachers(logits, teacher, weights, combine="mixture", kind="js").value
        return {"value": value, "logp": dv.token_logp(logits, token_NxT), "logits": logits}

    return blockwise.map_blocks(fn, block_size, student, teachers, token, axes=(1, 2, 1))


@pytest.mark.parametrize("block_size", [1, 3, 100])
def test_values_and_gradients_equal_the_unblocked(block_size):
    student, teachers, token, params = _problem()

    def total(params, student, teachers, block_size):
        out = _loss(params, student, teachers, token, block_size)
        weight_NxT = np.arange(14.0).reshape(2, 7)  # not the same gradient for each token
        return jnp.sum(weight_NxT * (out["value"] - 0.1 * out["logp"])) + jnp.sum(out["logits"] ** 2), out

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True), static_argnames=("block_size",))
    with jax.enable_x64(True):
        got = run(params, student, teachers, block_size=block_size)
        want = run(params, student, teachers, block_size=0)
    assert got[0][1]["logits"].shape == (2, 7, 11)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), got, want)


def test_blocks_see_their_own_tokens_in_order():
    seen = blockwise.map_blocks(lambda x: x + jnp.arange(x.shape[1]), 2, jnp.array([[10, 20, 30, 40, 50]]))
    np.testing.assert_array_equal(seen, [[10, 21, 30, 41, 50]])


def test_memory_holds_one_block_of_logits():
    N, T, E, V, block_size = 2, 256, 8, 8192, 16
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((E, V), (N, T, E), (N, T, E))]

    def loss(params, student, teacher, block_size):
        def fn(s_NxTxE, t_NxTxE):
            return dv.divergence(s_NxTxE @ params, jax.lax.stop_gradient(t_NxTxE @ params), "js")

        return blockwise.map_blocks(fn, block_size, student, teacher).sum()

    def temporary_bytes(block_size):
        grad = jax.jit(jax.grad(functools.partial(loss, block_size=block_size), argnums=(0, 1)))
        return grad.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    one_logits = N * T * V * 4
    assert temporary_bytes(0) > one_logits
    assert temporary_bytes(block_size) < one_logits / 2


def test_errors():
    x = np.zeros((2, 4))
    with pytest.raises(ValueError, match="block_size is -1"):
        blockwise.map_blocks(lambda x: x, -1, x)
    with pytest.raises(ValueError, match="got 1 arrays and 2 axes"):
        blockwise.map_blocks(lambda x: x, 1, x, axes=(1, 1))
    with pytest.raises(AssertionError):
        blockwise.map_blocks(lambda x, y: x, 2, x, np.zeros((2, 5)))
