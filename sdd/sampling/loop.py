"""Prefill once a prompt, then decode token by token until every rollout has ended."""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sdd.config import SamplingConfig
from sdd.mesh import row_multiple, rows
from sdd.model import Model, apart, empty
from sdd.sampling import slots as slots_lib
from sdd.sampling.draw import Drawn, draw
from sdd.sampling.slots import Queue, Slots
from sdd.types import Key, Params, Rollouts

# (params, context_BxP, context_length_B, row_id_N, key) -> Rollouts
Sampler = Callable[[Params, jax.Array, jax.Array, jax.Array, Key], Rollouts]

SHORT = 32  # tokens; a cache for responses up to this length is not grown in steps
FEW = 8  # slots a device; fewer are not closed up
WORTH_CLOSING = 32  # tokens; shorter responses end before closing up pays


class Written(NamedTuple):
    """What was drawn for all N rollouts; fields as in :class:`~sdd.types.Rollouts`, but:

    Attributes:
      token_NxT: int32, -1 where nothing was drawn.
      numbers_NxTx3: float32, sampling_logp, model_logp and entropy.
      hidden_sum_NxE: float32, sum of the hidden states that tokens were drawn from.
    """

    token_NxT: jax.Array
    numbers_NxTx3: jax.Array
    hidden_sum_NxE: jax.Array


class DecodeState(NamedTuple):
    """What the decoding loop carries from token to token.

    Attributes:
      step: int32 scalar, tokens drawn so far in every slot, by whichever rollouts.
      slots: the rows that are decoded together.
      queue: the rollouts that wait for one.
      written: what was drawn.
    """

    step: jax.Array
    slots: Slots
    queue: Queue
    written: Written


class Phase(NamedTuple):
    """A part of the decoding, between changes of shapes.

    Attributes:
      last_step: ends when so many tokens have been drawn; 0: never.
      floor: ends when nothing waits and no device has more rollouts than this.
      context_columns: columns of the rows' own cache that hold contexts.
    """

    last_step: int
    floor: int
    context_columns: int


