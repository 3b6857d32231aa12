"""SDSD that fails by itself on one process, while the others wait for it in the update."""

import dataclasses

import jax

from sdd.steps import sdsd


@dataclasses.dataclass(frozen=True)
class Config(sdsd.Config):
    """Attributes:
    process: the one that fails.
    at: the step at which it fails, counted from this start.
    """

    process: int = 1
    at: int = 3


def make(config):
    step = sdsd.make(config)
    batches = iter(range(1, 1000))

    def choose(task, graded, rng_B):
        if next(batches) == config.at and jax.process_index() == config.process:
            raise ValueError("this batch is bad")
        return step.choose(task, graded, rng_B)

    return step._replace(choose=choose)
