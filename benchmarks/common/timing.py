"""What the benchmarks share: interleaved timing, and the line that each prints."""

import platform
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def seconds(function: Callable[[], Any], calls: int) -> float:
    """Seconds of a call, from a few calls whose results are waited for."""
    began = time.perf_counter()
    for _ in range(calls):
        jax.block_until_ready(function())
    return (time.perf_counter() - began) / calls


def ratios(ours: Callable[[], Any], theirs: Callable[[], Any], repetitions: int) -> np.ndarray:
    """Seconds of theirs over seconds of ours, once a repetition, taken in turn after both are compiled.

    Which of the two goes first alternates, so that a machine that slows down favours neither.
    """
    calls = [max(1, int(0.2 / max(seconds(f, 1), 1e-6))) for f in (ours, theirs, ours, theirs)][2:]
    if repetitions == 1:
        calls = [1, 1]
    measured = []
    for i in range(repetitions):
        pair = [(ours, calls[0]), (theirs, calls[1])]
        took = {f: seconds(f, n) for f, n in (pair if i % 2 == 0 else pair[::-1])}
        measured.append(took[theirs] / took[ours])
    return np.array(measured)


def report(name: str, against: str, measured: np.ndarray, shape: dict[str, Any]) -> dict[str, Any]:
    """The line of a benchmark: the median of the ratios, and the lowest and highest of them."""
    return {
        "benchmark": name,
        "against": against,
        "ratio": round(float(np.median(measured)), 3),
        "low": round(float(measured.min()), 3),
        "high": round(float(measured.max()), 3),
        "shape": shape,
        "versions": {"jax": jax.__version__, "python": platform.python_version(), "device": device()},
    }


def device() -> str:
    """The kind of device that was measured."""
    return jax.devices()[0].device_kind
