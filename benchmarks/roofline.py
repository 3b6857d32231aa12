"""Sampling against the machine: seconds that memory and matrix products alone would take over its seconds.

    python benchmarks/roofline.py [--quick]

A decoding step reads every weight, and the keys and values of all rows so far; and it multiplies. The
prediction is bytes over the bandwidth of reading an array as large as what the middle step reads, plus FLOPs
over the rate of matrix products of the batch's shapes, N x {width, MLP} by the weights, both measured in the
same run on the same core and taken in turn with the sampler. It includes the prompts' pass, at the rate of
products with N * P rows, and not what drawing, softmaxes and norms cost. ``ratio`` is predicted over measured
seconds of CPU: 1 is the machine's limit. N rows of distinct prompts of P tokens draw all T tokens; tokens a
second and their prediction are in ``shape``: whether cost grows as the cache does shows in longer T.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import peers
from common.timing import begin, cpu_seconds, report

from sdd.mesh import make_mesh, put_rows
from sdd.model import Model
from sdd.model import make as make_model
from sdd.sampling import make as make_sampler
from sdd.settings import MeshConfig, ModelConfig, SamplingConfig

SHAPES = tuple(
    dict(N=N, P=32, T=T) for N, T in ((16, 96), (64, 96), (256, 96), (16, 384), (64, 384), (16, 1536))
)
QUICK = (dict(N=2, P=4, T=3),)
FLOAT = 4  # bytes
Step = Callable[[], Any]


def matrices(config: ModelConfig) -> dict[tuple[int, int], int]:
    """(rows, columns) of a product with weights -> how many of them a token takes."""
    E, F, L = config.width, config.mlp_dim, config.num_layers
    heads, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    count: dict[tuple[int, int], int] = {}
    for shape, times in (
        ((E, heads), L),
        ((E, keys), 2 * L),
        ((heads, E), L),
        ((E, F), 2 * L),
        ((F, E), L),
        ((E, peers.VOCABULARY), 1),
    ):
        count[shape] = count.get(shape, 0) + times
    return count


def product(rows: int, shape: tuple[int, int], repeats: int) -> Step:
    """Repeated products of rows x shape[0] with a matrix, each with another input."""
    x = jax.random.normal(jax.random.key(0), (rows, shape[0]))
    w = jax.random.normal(jax.random.key(1), shape)

    def body(_: Any, total: jax.Array) -> jax.Array:
        return total + (x + total[0, 0] * 1e-30) @ w

    call = jax.jit(lambda: jax.lax.fori_loop(0, repeats, body, jnp.zeros((rows, shape[1]))))

    def units() -> float:
        jax.block_until_ready(call())
        return float(repeats)

    return units


def reading(num_bytes: float) -> Step:
    """The sum of an array of that size."""
    array = jnp.ones(max(int(num_bytes) // FLOAT, 1))
    add = jax.jit(jnp.sum)
    return lambda: add(array)


def sampler_call(model: Model, params: Any, shape: dict[str, int]) -> Step:
    """Draws all tokens of all rows."""
    N, P, mesh = shape["N"], shape["P"], jax.sharding.get_mesh()
    tokens_NxP = np.random.default_rng(0).integers(0, peers.VOCABULARY, (N, P)).astype(np.int32)
    sampler = make_sampler(model, SamplingConfig(), group_size=1, max_tokens=shape["T"], stop_ids=())
    rows: Any = put_rows(mesh, (tokens_NxP, np.full(N, P, np.int32), np.arange(N, dtype=np.int32)))
    key = jax.random.key(0)

    def call() -> jax.Array:
        with jax.set_mesh(mesh):
            return sampler(params, rows[0], rows[1], rows[2], key).response_NxT

    return call


def measured(model: Model, params: Any, shape: dict[str, int], repetitions: int) -> dict[str, Any]:
    """The line of a shape."""
    config, (N, P, T) = model.config, (shape["N"], shape["P"], shape["T"])
    found = matrices(config)
    weight_bytes = FLOAT * sum(a * b * n for (a, b), n in found.items())
    column_bytes = FLOAT * N * 2 * config.num_layers * config.num_kv_heads * config.head_dim
    attention_flops = 4 * N * config.num_layers * config.num_heads * config.head_dim  # a column
    columns = sum(
        range(P + 1, P + T)
    )  # read by the steps after the first token, which the prompts' pass gives
    middle_bytes = weight_bytes + column_bytes * columns / max(T - 1, 1)
    sides = {"sampler": sampler_call(model, params, shape), "reading": reading(middle_bytes)}
    for a, b in found:
        sides[f"decode {a}x{b}"] = product(N, (a, b), max(1, int(2e9) // (2 * N * a * b)))
        sides[f"prompt {a}x{b}"] = product(N * P, (a, b), 1)
    took = cpu_seconds(sides, repetitions)
    bandwidth = middle_bytes / took["reading"]
    decode, prompt = (
        sum(took[f"{phase} {a}x{b}"] * n for (a, b), n in found.items()) for phase in ("decode", "prompt")
    )
    flops_a_step = sum(2.0 * N * a * b * n for (a, b), n in found.items())
    predicted = prompt + (T - 1) * decode
    predicted += columns * attention_flops / (flops_a_step / decode)
    predicted += ((T - 1) * weight_bytes + columns * column_bytes) / bandwidth
    line_shape = shape | {
        "tokens_per_second": round(float(np.median(N * T / took["sampler"]))),
        "predicted_tokens_per_second": round(float(np.median(N * T / predicted))),
        "gigabytes_per_second": round(float(np.median(bandwidth)) / 1e9, 1),
        "matmul_gflops": round(float(np.median(flops_a_step / decode)) / 1e9, 1),
    }
    against = "bytes over bandwidth plus FLOPs over the rate of products"
    return report("roofline", against, predicted / took["sampler"], line_shape)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures every shape and prints its line."""
    quick = begin(__doc__, argv)
    config = peers.TINY if quick else peers.FULL
    with jax.set_mesh(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])):
        model = make_model(config, peers.VOCABULARY)
        params = model.init(jax.random.key(0))
        for shape in QUICK if quick else SHAPES:
            print(json.dumps(measured(model, params, shape, 1 if quick else 7)), flush=True)


if __name__ == "__main__":
    main()
