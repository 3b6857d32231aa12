"""One formula for numpy and for jax: which library an input belongs to.

A metric given only numpy arrays (or numbers) computes in numpy, in float64 and
without compiling anything; given a jax array it computes in ``jax.numpy``, in
jax's default precision, and can be jitted and vmapped.
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def namespace(*arrays: Any) -> ModuleType:
    """Returns ``jax.numpy`` if any of the arrays is a jax array, else ``numpy``."""
    return jnp if any(isinstance(array, jax.Array) for array in arrays) else np


def floats(xp: ModuleType, array: Any) -> Any:
    """Returns the array in ``xp``'s default floating type (numpy: float64; jax: float32 without x64)."""
    return xp.asarray(array, dtype=float)


def concrete(array: Any) -> np.ndarray | None:
    """Returns the values as numpy, or None while jax is tracing and there are none."""
    try:
        return np.asarray(array)
    except jax.errors.TracerArrayConversionError:
        return None


def divide(xp: ModuleType, numerator: Any, denominator: Any) -> Any:
    """Returns numerator / denominator, nan where the denominator is 0, without a warning."""
    return xp.where(denominator == 0, xp.nan, numerator / xp.where(denominator == 0, 1, denominator))