def make(
    model: Model, config: SamplingConfig, *, group_size: int, max_tokens: int, stop_ids: tuple[int, ...]
) -> Sampler:
    """Builds the jitted sampler of a model.

    The sampler takes ``(params, context_BxP, context_length_B, row_id_N, key)``:
    left-padded contexts with their lengths, a number for each rollout that its
    randomness depends on (``N = B * group_size``), and a key. A rollout depends on
    its context, its row id and the key alone, not on who shares its batch, nor on
    when it got a slot.

    Each context is read once. With ``config.slots`` a fixed number of rollouts is
    decoded at once, and the next one takes the slot of one that has ended; without,
    all are, and those of a group attend to one copy of their context. When few are
    left they move together into fewer slots, so that nobody computes for the ended.

    Args:
      model: the policy.
      config: temperature, filters and slots.
      group_size: G, rollouts a prompt; they share one prefill and one prompt cache.
      max_tokens: T, the longest response; one that reaches it has no stop token.
      stop_ids: tokens that end a response, each included in it.
    """

    def sample(params, context_BxP, context_length_B, row_id_N, key) -> Rollouts:
        context_BxP, context_length_B, row_id_N = (
            jax.sharding.reshard(jnp.asarray(x), rows(x.ndim))
            for x in (context_BxP, context_length_B, row_id_N)
        )
        devices = row_multiple(jax.sharding.get_abstract_mesh())
        num_rows, columns = row_id_N.shape[0], context_BxP.shape[1]
        num_slots = min(-(-config.slots // devices) * devices or num_rows, num_rows)
        queue = prefill(model, params, context_BxP, context_length_B, row_id_N)
        params = model.ready(params)
        sizes = capacities(max_tokens)
        if num_slots == num_rows and group_size > 1:
            columns = 0
            slots, queue = slots_lib.all_at_once(queue, model.config, sizes[0])
        else:
            slots = slots_lib.idle(queue, model.config, num_slots, sizes[0])
        state = DecodeState(jnp.zeros((), jnp.int32), slots, queue, blank(num_rows, max_tokens, queue))
        counts = slot_counts(num_slots // devices, max_tokens, bool(stop_ids))
        decode = lambda state, phase: run_phase(  # noqa: E731
            model, config, params, key, state, phase, group_size, max_tokens, stop_ids
        )
        for size in sizes:
            state = state._replace(slots=slots_lib.widen(state.slots, columns + size))
            last = 0 if size == max_tokens else size
            state = decode(state, Phase(last, counts[1], columns))
        for count, fewer in itertools.pairwise(counts[1:]):
            closed = slots_lib.close_up(state.slots, group_size, count * devices)
            state = decode(state._replace(slots=closed), Phase(0, fewer, context_BxP.shape[1]))
        return finish(state.written, context_BxP, context_length_B)

    return jax.jit(sample)


def capacities(max_tokens: int) -> list[int]:
    """Sizes that the cache of responses grows through, in tokens: attention reads what is there."""
    sizes = [max_tokens]
    while sizes[0] > SHORT and len(sizes) < 3:
        sizes.insert(0, -(-sizes[0] // 2))
    return sizes


def slot_counts(num_slots: int, max_tokens: int, can_stop: bool) -> list[int]:
    """Numbers of slots of a device that the decoding passes through, and 0 at the end."""
    counts = [num_slots]
    while can_stop and max_tokens >= WORTH_CLOSING and counts[-1] >= 2 * FEW and len(counts) < 4:
        counts.append(counts[-1] // 2)
    return [*counts, 0]


def prefill(model: Model, params, context_BxP, context_length_B, row_id_N) -> Queue:
    """Reads each context once; its rollouts wait."""
    B, columns = context_BxP.shape
    positions_BxP = left_padded_positions(context_length_B, columns, columns)
    cache = empty(model.config, B, columns)
    hidden_BxPxE, cache = model.apply(params, context_BxP, positions_BxP, cache)
    devices = row_multiple(jax.sharding.get_abstract_mesh())
    next_D = jnp.zeros((devices,), jnp.int32, out_sharding=rows(1))
    return Queue(apart(cache), hidden_BxPxE[:, -1], context_length_B, row_id_N, next_D)


def left_padded_positions(length_N: jax.Array, context_columns: int, columns: int) -> jax.Array:
    """Positions of rows whose first ``context_columns`` are a left-padded context, N x columns.

    0 at the first real token, negative on the padding before it.
    """
    return jnp.arange(columns, dtype=jnp.int32)[None, :] - (context_columns - length_N[:, None])


def blank(num_rows: int, max_tokens: int, queue: Queue) -> Written:
    """Nothing written yet."""
    zeros = lambda *shape: jnp.zeros((num_rows, *shape), out_sharding=rows(1 + len(shape)))  # noqa: E731
    token_NxT = jnp.full((num_rows, max_tokens), -1, jnp.int32, out_sharding=rows(2))
    return Written(token_NxT, zeros(max_tokens, 3), zeros(queue.hidden_BxE.shape[1]))


def run_phase(model, config, params, key, state, phase: Phase, group_size, max_tokens, stop_ids):
    """Decodes until the phase ends; slots are refilled while rollouts wait."""
    num_slots = state.slots.row_S.shape[0]
    devices = state.queue.next_D.shape[0]
    refills = (
        num_slots < state.queue.row_id_N.shape[0] or state.slots.cache.prefix_positions_BxP.shape[1] == 0
    )
    enough = max(num_slots // devices // 8, 1)  # idle slots that are worth a refill

    def going(state: DecodeState) -> jax.Array:
        left = slots_lib.most_busy(state.slots) > phase.floor
        if refills:
            left |= jnp.any(slots_lib.waiting(state.queue))
        return left & (state.step < phase.last_step) if phase.last_step else left

    def refill_due(state: DecodeState) -> jax.Array:
        idle_D = num_slots // devices - slots_lib.busy(state.slots)
        return jnp.any((idle_D >= enough) & slots_lib.waiting(state.queue))

    def advance(state: DecodeState) -> DecodeState:
        column = phase.context_columns + state.step % max_tokens
        return advance_one(model, config, params, key, state, column, max_tokens, stop_ids)

    def refill_and_advance(state: DecodeState) -> DecodeState:
        slots, queue = slots_lib.refill(state.slots, state.queue, group_size)
        state = state._replace(slots=slots, queue=queue)
        return jax.lax.while_loop(lambda s: going(s) & ~refill_due(s), advance, state)

    return jax.lax.while_loop(going, refill_and_advance if refills else advance, state)


def advance_one(model: Model, config, params, key, state: DecodeState, column, max_tokens: int, stop_ids):
    """Draws a token for every slot, writes it down and reads it.

    All slots write the same column of their cache, ``column``; a slot's rollout lives no longer than the
    columns last, so that it never meets what it wrote itself, and positions hide what others left.
    """
    slots = state.slots
    logits_SxV = whole_logits(model, params, slots.hidden_SxE)
    key_S = jax.vmap(lambda i, t: jax.random.fold_in(jax.random.fold_in(key, i), t))(
        slots.row_id_S, slots.drawn_S
    )
    drawn = draw(logits_SxV, key_S, config)
    written = write(state.written, slots, drawn)
    drawn_S = slots.drawn_S + 1
    ended_S = jnp.isin(drawn.token_N, jnp.asarray(stop_ids, jnp.int32)) | (drawn_S == max_tokens)
    positions_Sx1 = (slots.length_S + slots.drawn_S)[:, None]
    cache = slots.cache._replace(length=column)
    hidden_Sx1xE, cache = model.apply(params, drawn.token_N[:, None], positions_Sx1, cache)
    slots = slots._replace(
        row_S=jnp.where(ended_S, -1, slots.row_S),
        drawn_S=drawn_S,
        hidden_SxE=hidden_Sx1xE[:, 0],
        cache=cache,
    )
    return state._replace(step=state.step + 1, slots=slots, written=written)


def whole_logits(model: Model, params: Params, hidden_NxE: jax.Array) -> jax.Array:
    """Logits with the vocabulary whole on every device, as drawing and sorting need it."""
    return jax.sharding.reshard(model.unembed(params, hidden_NxE), rows(2))


def write(written: Written, slots: Slots, drawn: Drawn) -> Written:
    """Writes each slot's token where its rollout belongs; idle slots write nothing."""

    def local(written: Written, row_S, drawn_S, hidden_SxE, drawn: Drawn) -> Written:
        row_S = jnp.where(row_S < 0, written.token_NxT.shape[0], row_S)  # beyond the end: dropped
        numbers_Sx3 = jnp.stack([drawn.sampling_logp_N, drawn.model_logp_N, drawn.entropy_N], axis=-1)
        return Written(
            written.token_NxT.at[row_S, drawn_S].set(drawn.token_N, mode="drop"),
            written.numbers_NxTx3.at[row_S, drawn_S].set(numbers_Sx3, mode="drop"),
            written.hidden_sum_NxE.at[row_S].add(hidden_SxE.astype(jnp.float32), mode="drop"),
        )

    return slots_lib.on_each_device(
        local, written, written, slots.row_S, slots.drawn_S, slots.hidden_SxE, drawn
    )


def finish(written: Written, context_BxP: jax.Array, context_length_B: jax.Array) -> Rollouts:
    """What was written as rollouts, zero where nothing was drawn."""
    mask_NxT = written.token_NxT >= 0
    sampling_logp_NxT, model_logp_NxT, entropy_NxT = jnp.moveaxis(written.numbers_NxTx3, 2, 0)
    return Rollouts(
        context_BxP=context_BxP,
        context_length_B=context_length_B,
        response_NxT=jnp.where(mask_NxT, written.token_NxT, 0),
        mask_NxT=mask_NxT,
        sampling_logp_NxT=sampling_logp_NxT,
        model_logp_NxT=model_logp_NxT,
        entropy_NxT=entropy_NxT,
        embedding_NxE=written.hidden_sum_NxE / mask_NxT.sum(axis=1, keepdims=True),
    )
