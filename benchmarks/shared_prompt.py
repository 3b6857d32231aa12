"""The prompt read once a group against once a rollout, in sampling and in the training pass.

    python benchmarks/shared_prompt.py [--quick]

Training: ``sdd.sampling.score.response_hidden`` reads each of B contexts once and lets its G responses attend
to it; ``unshared_response_hidden`` reads context and response together for every one of the N = B * G rows.
Measured is value and gradient of the mean log-probability of the responses. Sampling: one sampler with groups
of G against the same with groups of one on repeated contexts, all T tokens drawn. Both sides compute the
same; ``ratio`` is seconds once a rollout over seconds once a group. One JSON line a measurement.
"""

import argparse
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common.timing import ratios, report

from sdd.losses.divergence import token_logp
from sdd.mesh import make_mesh
from sdd.model import Model
from sdd.model import make as make_model
from sdd.sampling import make as make_sampler
from sdd.sampling.score import response_hidden, unshared_response_hidden
from sdd.settings import MeshConfig, ModelConfig, SamplingConfig

SHAPES = (dict(B=16, G=4, P=64, T=8), dict(B=16, G=16, P=128, T=32))
QUICK = (dict(B=2, G=2, P=8, T=3),)
VOCABULARY = 78
AGAINST = "the prompt read once a rollout"


Call = Callable[[], Any]


def training(model: Model, params, context, G: int, T: int) -> tuple[Call, Call]:
    """``(once a group, once a rollout)``: the loss and its gradient."""
    tokens_BxP, length_B = context
    shape = (len(tokens_BxP) * G, T)
    response_NxT = np.random.default_rng(1).integers(0, VOCABULARY, shape).astype(np.int32)

    def loss(hidden_of, params, context, length):
        hidden_NxTxE = hidden_of(model, params, context, length, response_NxT)
        return -jnp.mean(token_logp(model.unembed(params, hidden_NxTxE), response_NxT))

    shared = jax.jit(jax.value_and_grad(functools.partial(loss, response_hidden)))
    unshared = jax.jit(jax.value_and_grad(functools.partial(loss, unshared_response_hidden)))
    repeated = [np.repeat(x, G, axis=0) for x in context]
    return (lambda: shared(params, tokens_BxP, length_B)), (lambda: unshared(params, *repeated))


def sampling(model: Model, params, context, G: int, T: int) -> tuple[Call, Call]:
    """``(once a group, once a rollout)``: log-probabilities of T tokens drawn for each row."""
    row_id_N = np.arange(len(context[0]) * G, dtype=np.int32)
    key = jax.random.key(2)
    samplers = [
        make_sampler(model, SamplingConfig(), group_size=size, max_tokens=T, stop_ids=()) for size in (G, 1)
    ]
    repeated = [np.repeat(x, G, axis=0) for x in context]
    shared = lambda: samplers[0](params, *context, row_id_N, key).model_logp_NxT  # noqa: E731
    return shared, lambda: samplers[1](params, *repeated, row_id_N, key).model_logp_NxT


def main(argv: Sequence[str] | None = None) -> None:
    """Measures every shape and prints its lines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny shape, once: whether it runs")
    quick = parser.parse_args(argv).quick
    size = {"layers": 1, "width": 32} if quick else {"layers": 3, "width": 64}
    config = ModelConfig(size["layers"], size["width"], rope_fraction=0.5, token_shift=True)
    rng = np.random.default_rng(0)
    with jax.set_mesh(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])):
        model = make_model(config, VOCABULARY)
        params = model.init(jax.random.key(0))
        for shape in QUICK if quick else SHAPES:
            B, P = shape["B"], shape["P"]
            tokens_BxP = rng.integers(0, VOCABULARY, (B, P)).astype(np.int32)
            context = (tokens_BxP, rng.integers(P // 2, P + 1, B).astype(np.int32))
            for make in (training, sampling):
                shared, unshared = make(model, params, context, shape["G"], shape["T"])
                for a, b in zip(jax.tree.leaves(shared()), jax.tree.leaves(unshared()), strict=True):
                    np.testing.assert_allclose(a, b, atol=1e-3)  # the same, or the ratio means nothing
                measured = ratios(shared, unshared, repetitions=1 if quick else 7)
                line = report(f"shared_prompt_{make.__name__}", AGAINST, measured, shape | size)
                print(json.dumps(line))


if __name__ == "__main__":
    main()
