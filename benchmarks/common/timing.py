"""What the benchmarks share: interleaved timing, and the line that each prints."""

import argparse
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sdd import allocator


def seconds(function: Callable[[], Any], calls: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of a call, from a few calls whose results are waited for."""
    began = clock()
    for _ in range(calls):
        jax.block_until_ready(function())
    return (clock() - began) / calls


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


def begin(doc: str | None, argv: Sequence[str] | None) -> bool:
    """Reads the command line of a benchmark that counts seconds of CPU; whether it is a quick try.

    A try is a tiny shape, once, and leaves the process alone; otherwise the process is pinned.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny shape, once: whether it runs")
    quick = parser.parse_args(argv).quick
    if not quick:
        pin()
    return quick


def pin() -> None:
    """Keeps this process on one core, so that seconds of CPU compare work and not threads.

    Freed memory stays with the process too, as `sdd run` has it on CPUs; all sides gain from that.
    To be called before jax or torch compute anything: their threads are as many as the cores then.
    """
    allocator.keep_freed_memory()
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def cpu_seconds(sides: Mapping[str, Callable[[], Any]], repetitions: int) -> dict[str, np.ndarray]:
    """Seconds of CPU, of all threads of this process, that a unit of each side's work takes.

    Sides are taken in turn, after two calls each that compile; who goes first changes from repetition
    to repetition.

    Args:
      sides: name -> function, each with its results on the host or ready to be waited for. A function
        that returns a float says how many units of work it did; any other result is one unit.
      repetitions: of at least 0.2 s each; 1: a single call.

    Returns:
      name -> seconds, one a repetition.
    """

    def unit(function: Callable[[], Any], calls: int) -> float:
        began, work = time.process_time(), 0.0
        for _ in range(calls):
            result = jax.block_until_ready(function())
            work += result if isinstance(result, float) else 1.0
        return (time.process_time() - began) / work

    calls = dict.fromkeys(sides, 1)
    for name, function in sides.items():
        took = [seconds(function, 1, time.process_time) for _ in range(1 if repetitions == 1 else 2)][-1]
        calls[name] = 1 if repetitions == 1 else max(1, int(0.2 / max(took, 1e-6)))
    names = list(sides)
    measured: dict[str, list[float]] = {name: [] for name in names}
    for i in range(repetitions):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            measured[name].append(unit(sides[name], calls[name]))
    return {name: np.array(values) for name, values in measured.items()}


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
