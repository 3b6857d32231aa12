"""Every random choice of a run: a pure function of (seed, what it is for, step)."""

import zlib

import jax
import numpy as np


def stream_key(seed: int, name: str, step: int) -> jax.Array:
    """The jax key of a named stream at a step."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode())), step)


def stream_rng(seed: int, name: str, step: int, prompt: int = 0) -> np.random.Generator:
    """The numpy generator of a named stream at a step; one a prompt of the batch, on whichever process."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), step, prompt])
