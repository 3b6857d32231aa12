"""A policy that is a table, as a `Model`: a row of logits for each history of tokens; and a task to teach it.

The methods train it as they train a decoder, so what they converge to can be compared with theory.
"""

from collections.abc import Sequence
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np

from sdd.config import ModelConfig
from sdd.mesh import P, rows
from sdd.model import Model
from sdd.model.cache import repeat_rows
from sdd.tasks.base import TRAIN, Example, Grade, Task
from sdd.text.tokenizer import SymbolTokenizer
from sdd.types import Array, Params

_BASE = 1_000_003  # odd, so that no power of it vanishes modulo 2**32
_CONFIG = ModelConfig(num_layers=1, num_heads=1, num_kv_heads=1, head_dim=1)


def make(histories: Sequence[Sequence[int]], vocab_size: int) -> Model:
    """A table with a row of V logits for each history; what follows any other history is uniform.

    Parameters: ``{"logits": (M, V)}``, row m for ``histories[m]``. The hidden state is the row's number.
    A history is known by a 32-bit number, the sum of (token + 1) * base**position over its tokens; the
    cache holds tokens in place of keys.

    Args:
      histories: contexts, with or without tokens of a response after them; tokens may lie beyond V.
      vocab_size: V.

    Raises:
      ValueError: two histories have the same number.
    """
    longest = max(len(history) for history in histories)
    power_S = np.array([pow(_BASE, p, 2**32) for p in range(longest + 1)], np.uint32)
    codes = [sum((t + 1) * int(power_S[p]) for p, t in enumerate(h)) % 2**32 for h in histories]
    if len(set(codes)) < len(codes):
        raise ValueError("tabular: two histories have the same number; valid: different ones")
    code_M = np.array(codes, np.uint32)

    def apply(params: Params, tokens_NxT: Array, positions_NxT: Array, cache=None):
        tokens_NxT, positions_NxT = (
            jax.sharding.reshard(jnp.asarray(x), rows(2)) for x in (tokens_NxT, positions_NxT)
        )
        keys_NxS, key_positions_NxS, before_Nx1 = tokens_NxT, positions_NxT, jnp.uint32(0)
        if cache is not None:
            at = (0, cache.length)
            held_NxS = cache.k_LxNxJxSxC[0, :, 0, :, 0]
            keys_NxS = jax.lax.dynamic_update_slice(held_NxS, tokens_NxT.astype(held_NxS.dtype), at)
            key_positions_NxS = jax.lax.dynamic_update_slice(cache.positions_NxS, positions_NxT, at)
            prefix_BxP = cache.prefix_k_LxBxJxPxC[0, :, 0, :, 0]
            before_B = _terms(power_S, prefix_BxP, cache.prefix_positions_BxP).sum(1)
            before_Nx1 = repeat_rows(before_B[:, None], len(tokens_NxT) // len(before_B))
            cache = cache._replace(
                k_LxNxJxSxC=keys_NxS[None, :, None, :, None],
                positions_NxS=key_positions_NxS,
                length=cache.length + tokens_NxT.shape[1],
                last_token_N=tokens_NxT[:, -1],
            )
        term_Nx1xS = _terms(power_S, keys_NxS, key_positions_NxS)[:, None]
        read_NxTxS = key_positions_NxS[:, None] <= positions_NxT[:, :, None]
        code_NxT = before_Nx1 + jnp.sum(jnp.where(read_NxTxS, term_Nx1xS, 0), axis=2, dtype=jnp.uint32)
        same_NxTxM = code_NxT[..., None] == code_M
        row_NxT = jnp.where(same_NxTxM.any(-1), same_NxTxM.argmax(-1), len(code_M))
        return row_NxT[..., None].astype(jnp.float32), cache

    def unembed(params: Params, hidden_x1: Array) -> jax.Array:
        table_MxV = jnp.concatenate([params["logits"], jnp.zeros((1, vocab_size))])
        row = jnp.asarray(hidden_x1)[..., 0].astype(jnp.int32)
        return table_MxV.at[row].get(out_sharding=P(*jax.typeof(row).sharding.spec, None))

    def init(key: jax.Array) -> Params:
        return {"logits": jax.random.normal(key, (len(code_M), vocab_size))}

    return Model(_CONFIG, vocab_size, init, apply, unembed, lambda params: params)


def _terms(power_S: np.ndarray, tokens: jax.Array, positions: jax.Array) -> jax.Array:
    """What each token adds to the number of its history, modulo 2**32; padding adds 0."""
    at = jnp.clip(positions, 0, len(power_S) - 1)
    power = jnp.asarray(power_S).at[at].get(out_sharding=P(*jax.typeof(at).sharding.spec))
    return jnp.where(positions >= 0, (tokens.astype(jnp.uint32) + 1) * power, 0)


def answers(vocab_size: int, num_tokens: int) -> np.ndarray:
    """All answers of T tokens, YxT int32, in the order of a flat array with T axes of size V."""
    return np.array(list(product(range(vocab_size), repeat=num_tokens)), np.int32)


def task(correct: Array, strategy: Array) -> Task:
    """A task of one prompt, answered by exactly T tokens of V; no token ends an answer.

    The prompt is one token, V; with a demonstration d it is V + 1, then d, then V.

    Args:
      correct: bool, T axes of size V.
      strategy: int, the same shape.
    """
    correct, strategy = np.asarray(correct, bool), np.asarray(strategy, int)
    vocab_size, num_tokens = correct.shape[0], correct.ndim
    example: Example = {"prompt_id": "only"}
    words = [*(f"a{i}" for i in range(vocab_size)), "<ask>", "<show>", "<pad>", "<never>"]

    def demonstration_prompt(example: Example, shown: np.ndarray) -> np.ndarray:
        before = [vocab_size + 1, *np.asarray(shown).tolist()] if len(shown) else []
        return np.array([*before, vocab_size], np.int32)

    def grade(example: Example, response: np.ndarray) -> Grade:
        at = tuple(np.asarray(response).tolist())
        right = bool(correct[at])
        return Grade(right, float(right), int(strategy[at]), num_tokens if right else 0)

    def supervised(example: Example, rng: np.random.Generator, num_answers: int):
        raise NotImplementedError("theory: a table is not warmed up")

    return Task(
        name="table",
        tokenizer=SymbolTokenizer(words, stop=("<never>",)),
        strategies=tuple(f"way{i}" for i in range(int(strategy.max()) + 1)),
        splits=("id",),
        context_length=1,
        demonstration_context_length=num_tokens + 2,
        response_length=num_tokens,
        source=lambda split: {TRAIN: [example], "id": [example]}[split],
        prompt=lambda example: demonstration_prompt(example, np.zeros(0, np.int32)),
        demonstration_prompt=demonstration_prompt,
        grade=grade,
        supervised=supervised,
    )


def tables(
    task: Task,
    vocab_size: int,
    student: Sequence[np.ndarray],
    taught: Sequence[tuple[Array, Sequence[np.ndarray]]] = (),
) -> tuple[Model, Params]:
    """A model and its parameters: what the student and the teachers say after every prefix.

    Args:
      task: of `task`.
      vocab_size: V.
      student: conditionals of the plain prompt, see `sdd.theory.fixed_points.conditionals`.
      taught: (demonstration, conditionals) pairs.
    """
    example = task.source(TRAIN)[0]
    histories, rows = [], []
    for shown, conditional_T in [(np.zeros(0, np.int32), student), *taught]:
        context = task.demonstration_prompt(example, np.asarray(shown)).tolist()
        for t, conditional in enumerate(conditional_T):
            for prefix, row in zip(
                answers(vocab_size, t) if t else [()], conditional.reshape(-1, vocab_size)
            ):
                histories.append([*context, *map(int, prefix)])
                rows.append(row)
    logits_MxV = jnp.asarray(np.log(np.maximum(np.stack(rows), 1e-30)), jnp.float32)
    return make(histories, vocab_size), {"logits": logits_MxV}


def policy(params: Params, vocab_size: int, num_tokens: int) -> list[np.ndarray]:
    """The student's conditionals, which `tables` put into the first rows."""
    logits_MxV = np.asarray(params["logits"], np.float64)
    found, row = [], 0
    for t in range(num_tokens):
        block = logits_MxV[row : row + vocab_size**t]
        p_SxV = np.exp(block - block.max(-1, keepdims=True))
        found.append((p_SxV / p_SxV.sum(-1, keepdims=True)).reshape((vocab_size,) * (t + 1)))
        row += vocab_size**t
    return found
