"""Whether the training step of an experiment on a large model fits the chips that it is meant for.

    python benchmarks/ahead_of_time.py [EXPERIMENT] [TOPOLOGY] [--quick]

Compiles the training step of an experiment, experiments/science_qa/qwen3_8b_sdsd.py if none is named, for a
TPU topology, v5p:4x4x2 if none is named, with no such chip at hand; contexts and responses have the longest
lengths of the config. ``ratio`` is the memory of a chip over what the step needs there, arguments and
temporaries; below 1 it does not fit. The bytes are in ``shape``. Takes minutes and about 13 GB of memory
here. ``--quick`` compiles a small decoder for the devices of this machine instead.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common.timing import report

from sdd import config as config_lib
from sdd import experiment, lookup
from sdd import mesh as mesh_lib
from sdd.build import make_optimizer
from sdd.config import RunConfig
from sdd.model import make as make_model
from sdd.steps import grpo, sdsd
from sdd.steps.base import LossBatch, make_train_step
from sdd.types import Contexts, Rollouts, TrainState

DEFAULT = Path(__file__).parents[1] / "experiments" / "science_qa" / "qwen3_8b_sdsd.py"
# Of a chip: cloud.google.com/tpu/docs/v5p, /v5e, /v6e.
CHIP_BYTES = {"v5p": 95e9, "v5e": 16e9, "v6e": 32e9}


def abstract_batch(config: RunConfig, prompt_length: int, response_length: int) -> LossBatch:
    """A batch of the longest contexts and responses, as shapes with their shardings."""
    B, G = config.train.prompts_per_step, config.train.group_size
    N, P, T, E = B * G, prompt_length, response_length, config.model.width
    mesh = jax.sharding.get_mesh()

    def of(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        sharding = jax.sharding.NamedSharding(mesh, mesh_lib.rows(len(shape)))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    floats = [of(jnp.float32, N, T) for _ in range(3)]
    context = of(jnp.int32, B, P), of(jnp.int32, B)
    rollouts = Rollouts(*context, of(jnp.int32, N, T), of(bool, N, T), *floats, of(jnp.float32, N, E))
    if config.step.name == "sdd.steps.sdsd":
        K, D = config.step.options.num_demos, P + T
        targets: Any = sdsd.Targets(of(jnp.float32, N, K), of(bool, N, T), of(bool, N, T), of(bool, N))
        return LossBatch(rollouts, targets, Contexts(of(jnp.int32, N, K, D), of(jnp.int32, N, K)))
    return LossBatch(rollouts, grpo.Targets(of(jnp.float32, N), of(jnp.float32, N)), None)


def compiled_step(
    config: RunConfig, vocab_size: int, lengths: tuple[int, int], devices: Sequence[Any]
) -> Any:
    """The compiled training step of a config on a mesh of devices that need not be there."""
    with jax.set_mesh(mesh_lib.make_mesh(config.mesh, devices)):
        model = make_model(config.model, vocab_size)
        step = lookup.resolve(config.step.name).make(config.step.options)
        optimizer, _ = make_optimizer(config.optimizer, config.train.num_steps)
        params = mesh_lib.abstract(lambda: model.init(jax.random.key(0)))  # a key that is never made
        zero = mesh_lib.abstract(lambda: jnp.zeros((), jnp.int32))
        opt_state = mesh_lib.abstract(optimizer.init, params)
        state = TrainState(zero, params, opt_state, mesh_lib.abstract(step.begin, params), zero, zero)
        train_step = make_train_step(step, model, optimizer, micro_batches=config.train.micro_batches)
        return train_step.lower(state, abstract_batch(config, *lengths)).compile()


def main(argv: Sequence[str] | None = None) -> None:
    """Compiles and prints a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("experiment", nargs="?", default=str(DEFAULT))
    parser.add_argument("topology", nargs="?", default="v5p:4x4x2")
    parser.add_argument("--quick", action="store_true", help="small, for this machine: whether it runs")
    args = parser.parse_args(argv)
    raw = experiment.get_config(experiment.load(args.experiment))
    if args.quick:
        raw.model.update(dict(num_layers=1, width=32, num_heads=2, num_kv_heads=1, head_dim=16, mlp_dim=32))
        raw.task.update(dict(vocab_size=128, prompt_length=8, response_length=8))
        devices, available = jax.devices(), 1e9
    elif importlib.util.find_spec("libtpu") is None:
        print(
            "benchmarks/ahead_of_time.py: TPU is not measured (no libtpu); pip install libtpu",
            file=sys.stderr,
        )
        return
    else:
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # there is no TPU to ask
        from jax.experimental import topologies

        devices = topologies.get_topology_desc(platform="tpu", topology_name=args.topology).devices
        available = CHIP_BYTES[args.topology.split(":")[0]]
    config = config_lib.resolve(raw)
    task = config.task.options
    began = time.perf_counter()
    step = compiled_step(config, task.vocab_size, (task.prompt_length, task.response_length), devices)
    memory = step.memory_analysis()
    # The state is donated: results take the place of arguments.
    needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes
    shape = {
        "experiment": Path(args.experiment).stem,
        "devices": len(devices),
        "topology": "this machine" if args.quick else args.topology,
        "argument_bytes": memory.argument_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "compile_seconds": round(time.perf_counter() - began),
    }
    print(json.dumps(report("ahead_of_time", "memory of a chip", np.array([available / needed]), shape)))


if __name__ == "__main__":
    main()
