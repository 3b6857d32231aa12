"""Which rollout is decoded in which row: rows are filled from a queue, and closed up when it is empty.

Every device serves the rollouts of its own prompts: these functions move rows within a device and never
between devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sdd.config import ModelConfig
from sdd.mesh import BATCH, P, row_multiple, rows
from sdd.model import Cache, apart, empty, fork
from sdd.model.cache import repeat_rows


class Queue(NamedTuple):
    """Prompts that were read, and the rollouts that are to follow them; each device has its own part.

    Attributes:
      cache: keys and values of the B prompts, an array a layer.
      hidden_BxE: the hidden states that first tokens are drawn from.
      length_B: int32, real tokens of each context.
      row_id_N: int32, what the randomness of each rollout depends on.
      next_D: int32, how many rollouts of each of D devices have a slot, or had one.
    """

    cache: Cache
    hidden_BxE: jax.Array
    length_B: jax.Array
    row_id_N: jax.Array
    next_D: jax.Array


class Slots(NamedTuple):
    """S rows that are decoded together.

    Attributes:
      row_S: int32, number of the slot's rollout among those of its device; -1: idle.
      row_id_S: int32, the rollout's entry of ``Queue.row_id_N``.
      drawn_S: int32, tokens drawn so far.
      length_S: int32, real tokens of the context.
      hidden_SxE: the hidden states that next tokens are drawn from.
      cache: keys and values of what each rollout has read; contexts of groups lie in its prefix, or, once
        slots have changed hands, each in the first columns of its own row.
    """

    row_S: jax.Array
    row_id_S: jax.Array
    drawn_S: jax.Array
    length_S: jax.Array
    hidden_SxE: jax.Array
    cache: Any  # a Cache


def on_each_device(fn: Callable[..., Any], like: Any, *trees: Any) -> Any:
    """Calls ``fn`` with each device's rows of the trees; its result is split as ``like`` is."""
    specs = lambda tree: jax.tree.map(lambda x: jax.typeof(x).sharding.spec, tree)  # noqa: E731
    return jax.shard_map(fn, in_specs=specs(trees), out_specs=specs(like))(*trees)


