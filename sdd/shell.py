"""What commands of the terminal share: exit codes, errors of one line, the environment of jax."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from sdd.terminal import shown

FINISHED, FAILED, USAGE, NONFINITE, STOPPED, INTERRUPTED = 0, 1, 2, 70, 75, 130

CODES = {
    FINISHED: "finished",
    FAILED: "failed, with a traceback; of sdd plan and sdd doctor: it does not fit, or something is wrong",
    USAGE: "bad usage or config: one line says what is valid",
    3: "measured, and a --fail-if condition holds",
    NONFINITE: "stopped after too many updates in a row that were not finite",
    STOPPED: "stopped by SIGTERM or Ctrl-C, after saving: the same command goes on from there",
    76: "another process of the run is gone: the same command, started anew by all, goes on",
    INTERRUPTED: "interrupted before it could save",
}


def exit_codes(*codes: int, **others: str) -> str:
    """The lines of a command's help on its exit codes; ``_1="..."`` where it says 1 in words of its own."""
    own = {int(name[1:]): text for name, text in others.items()}
    shown = {code: CODES[code] for code in codes} | own
    return "exit codes:\n" + "".join(f"  {code:<4d} {shown[code]}\n" for code in sorted(shown))


EXIT_CODES = exit_codes(*CODES)


class UsageError(Exception):
    """A command line that means nothing: one line."""


class Parser(argparse.ArgumentParser):
    """Arguments of a command; whatever is wrong with them is a `UsageError`."""

    def __init__(self, prog: str):
        super().__init__(prog=prog, add_help=False, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


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


def end_on_second_interrupt(grace: float = 1.0) -> Callable[[], None]:
    """From now on a second Ctrl-C ends this process, even where Python is not asked: in a compiler, say.

    Python's own handlers run between two of its instructions, and compiling is one instruction of minutes.

    Args:
      grace: seconds that the main thread has to end by itself.

    Returns:
      ``caught()``, for the main thread to say that it ends, and has told so.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    caught = threading.Event()

    def listen() -> None:
        count = 0
        while count < 2:
            count += os.read(heard, 64).count(signal.SIGINT)
        if caught.wait(grace):
            caught.clear()
            caught.wait(5 * grace)  # for what is done at exit
        else:
            os.write(2, b"sdd: interrupted\n")
        os._exit(INTERRUPTED)

    threading.Thread(target=listen, daemon=True, name="sdd interrupt").start()
    return caught.set
