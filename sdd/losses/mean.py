"""A weighted mean that is not divided yet, so that the parts of a batch add up to the whole."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sdd.types import Array


class Mean(NamedTuple):
    """A mean as its two sums.

    Means of parts of a batch are added field by field; divided once, at the end, they weigh
    tokens and rows as the whole batch does, however it was cut.

    Attributes:
      total: sum of weighted values.
      weight: sum of weights; it must not depend on what is differentiated.
    """

    total: Any
    weight: Any

    @property
    def value(self) -> jax.Array:
        """The mean; 0 where there is no weight."""
        return self.total / jnp.where(self.weight == 0, 1, self.weight)


def masked_mean(x_NxT: Array, weight_NxT: Array) -> Mean:
    """Mean of ``x`` over the weights (a mask does)."""
    weight_NxT = jnp.asarray(weight_NxT).astype(jnp.float32)
    return Mean(jnp.sum(x_NxT * weight_NxT), jnp.sum(weight_NxT))


def weighted_sum(x: Array, weight: Array) -> jax.Array:
    """Sum of ``x`` times the weights; what has no weight does not count, not even when it is not finite."""
    x = jnp.asarray(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jnp.sum(jnp.where(weight == 0, 0, x) * weight)
