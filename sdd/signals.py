"""SIGTERM and Ctrl-C, as a question that a run asks itself wherever it can stop."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yields ``asked() -> bool``: True after SIGTERM or Ctrl-C. A second Ctrl-C stops at once."""
    received: list[int] = []

    def handle(number, frame):
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)
        # The signal may have come in the middle of a print: Python's own streams are not to be used here.
        with contextlib.suppress(OSError):
            os.write(2, f"{signal.Signals(number).name}: saving and stopping\n".encode())

    try:
        before = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: whoever runs us handles signals
        before = {}
    try:
        yield lambda: agreed(bool(received))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def agreed(asked: bool) -> bool:
    """Whether any process was asked; every process must call it, and all get the same answer."""
    if jax.process_count() == 1:
        return asked
    return bool(np.any(multihost_utils.process_allgather(np.array(asked))))
