"""What commands of the terminal share: exit codes, errors of one line, the environment of jax."""

import os
import sys
from pathlib import Path

from sdd.terminal import shown

FINISHED, FAILED, USAGE, NONFINITE, STOPPED, INTERRUPTED = 0, 1, 2, 70, 75, 130

EXIT_CODES = """exit codes:
  0    finished
  1    failed, with a traceback
  2    bad usage or config: one line says what is valid
  3    measured, and a --fail-if condition holds
  70   stopped after too many updates in a row that were not finite
  75   stopped by SIGTERM or Ctrl-C, after saving: the same command goes on from there
  76   another process of the run is gone: the same command, started anew by all, goes on
  130  interrupted before it could save
"""


class UsageError(Exception):
    """A command line that means nothing: one line."""


def say(message: str, code: int) -> int:
    """One line on stderr; returns the exit code."""
    print(f"sdd: {shown(message)}", file=sys.stderr)
    return code


def prepare_environment(force_cpu_devices: int) -> None:
    """Sets what must be set before jax is imported; variables that are set already stay.

    Args:
      force_cpu_devices: how many devices the CPU is split into; 0 leaves devices alone.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sdd" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's notes on its own start; errors still show
    if force_cpu_devices:
        flag = "--xla_force_host_platform_device_count"
        others = [f for f in os.environ.get("XLA_FLAGS", "").split() if f.split("=")[0] != flag]
        os.environ["XLA_FLAGS"] = " ".join([*others, f"{flag}={force_cpu_devices}"])
        os.environ["JAX_PLATFORMS"] = "cpu"
