"""Losses in blocks of tokens against the logits of all tokens at once: memory, and time.

    python benchmarks/blockwise.py [--quick]

``sdd.losses.blockwise.sum_blocks`` fuses the unembedding, the divergence and their gradient a block of tokens
at a time. JSON lines, all of a value with its gradient:

- ``blockwise_memory``: bytes of temporary buffers of the compiled function
  (``memory_analysis().temp_size_in_bytes``; compiled only, and the same in every repetition), all tokens at
  once over blocks.
- ``blockwise_time``, at two shapes: seconds of all tokens at once over seconds of blocks.
- ``blockwise_exact``: seconds of the divergence over the 100 likeliest tokens with a tail over seconds of the
  exact one, both in blocks.
"""

import argparse
import functools
import json
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from common.timing import ratios, report

from sdd.losses.blockwise import sum_blocks
from sdd.losses.divergence import divergence, top_k_divergence

Divergence = Callable[[jax.Array, jax.Array], jax.Array]

MEMORY = dict(N=8, T=512, E=64, V=151936, block_size=8)
TIMES = [dict(N=8, T=64, E=64, V=32768, block_size=8), dict(N=8, T=64, E=64, V=151936, block_size=8)]
QUICK = dict(N=2, T=6, E=8, V=128, block_size=2)
WHOLE = "the logits of all tokens at once (value and gradient)"


def exact(student_xV: jax.Array, teacher_xV: jax.Array) -> jax.Array:
    return divergence(student_xV, teacher_xV, "reverse")


def top_100(student_xV: jax.Array, teacher_xV: jax.Array) -> jax.Array:
    return top_k_divergence(student_xV, teacher_xV, 100, "student", "tail", "reverse").value


def loss(of: Divergence, block_size: int, student_ExV, teacher_ExV, hidden_NxTxE) -> jax.Array:
    """Mean divergence of a student to a teacher that share their hidden states; a scalar."""

    def score(hidden_NxBxE):
        teacher_NxBxV = jax.lax.stop_gradient(hidden_NxBxE @ teacher_ExV)
        return of(hidden_NxBxE @ student_ExV, teacher_NxBxV), ()

    N, T, _ = hidden_NxTxE.shape
    return sum_blocks(score, block_size, jnp.full((N, T), 1 / (N * T)), hidden_NxTxE)[0]


def compiled(of: Divergence, shape: dict[str, int], block_size: int):
    """Value and gradient with respect to the student and the hidden states, compiled and not run."""
    sizes = [(shape["E"], shape["V"])] * 2 + [(shape["N"], shape["T"], shape["E"])]
    function = jax.jit(jax.value_and_grad(functools.partial(loss, of, block_size), argnums=(0, 2)))
    return function.lower(*(jax.ShapeDtypeStruct(size, jnp.float32) for size in sizes)).compile()


def arguments(shape: dict[str, int]) -> list[jax.Array]:
    sizes = [(shape["E"], shape["V"])] * 2 + [(shape["N"], shape["T"], shape["E"])]
    return [jax.random.normal(jax.random.key(i), size) * 0.1 for i, size in enumerate(sizes)]


def memory(shape: dict[str, int]) -> dict:
    whole, blocks = (
        compiled(exact, shape, size).memory_analysis().temp_size_in_bytes for size in (0, shape["block_size"])
    )
    found = shape | {"bytes_of_whole": whole, "bytes_of_blocks": blocks}
    return report("blockwise_memory", WHOLE, np.array([whole / blocks]), found)


def timed(shape: dict[str, int], repetitions: int) -> dict:
    inputs = arguments(shape)
    blocks, whole = (compiled(exact, shape, size) for size in (shape["block_size"], 0))
    for a, b in zip(*(jax.tree.leaves(f(*inputs)) for f in (blocks, whole)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)  # the same numbers, or the ratios mean nothing
    measured = ratios(lambda: blocks(*inputs), lambda: whole(*inputs), repetitions)
    return report("blockwise_time", WHOLE, measured, shape)


def exact_against_top_100(shape: dict[str, int], repetitions: int) -> dict:
    inputs = arguments(shape)
    ours, theirs = (compiled(of, shape, shape["block_size"]) for of in (exact, top_100))
    value, bound = ours(*inputs)[0], theirs(*inputs)[0]
    assert 0 < bound < value, (bound, value)  # merging tokens lowers a divergence
    measured = ratios(lambda: ours(*inputs), lambda: theirs(*inputs), repetitions)
    against = "the 100 likeliest tokens and a tail, in blocks too (value and gradient)"
    return report("blockwise_exact", against, measured, shape)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints the lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny shape, once: whether it runs")
    quick = parser.parse_args(argv).quick
    repetitions = 1 if quick else 7
    print(json.dumps(memory(QUICK if quick else MEMORY)), flush=True)
    for shape in [QUICK] if quick else TIMES:
        print(json.dumps(timed(shape, repetitions)), flush=True)
    print(json.dumps(exact_against_top_100(QUICK if quick else TIMES[0], repetitions)), flush=True)


if __name__ == "__main__":
    main()
