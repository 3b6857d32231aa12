"""A watch over the other processes of a job: whoever is gone, or has failed, is noticed and named.

Every process writes a beat into the coordination service that process 0 runs, and reads those of the others.
Silence is counted by each process's own clock, from when it last saw a beat change: clocks need not agree.
"""

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import jax

LOST = 76  # the exit code of a process that ends because another one is gone
_BEAT = "sdd/beat/"
_FAILED = "sdd/failed/"


class Watch(NamedTuple):
    """Attributes:
    stop: ends the watch, before the process leaves in peace.
    fail: ``(code, message)``: tells the others, which end with the same code, and ends this process.
    wait: returns after the time in which a lost process is found; the watch then ends this process.
    """

    stop: Callable[[], None]
    fail: Callable[[int, str], NoReturn]
    wait: Callable[[], None]


class _Seen(NamedTuple):
    """What a process has heard, each with the time on its own clock.

    Attributes:
      answered: when the coordination service last answered; a list of one.
      beats: process -> its last beat, and when that was new.
      failed: process -> "CODE MESSAGE".
    """

    answered: list[float]
    beats: dict[int, tuple[str, float]]
    failed: dict[int, str]


def client() -> Any:
    """The coordination service's client; jax offers no public way to it."""
    from jax._src import distributed

    return distributed.global_state.client


def hosts() -> dict[int, str]:
    """Process -> its host, of all that have been heard of."""
    return {_process(key): said.partition(" ")[0] for key, said in client().key_value_dir_get(_BEAT)}


def start(lost_after: float) -> Watch:
    """Starts to beat, to listen and to judge; one that is silent for ``lost_after`` seconds is lost.

    This process then ends with exit code `LOST` and one line on stderr; when another one failed, with its
    code.
    """
    now, stopped, failing = time.monotonic(), threading.Event(), threading.Event()
    own, host = jax.process_index(), socket.gethostname()
    seen = _Seen([now], {p: ("", now) for p in range(jax.process_count()) if p != own}, {})
    every = min(max(lost_after / 10, 0.1), 3.0)

    def talk() -> None:
        for count in itertools.count():
            with contextlib.suppress(Exception):  # no answer counts as silence
                client().key_value_set(f"{_BEAT}{own}", f"{host} {count}", allow_overwrite=True)
                listen(seen)
            if stopped.wait(every):
                return

    def judge() -> None:
        with _aborts_held(lost_after + 10):
            while not stopped.wait(every / 2):
                found = verdict(seen, time.monotonic(), lost_after)
                if found and not failing.is_set():  # if all fail alike, one line each is enough
                    _end(*found)

    def fail(code: int, message: str) -> NoReturn:
        failing.set()
        with contextlib.suppress(Exception):
            client().key_value_set(f"{_FAILED}{own}", f"{code} {message}")
        time.sleep(3 * every)  # process 0 takes the service with it: the others read first
        os._exit(code)

    for target in (talk, judge):
        threading.Thread(target=target, daemon=True, name=f"sdd {target.__name__}").start()
    return Watch(stopped.set, fail, lambda: time.sleep(lost_after + 4 * every))


def listen(seen: _Seen) -> None:
    """Reads what the others have said; what is new is noted with the time."""
    for key, said in client().key_value_dir_get(_BEAT):
        process = _process(key)
        if process in seen.beats and said != seen.beats[process][0]:
            seen.beats[process] = said, time.monotonic()
    for key, said in client().key_value_dir_get(_FAILED):
        if _process(key) in seen.beats:
            seen.failed[_process(key)] = said
    seen.answered[0] = time.monotonic()


def verdict(seen: _Seen, now: float, lost_after: float) -> tuple[int, str] | None:
    """The exit code and the line to end with, or None where all is well."""

    def named(process: int) -> str:
        host = seen.beats[process][0].partition(" ")[0]
        return f"process {process}" + (f" ({host})" if host else "")

    for process, said in seen.failed.items():
        code, _, message = said.partition(" ")
        return int(code), f"{named(process)} failed: {message}; this process ends too"
    silence = now - seen.answered[0]
    lost = [process for process, (_, at) in seen.beats.items() if now - at > lost_after]
    if silence > lost_after or 0 in lost:  # with process 0 goes the service, a moment sooner or later
        silence = max(silence, now - seen.beats[0][1]) if 0 in seen.beats else silence
        who = named(0) if 0 in seen.beats else "process 0"
        what = f"{who}, which coordinates, has not answered for {silence:.0f} s"
    elif lost:
        silence = max(now - seen.beats[process][1] for process in lost)
        what = f"nothing was heard of {', '.join(map(named, lost))} for {silence:.0f} s"
    else:
        return None
    return LOST, f"{what}; this process ends; the same command goes on from the last checkpoint"


def _process(key: str) -> int:
    return int(key.rpartition("/")[2])


def _end(code: int, message: str) -> NoReturn:
    """Leaves at once: the main thread may hang in a collective that never ends."""
    with contextlib.suppress(OSError):
        os.write(2, f"sdd: {message}\n".encode())
    os._exit(code)


@contextlib.contextmanager
def _aborts_held(seconds: float):
    """jax aborts a process as soon as its connection to the coordinator breaks; the watch is to judge first.

    The handler is C's, since one of Python's would only run after the abort.
    """

    def hold(number: int) -> None:
        time.sleep(seconds)  # the watch ends the process meanwhile; if not, the abort has another reason

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(hold)
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    library.signal(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))
    try:
        yield
    finally:
        library.signal(signal.SIGABRT, None)  # SIG_DFL
