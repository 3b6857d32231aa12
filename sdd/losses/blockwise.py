"""Per-token functions of logits without the logits of every token in memory.

`sum_blocks` is for what is differentiated, a weighted sum over tokens; `map_blocks` for what is not.
"""

from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp

from sdd.losses._fused import fused_sum
from sdd.losses.mean import weighted_sum
from sdd.types import Array


def sum_blocks(
    fn: Callable[..., tuple[jax.Array, Any]],
    block_size: int,
    weight_NxT: Array,
    *arrays_NxTx: Array,
    axes: Sequence[int] | None = None,
) -> tuple[jax.Array, Any]:
    """A weighted sum of token losses, block by block, with its gradient computed in the same pass.

    total = sum_nt weight_nt loss_nt, where (loss, tokens) = fn(*arrays). Each block of logits exists
    once: its part of the gradient is computed while it is there, so nothing is computed again in
    the backward pass, which only multiplies by the cotangent of ``total``. Gradients flow to the
    arrays and to whatever fn closes over, and are computed for those only that are differentiated
    (not for a frozen teacher's parameters). Reverse mode only.

    Args:
      fn: takes blocks of the arrays with B tokens each; gives the losses (N, B), and a pytree of arrays
        (N, B, ...) to look at, without gradient. It must treat tokens independently of each other.
      block_size: B >= 1; 0 calls fn once on everything, with plain automatic differentiation. T
        need not be a multiple: the last block is filled with zeros of weight 0.
      weight_NxT: weights known beforehand, without gradient, as `sdd.losses.policy.token_weights` gives
        them. The loss of a token of weight 0 does not count, not even when it is not finite.
      *arrays_NxTx: see `map_blocks`.
      axes: see `map_blocks`.

    Returns:
      total, a float32 scalar, and the pytree of fn, arrays (N, T, ...).

    Raises:
      ValueError: as `map_blocks`.
    """
    axes = _checked("sum_blocks", block_size, arrays_NxTx, axes)
    weight_NxT = jax.lax.stop_gradient(jnp.asarray(weight_NxT, jnp.float32))
    chex.assert_shape(weight_NxT, (None, arrays_NxTx[0].shape[axes[0]]))
    T = weight_NxT.shape[1]
    if block_size == 0 or T == 0:
        loss_NxT, tokens = fn(*arrays_NxTx)
        return weighted_sum(loss_NxT, weight_NxT), jax.lax.stop_gradient(tokens)
    block_size = min(block_size, T)
    blocks = [_split(array, axis, block_size) for array, axis in zip(arrays_NxTx, axes, strict=True)]
    total, tokens = fused_sum(fn, _split(weight_NxT, 1, block_size), blocks)
    return total, jax.tree.map(lambda out: _join(out, T), tokens)


def map_blocks(
    fn: Callable[..., Any], block_size: int, *arrays_NxTx: Array, axes: Sequence[int] | None = None
) -> Any:
    """Applies fn to blocks of tokens, one after the other, and joins the results along T.

    out[:, iB:(i+1)B] = fn(*(x[:, iB:(i+1)B] for x in arrays)) for blocks of B tokens.

    fn must treat tokens independently of each other. Its intermediate values (the
    logits) exist for one block at a time. A gradient, where one is wanted, computes
    them again in the backward pass; `sum_blocks` does not.

    Args:
      fn: takes blocks of the arrays with B tokens each, gives a pytree of arrays (N, B, ...).
      block_size: B >= 1; 0 calls fn once on everything and keeps its intermediate
        values. T need not be a multiple: the last block is filled with zeros, and
        what fn gives for those is cut off.
      *arrays_NxTx: arrays with T on axis 1, or on the axis that ``axes`` names.
      axes: which axis of each array is T, for example (1, 2) for hidden_NxTxE and
        teacher_hidden_NxKxTxE. The blocks keep each array's order of axes.

    Returns:
      The pytree of fn, arrays (N, T, ...).

    Raises:
      ValueError: for a negative block size, no array, or ``axes`` of another length.
    """
    axes = _checked("map_blocks", block_size, arrays_NxTx, axes)
    T = arrays_NxTx[0].shape[axes[0]]
    if block_size == 0 or T == 0:
        return fn(*arrays_NxTx)

    block_size = min(block_size, T)
    blocks = [_split(array, axis, block_size) for array, axis in zip(arrays_NxTx, axes, strict=True)]
    # A scan's body is not merged with its recomputation, so the guard against that can go.
    step = jax.checkpoint(lambda xs: fn(*xs), prevent_cse=False)
    return jax.tree.map(lambda out: _join(out, T), jax.lax.map(step, tuple(blocks)))


def _checked(
    name: str, block_size: int, arrays_NxTx: Sequence[Array], axes: Sequence[int] | None
) -> tuple[int, ...]:
    """The axis of T of each array, once they are known to agree."""
    axes = (1,) * len(arrays_NxTx) if axes is None else tuple(axes)
    if not arrays_NxTx or len(axes) != len(arrays_NxTx):
        raise ValueError(
            f"{name} got {len(arrays_NxTx)} arrays and {len(axes)} axes; valid: one axis an array"
        )
    if block_size < 0:
        raise ValueError(f"block_size is {block_size}; valid: 0 (no blocks) or a number of tokens")
    for array, axis in zip(arrays_NxTx, axes, strict=True):
        chex.assert_axis_dimension(array, axis, arrays_NxTx[0].shape[axes[0]])
    return axes


def _split(array: Array, axis: int, block_size: int) -> jax.Array:
    """(..., T, ...) -> (blocks, ..., block_size, ...), filled with zeros at the end of T."""
    axis = axis % array.ndim
    num_blocks = -(-array.shape[axis] // block_size)
    fill = [(0, 0)] * array.ndim
    fill[axis] = (0, num_blocks * block_size - array.shape[axis])
    padded = jnp.pad(array, fill)
    shape = (*padded.shape[:axis], num_blocks, block_size, *padded.shape[axis + 1 :])
    return jnp.moveaxis(padded.reshape(shape), axis, 0)


def _join(out: jax.Array, num_tokens: int) -> jax.Array:
    """(blocks, N, block_size, ...) -> (N, num_tokens, ...)."""
    joined = jnp.moveaxis(out, 0, 1)
    joined = joined.reshape(joined.shape[0], joined.shape[1] * joined.shape[2], *joined.shape[3:])
    return joined[:, :num_tokens]
