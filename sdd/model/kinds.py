"""What differs from layer to layer: how far a token sees, and how fast the rotary embedding turns."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sdd.config import ModelConfig

NO_WINDOW = 2**30  # tokens: further back than any sequence


class Kind(NamedTuple):
    """A layer's kind, or those of all layers with an axis L in front, as the layers' scan reads them.

    Attributes:
      window: int32, number of tokens seen, the own one included; None where no layer has a window.
      frequency_R: float32, radians a token, of each pair of dimensions that turns.
      magnitude: float32, multiplies what was turned; None where no layer does so.
    """

    window: jax.Array | np.ndarray | None
    frequency_R: jax.Array | np.ndarray
    magnitude: jax.Array | np.ndarray | None


def layer_kinds(config: ModelConfig) -> Kind:
    """The kinds of all layers, stacked: window L, frequency LxR and magnitude L."""
    pattern = config.windows or (0,)
    windows = [pattern[i % len(pattern)] for i in range(config.num_layers)]
    local = [bool(window and config.rope_local_theta) for window in windows]
    magnitude = yarn_magnitude(config)
    return Kind(
        window=np.array([w or NO_WINDOW for w in windows], np.int32) if any(windows) else None,
        frequency_R=np.stack([frequencies(config, is_local) for is_local in local]),
        magnitude=None if magnitude == 1 else np.where(local, 1, magnitude).astype(np.float32),
    )


def frequencies(config: ModelConfig, is_local: bool = False) -> np.ndarray:
    """Radians a token of each pair of dimensions, float32, R = head_dim * rope_fraction / 2.

    Args:
      config: the decoder.
      is_local: whether the layer has a window and, by ``rope_local_theta``, wavelengths of its own.

    Source: 2104.09864; "linear": 2306.15595; "llama3": the Llama 3.1 release; "yarn": 2309.00071,
    its ramp between whole pairs of dimensions, as the makers of Qwen and OLMo use it.
    """
    turning = int(config.head_dim * config.rope_fraction) // 2 * 2
    theta = config.rope_local_theta if is_local else config.rope_theta
    frequency_R = theta ** (-np.arange(0, turning, 2, dtype=np.float64) / max(turning, 1))
    if is_local or config.rope_scaling == "none":
        kept_R = np.ones_like(frequency_R)
    elif config.rope_scaling == "linear":
        kept_R = np.zeros_like(frequency_R)
    elif config.rope_scaling == "llama3":
        turns_R = config.rope_original_length * frequency_R / (2 * math.pi)
        low, high = config.rope_low_freq_factor, config.rope_high_freq_factor
        kept_R = np.clip((turns_R - low) / (high - low), 0, 1)
    else:
        kept_R = 1 - yarn_ramp(config, theta, turning)
    return (frequency_R * (kept_R + (1 - kept_R) / config.rope_factor)).astype(np.float32)


def yarn_ramp(config: ModelConfig, theta: float, turning: int) -> np.ndarray:
    """How much each pair of dimensions is stretched by YaRN: 0 (not at all) to 1 (whole)."""

    def pair_that_turns(times: float) -> float:  # within the original length
        return turning * math.log(config.rope_original_length / (times * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair_that_turns(config.rope_beta_fast)), 0)
    last = min(math.ceil(pair_that_turns(config.rope_beta_slow)), turning - 1)
    # Where both fall on one pair, the makers' step is a thousandth of a pair wide.
    return np.clip((np.arange(turning // 2) - first) / (last - first or 1e-3), 0, 1)


def yarn_magnitude(config: ModelConfig) -> float:
    """What queries and keys are multiplied with where YaRN stretches; 1 without it (2309.00071, eq. 22)."""
    if config.rope_scaling != "yarn":
        return 1.0
    return config.rope_attention_factor or 0.1 * math.log(config.rope_factor) + 1


def rope(x_NxTxHxC: jax.Array, positions_NxT: jax.Array, kind: Kind) -> jax.Array:
    """Rotary position embedding (2104.09864), rotating halves, on the first 2R of C dimensions.

    Args:
      x_NxTxHxC: queries or keys.
      positions_NxT: int32 positions.
      kind: one layer's; dimensions beyond its 2R carry no position.
    """
    half = kind.frequency_R.shape[-1]
    if half == 0:
        return x_NxTxHxC
    angle_NxTx1xR = positions_NxT[:, :, None, None].astype(jnp.float32) * kind.frequency_R
    sin, cos = jnp.sin(angle_NxTx1xR), jnp.cos(angle_NxTx1xR)
    if kind.magnitude is not None:
        sin, cos = sin * kind.magnitude, cos * kind.magnitude
    first, second, rest = jnp.split(x_NxTxHxC.astype(jnp.float32), [half, 2 * half], axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin, rest]
    return jnp.concatenate(turned, axis=-1).astype(x_NxTxHxC.dtype)


def visible(
    query_positions_NxT: jax.Array, key_positions_NxS: jax.Array, window: jax.Array | None = None
) -> jax.Array:
    """Causal mask by position, NxTxS: a key is seen from its own position on; padding never is.

    Args:
      query_positions_NxT: int32 positions; what a negative one sees means nothing.
      key_positions_NxS: int32 positions; negative marks padding.
      window: tokens that a query sees, its own included; None: all.
    """
    key_Nx1xS, query_NxTx1 = key_positions_NxS[:, None, :], query_positions_NxT[:, :, None]
    seen_NxTxS = (key_Nx1xS >= 0) & (key_Nx1xS <= query_NxTx1)
    return seen_NxTxS if window is None else seen_NxTxS & (key_Nx1xS > query_NxTx1 - window)
