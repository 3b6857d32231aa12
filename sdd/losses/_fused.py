"""The pass of `blockwise.sum_blocks` over the blocks: values, and the gradient where one is wanted."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from sdd.losses.mean import weighted_sum

Block = Callable[[Sequence[jax.Array], Sequence[jax.Array]], tuple[jax.Array, Any]]


def fused_sum(
    fn: Callable[..., tuple[jax.Array, Any]], weight_xNxB: jax.Array, blocks: Sequence[jax.Array]
) -> tuple[jax.Array, Any]:
    """Total and per-token values of ``fn`` over a leading axis of blocks; see `blockwise.sum_blocks`."""
    block, closed = _closed_over(fn, [x[0] for x in blocks])

    @jax.custom_vjp
    def total(closed, weight_xNxB, blocks):
        _, (loss_xNxB, tokens) = jax.lax.scan(lambda _, xs: (None, block(closed, xs)), None, blocks)
        return weighted_sum(loss_xNxB, weight_xNxB), tokens

    total.defvjp(lambda *inputs: _with_gradient(block, *inputs), _scaled, symbolic_zeros=True)
    return total(closed, weight_xNxB, list(blocks))


def _closed_over(fn: Callable[..., Any], example: Sequence[jax.Array]) -> tuple[Block, list[jax.Array]]:
    """``fn`` as a function of what it closes over too, which a custom derivative must be handed."""
    closed_jaxpr, shape = jax.make_jaxpr(fn, return_shape=True)(*example)

    def block(closed: Sequence[jax.Array], arrays: Sequence[jax.Array]):
        whole = jax.extend.core.ClosedJaxpr(closed_jaxpr.jaxpr, list(closed))
        flat = jax.extend.core.jaxpr_as_fun(whole)(*arrays)
        return jax.tree.unflatten(jax.tree.structure(shape), flat)

    return block, list(closed_jaxpr.consts)


def _with_gradient(block: Block, closed, weight_xNxB, blocks):
    """The forward rule: values as without a gradient, and d total / d input for what is differentiated."""
    moves = [[x.perturbed for x in part] for part in (closed, blocks)]
    closed, weight_xNxB, blocks = jax.tree.map(
        lambda x: x.value, (closed, weight_xNxB, blocks), is_leaf=lambda x: hasattr(x, "perturbed")
    )

    def step(sums, inputs):
        weight_NxB, arrays = inputs
        fixed = (closed, arrays)

        def of(moving):
            parts = (_merge(*part) for part in zip(moving, fixed, moves, strict=True))
            loss_NxB, tokens = block(*parts)
            return weighted_sum(loss_NxB, weight_NxB), (loss_NxB, tokens)

        moving = [_select(part, move) for part, move in zip(fixed, moves, strict=True)]
        (changes, array_changes), values = jax.grad(of, has_aux=True)(moving)
        sums = [total + change.astype(total.dtype) for total, change in zip(sums, changes, strict=True)]
        return sums, (*values, array_changes)

    # Many small numbers are added up: at least in float32.
    zeros = [jnp.zeros_like(x, jnp.promote_types(x.dtype, jnp.float32)) for x in _select(closed, moves[0])]
    sums, (loss_xNxB, tokens, array_changes) = jax.lax.scan(step, zeros, (weight_xNxB, blocks))
    sums = [total.astype(x.dtype) for total, x in zip(sums, _select(closed, moves[0]), strict=True)]
    gradients = (_place(sums, moves[0]), _place(array_changes, moves[1]))
    return (weighted_sum(loss_xNxB, weight_xNxB), tokens), gradients


def _scaled(gradients, cotangents):
    """The backward rule: the gradients times the cotangent of the total."""
    closed, blocks = gradients
    scale, _ = cotangents
    if isinstance(scale, SymbolicZero):
        return [None] * len(closed), None, [None] * len(blocks)
    closed, blocks = jax.tree.map(lambda x: scale.astype(x.dtype) * x, (closed, blocks))
    return closed, None, blocks


def _select(values: Sequence[Any], chosen: Sequence[bool]) -> list[Any]:
    return [x for x, yes in zip(values, chosen, strict=True) if yes]


def _place(values: Sequence[Any], chosen: Sequence[bool]) -> list[Any]:
    """Undoes `_select`, with None for the rest."""
    left = iter(values)
    return [next(left) if yes else None for yes in chosen]


def _merge(moving: Sequence[Any], fixed: Sequence[Any], chosen: Sequence[bool]) -> list[Any]:
    return [x if yes else y for x, y, yes in zip(_place(moving, chosen), fixed, chosen, strict=True)]
