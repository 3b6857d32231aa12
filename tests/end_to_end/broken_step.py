"""SDSD whose loss is not a number at some steps."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from sdd.steps import sdsd


@dataclasses.dataclass(frozen=True)
class Config(sdsd.Config):
    """Attributes:
    first, last: the batches whose loss is NaN, counted from 1; 0: none.
    """

    first: int = 0
    last: int = 0


def make(config):
    step = sdsd.make(config)
    batches = iter(range(1, 1000))

    def choose(task, graded, rng_B):
        chosen = step.choose(task, graded, rng_B)
        bad = config.first <= next(batches) <= config.last
        factor_N = np.full(len(graded.rollouts.mask_NxT), np.nan if bad else 1.0, np.float32)
        return chosen._replace(targets=(chosen.targets, factor_N))

    def loss(model, params, teacher, batch):
        targets, factor_N = batch.targets
        value, metrics = step.loss(model, params, teacher, batch._replace(targets=targets))
        return value._replace(total=value.total * jnp.mean(factor_N)), metrics

    return step._replace(choose=choose, loss=loss)
