"""SIGTERM and Ctrl-C, as a question that a run asks itself wherever it can stop."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from sdd import processes


@contextlib.contextmanager
def stop_on_signal(name: str) -> Iterator[Callable[[], bool]]:
    """Yields ``asked() -> bool``: True after SIGTERM or Ctrl-C. A second Ctrl-C stops at once.

    Of several processes each asks as often as the others, and all get the same answer; ``name`` tells this
    agreement from others.
    """
    received: list[int] = []
    agreed = processes.agreement(name)

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
