"""A batch that stays full against batches that wait for their longest response.

    python benchmarks/slots.py [--quick]

N rollouts of N prompts with long-tailed lengths: every token of ``stops`` out of the vocabulary ends a
response, up to T tokens. One side decodes ``slots`` at once, and the next rollout takes the slot of one that
has ended (``config.sampling.slots``); the other draws one batch of ``slots`` after the other, each until its
longest response ends (moving the last ones together, as sdd's sampler does by default). Both draw the same
tokens. ``ratio`` is seconds of CPU on one core, batches over slots.
"""

import json
from collections.abc import Sequence

import jax
import numpy as np
from common.timing import begin, cpu_seconds, report

from sdd.mesh import make_mesh
from sdd.model import make as make_model
from sdd.sampling import make as make_sampler
from sdd.settings import MeshConfig, ModelConfig, SamplingConfig

SHAPE = dict(N=256, P=32, T=96, slots=32, stops=21)
QUICK = dict(N=4, P=4, T=6, slots=2, stops=128)
VOCABULARY = 512


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints a line."""
    quick = begin(__doc__, argv)
    shape = dict(QUICK if quick else SHAPE)
    N, P, slots = shape["N"], shape["P"], shape["slots"]
    layers, width = (1, 32) if quick else (4, 256)
    config = ModelConfig(layers, width, num_heads=8, num_kv_heads=8, head_dim=width // 8, mlp_dim=4 * width)
    rng = np.random.default_rng(0)
    tokens_NxP = rng.integers(0, VOCABULARY, (N, P)).astype(np.int32)
    length_N, row_id_N = np.full(N, P, np.int32), np.arange(N, dtype=np.int32)
    with jax.set_mesh(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])):
        model = make_model(config, VOCABULARY)
        params = model.init(jax.random.key(0))
        full, batch = (
            make_sampler(
                model,
                SamplingConfig(slots=size),
                group_size=1,
                max_tokens=shape["T"],
                stop_ids=tuple(range(shape["stops"])),
            )
            for size in (slots, 0)
        )

        def kept_full() -> np.ndarray:
            drawn = full(params, tokens_NxP, length_N, row_id_N, jax.random.key(1))
            return np.asarray(drawn.response_NxT)

        def batches() -> np.ndarray:
            each = [slice(i, i + slots) for i in range(0, N, slots)]
            drawn = [
                batch(params, tokens_NxP[b], length_N[b], row_id_N[b], jax.random.key(1)).response_NxT
                for b in each
            ]
            return np.concatenate([np.asarray(x) for x in drawn])

        np.testing.assert_array_equal(kept_full(), batches())  # the same, or the ratio means nothing
        took = cpu_seconds({"full": kept_full, "batches": batches}, repetitions=1 if quick else 7)
    against = f"batches of {slots}, each until its longest response ends"
    print(json.dumps(report("slots", against, took["batches"] / took["full"], shape)))


if __name__ == "__main__":
    main()