def all_at_once(queue: Queue, config: ModelConfig, capacity: int) -> tuple[Slots, Queue]:
    """A slot for every rollout; those of a group share their prompt's keys and values."""
    num_prompts, num_rows = queue.length_B.shape[0], queue.row_id_N.shape[0]
    devices, group_size = queue.next_D.shape[0], num_rows // num_prompts
    each_D = jnp.full_like(queue.next_D, num_rows // devices)
    row_S = jnp.arange(num_rows, dtype=jnp.int32) % (num_rows // devices)
    slots = Slots(
        row_S=jax.sharding.reshard(row_S, rows(1)),
        row_id_S=queue.row_id_N,
        drawn_S=jnp.zeros_like(queue.row_id_N),
        length_S=repeat_rows(queue.length_B, group_size),
        hidden_SxE=repeat_rows(queue.hidden_BxE, group_size),
        cache=apart(fork(queue.cache, config, group_size, capacity)),
    )
    return slots, queue._replace(next_D=each_D)


def idle(queue: Queue, config: ModelConfig, num_slots: int, capacity: int) -> Slots:
    """Slots without a rollout, with room for a context and ``capacity`` tokens each."""
    zero_S = jnp.zeros((num_slots,), jnp.int32, out_sharding=rows(1))
    width = queue.hidden_BxE.shape[1]
    return Slots(
        row_S=zero_S - 1,
        row_id_S=zero_S,
        drawn_S=zero_S,
        length_S=zero_S,
        hidden_SxE=jnp.zeros((num_slots, width), queue.hidden_BxE.dtype, out_sharding=rows(2)),
        cache=apart(empty(config, num_slots, queue.cache.positions_NxS.shape[1] + capacity)),
    )


def refill(slots: Slots, queue: Queue, group_size: int) -> tuple[Slots, Queue]:
    """Gives idle slots to the rollouts that wait, in their order; their contexts are copied."""

    def local(slots: Slots, queue: Queue):
        free_S = slots.row_S < 0
        row_S = queue.next_D + jnp.cumsum(free_S, dtype=jnp.int32) - 1
        new_S = free_S & (row_S < queue.row_id_N.shape[0])
        row_S = jnp.where(new_S, row_S, 0)
        prompt_S = row_S // group_size
        columns = queue.cache.positions_NxS.shape[1]

        def put(old_Sx, new_Sx):
            return jnp.where(jnp.expand_dims(new_S, range(1, old_Sx.ndim)), new_Sx, old_Sx)

        def put_context(old_LxSx, new_LxBx):
            return tuple(
                old.at[:, :, :columns].set(put(old[:, :, :columns], new[prompt_S]))
                for old, new in zip(old_LxSx, new_LxBx, strict=True)
            )

        held, read = slots.cache, queue.cache
        positions_SxP = put(held.positions_NxS[:, :columns], read.positions_NxS[prompt_S])
        blank_SxT = put(held.positions_NxS[:, columns:], -1)
        cache = held._replace(
            k_LxNxJxSxC=put_context(held.k_LxNxJxSxC, read.k_LxNxJxSxC),
            v_LxNxJxSxC=put_context(held.v_LxNxJxSxC, read.v_LxNxJxSxC),
            positions_NxS=jnp.concatenate([positions_SxP, blank_SxT], axis=1),
            last_token_N=put(held.last_token_N, read.last_token_N[prompt_S]),
        )
        filled = Slots(
            row_S=put(slots.row_S, row_S),
            row_id_S=put(slots.row_id_S, queue.row_id_N[row_S]),
            drawn_S=put(slots.drawn_S, 0),
            length_S=put(slots.length_S, queue.length_B[prompt_S]),
            hidden_SxE=put(slots.hidden_SxE, queue.hidden_BxE[prompt_S]),
            cache=cache,
        )
        return filled, queue.next_D + jnp.sum(new_S, dtype=jnp.int32)

    slots, next_D = on_each_device(local, (slots, queue.next_D), slots, queue)
    return slots, queue._replace(next_D=next_D)


def close_up(slots: Slots, group_size: int, num_slots: int) -> Slots:
    """Moves the rollouts that go on into fewer slots; shared contexts are copied into their rows."""
    devices = row_multiple(jax.sharding.get_abstract_mesh())

    def local(slots: Slots) -> Slots:
        order_S = jnp.argsort(slots.row_S < 0, stable=True)[: num_slots // devices]
        cache, prompt_S = slots.cache, jnp.maximum(slots.row_S[order_S], 0) // group_size
        shared = cache.prefix_positions_BxP.shape[1] > 0

        def join(prefix_BxP, own_SxS, axis):
            own_SxS = own_SxS[order_S]
            return jnp.concatenate([prefix_BxP[prompt_S], own_SxS], axis) if shared else own_SxS

        def join_layers(prefix_LxB, own_LxS):
            return tuple(join(*pair, 2) for pair in zip(prefix_LxB, own_LxS, strict=True))

        def none_of(prefix_LxB):
            return tuple(x[: num_slots // devices, :, :0] for x in prefix_LxB)

        closed = cache._replace(
            prefix_k_LxBxJxPxC=none_of(cache.k_LxNxJxSxC),
            prefix_v_LxBxJxPxC=none_of(cache.v_LxNxJxSxC),
            prefix_positions_BxP=cache.positions_NxS[: num_slots // devices, :0],
            k_LxNxJxSxC=join_layers(cache.prefix_k_LxBxJxPxC, cache.k_LxNxJxSxC),
            v_LxNxJxSxC=join_layers(cache.prefix_v_LxBxJxPxC, cache.v_LxNxJxSxC),
            positions_NxS=join(cache.prefix_positions_BxP, cache.positions_NxS, 1),
            last_token_N=cache.last_token_N[order_S],
        )
        kept = jax.tree.map(lambda x_Sx: x_Sx[order_S], slots._replace(cache=()))
        return kept._replace(cache=closed)

    return on_each_device(local, slots, slots)


def widen(slots: Slots, columns: int) -> Slots:
    """Room for more tokens: the rows' own keys and values get ``columns`` columns."""
    cache = slots.cache
    more = columns - cache.positions_NxS.shape[1]
    wider = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, more), (0, 0)))  # noqa: E731
    cache = cache._replace(
        k_LxNxJxSxC=jax.tree.map(wider, cache.k_LxNxJxSxC),
        v_LxNxJxSxC=jax.tree.map(wider, cache.v_LxNxJxSxC),
        positions_NxS=jnp.pad(cache.positions_NxS, ((0, 0), (0, more)), constant_values=-1),
    )
    return slots._replace(cache=cache)


def most_busy(slots: Slots) -> jax.Array:
    """Slots that have a rollout, on the device that has most of them; an int32 scalar."""
    return jnp.max(busy(slots))


def busy(slots: Slots) -> jax.Array:
    """Slots that have a rollout, on each of D devices."""
    devices = row_multiple(jax.sharding.get_abstract_mesh())
    row_DxS = jnp.reshape(slots.row_S, (devices, -1), out_sharding=P(BATCH, None))
    return jnp.sum(row_DxS >= 0, axis=1, dtype=jnp.int32)


def waiting(queue: Queue) -> jax.Array:
    """Whether rollouts of each of D devices wait for a slot."""
    return queue.next_D < queue.row_id_N.shape[0] // queue.next_D.shape[0]
