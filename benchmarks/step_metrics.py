"""A training step of the demo with every cheap metric of its batch, against the same step without.

    python benchmarks/step_metrics.py [--quick]

The metrics are those of `sdd.evaluate.batch_metrics`: pass@k, strategies, token level, and the geometry of
the policy's own embeddings. They run on the host while the device updates. ``ratio`` is seconds without over
seconds with them: 0.97 is a step that the metrics make 3 % longer. Steps of SDSD from random parameters, with
the shapes of the demo.
"""

import argparse
import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import jax
import numpy as np
from common.timing import ratios, report

from sdd import config as config_lib
from sdd import experiment, overrides
from sdd.build import make_parts
from sdd.initial import first_state
from sdd.job import Job
from sdd.loop import train_one

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "concept_graph" / "sdsd.py"
NEVER = 10**9


def steps(job: Job, examples, num_steps: int, log_every: int) -> Callable[[], object]:
    """Some steps from the start, their metrics computed or not."""
    train = dataclasses.replace(job.config.train, log_every=log_every)
    job = job._replace(config=dataclasses.replace(job.config, train=train))

    def call():
        state = first_state(job.config, job.parts)
        for step in range(1, num_steps + 1):
            state, *_ = train_one(job, state, itertools.repeat(examples), None, step)
        return state.params

    return call


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few small steps, once: whether it runs")
    quick = parser.parse_args(argv).quick
    changes = ["--config.task.num_train=64"]
    changes += ["--config.train.prompts_per_step=8", "--config.model.num_layers=1"] if quick else []
    raw = overrides.apply(experiment.get_config(experiment.load(EXPERIMENT)), changes)
    config = config_lib.resolve(raw)
    with TemporaryDirectory() as folder:
        parts = make_parts(config, Path(folder))
        with jax.set_mesh(parts.mesh):
            job = Job(config, Path(folder), parts, None, None, lambda: False)  # type: ignore[arg-type]
            source = parts.task.source("train")
            examples = [source[i] for i in range(config.train.prompts_per_step)]
            with_metrics, without = (steps(job, examples, 2 if quick else 20, n) for n in (1, NEVER))
            for a, b in zip(jax.tree.leaves(with_metrics()), jax.tree.leaves(without()), strict=True):
                np.testing.assert_array_equal(a, b)
            measured = ratios(with_metrics, without, repetitions=1 if quick else 15)
    shape = {"B": config.train.prompts_per_step, "G": config.train.group_size}
    print(json.dumps(report("step_metrics", "a step without metrics", measured, shape)))


if __name__ == "__main__":
    main()
