"""Per-token functions of logits without the logits of every token in memory."""

from collections.abc import Callable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp

from sdd.types import Array


def map_blocks(
    fn: Callable[..., Any], block_size: int, *arrays_NxTx: Array, axes: Sequence[int] | None = None
) -> Any:
    """Applies fn to blocks of tokens, one after the other, and joins the results along T.

    out[:, iB:(i+1)B] = fn(*(x[:, iB:(i+1)B] for x in arrays)) for blocks of B tokens.

    fn must treat tokens independently of each other. Its intermediate values (the
    logits) exist for one block at a time, in the backward pass too, where they are
    computed again: the price is one more forward pass of fn. Gradients flow to the
    arrays and to whatever fn closes over.

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
    axes = (1,) * len(arrays_NxTx) if axes is None else tuple(axes)
    if not arrays_NxTx or len(axes) != len(arrays_NxTx):
        raise ValueError(
            f"map_blocks got {len(arrays_NxTx)} arrays and {len(axes)} axes; valid: one axis an array"
        )
    if block_size < 0:
        raise ValueError(f"block_size is {block_size}; valid: 0 (no blocks) or a number of tokens")
    T = arrays_NxTx[0].shape[axes[0]]
    for array, axis in zip(arrays_NxTx, axes, strict=True):
        chex.assert_axis_dimension(array, axis, T)
    if block_size == 0 or T == 0:
        return fn(*arrays_NxTx)

    block_size = min(block_size, T)
    blocks = [_split(array, axis, block_size) for array, axis in zip(arrays_NxTx, axes, strict=True)]
    # A scan's body is not merged with its recomputation, so the guard against that can go.
    step = jax.checkpoint(lambda xs: fn(*xs), prevent_cse=False)
    return jax.tree.map(lambda out: _join(out, T), jax.lax.map(step, tuple(blocks)))


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
