"""Divergences in blocks of tokens against the logits of all tokens at once: memory, and time.

    python benchmarks/blockwise.py [--quick]

``sdd.losses.blockwise.map_blocks`` fuses the unembedding with the divergence a block of tokens at a time,
and computes the logits again in the backward pass. Two JSON lines: ``blockwise_memory``, bytes of temporary
buffers of the compiled value and gradient (``memory_analysis().temp_size_in_bytes``; the same in every
repetition), and ``blockwise_time``, seconds. Each ratio is the whole's over the blocks', so a time ratio
below 1 is what the memory costs.
"""

import argparse
import functools
import json
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from common.timing import ratios, report

from sdd.losses.blockwise import map_blocks
from sdd.losses.divergence import divergence

SHAPE = dict(N=8, T=64, E=64, V=32768, block_size=8)
QUICK = dict(N=2, T=6, E=8, V=64, block_size=2)


def loss(block_size: int, unembedding_ExV, teacher_ExV, hidden_NxTxE) -> jax.Array:
    """Mean reverse KL of a student to a teacher that share their hidden states; a scalar."""

    def score(hidden_NxBxE):
        teacher_NxBxV = jax.lax.stop_gradient(hidden_NxBxE @ teacher_ExV)
        return divergence(hidden_NxBxE @ unembedding_ExV, teacher_NxBxV, "reverse")

    return jnp.mean(map_blocks(score, block_size, hidden_NxTxE))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints both lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny shape, once: whether it runs")
    quick = parser.parse_args(argv).quick
    shape = QUICK if quick else SHAPE
    student, teacher, hidden = (
        jax.random.normal(jax.random.key(i), size) * 0.1
        for i, size in enumerate([(shape["E"], shape["V"])] * 2 + [(shape["N"], shape["T"], shape["E"])])
    )
    gradients = [
        jax.jit(jax.value_and_grad(functools.partial(loss, block), argnums=(0, 2))).lower(
            student, teacher, hidden
        )
        for block in (shape["block_size"], 0)
    ]
    blocks, whole = (lowered.compile() for lowered in gradients)
    results = [jax.tree.leaves(compiled(student, teacher, hidden)) for compiled in (blocks, whole)]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)  # the same numbers, or the ratios mean nothing
    bytes_of = lambda compiled: compiled.memory_analysis().temp_size_in_bytes  # noqa: E731
    memory = np.array([bytes_of(whole) / bytes_of(blocks)])
    against = "the logits of all tokens at once (value and gradient)"
    print(json.dumps(report("blockwise_memory", against, memory, shape)))
    repetitions = 1 if quick else 7
    calls = (lambda: blocks(student, teacher, hidden)), (lambda: whole(student, teacher, hidden))
    print(json.dumps(report("blockwise_time", against, ratios(*calls, repetitions), shape)))


if __name__ == "__main__":
    main()
