"""A verifier in a process of its own, with a time limit: it never hangs or ends the run."""

import contextlib
import json
import os
import pickle
import select
import subprocess
import sys
import threading
import time
import weakref
from typing import Any, NamedTuple

MEMORY_BYTES = 8 << 30
START_SECONDS = 180.0  # imports on a busy machine


class VerifierError(RuntimeError):
    """The verifier's process cannot be started; one line."""


class Verdict(NamedTuple):
    """Attributes:
    value: what the function returned; None where it failed.
    problem: "", or what went wrong: "timeout", "died", or the exception.
    """

    value: Any
    problem: str


class Verifier:
    """Calls one function in another process, which is started at the first call and again when it is lost.

    The process ends with this object, or when the run is gone. Calls from several threads take turns.

    Args:
      function: dotted path of a function of picklable arguments that returns what JSON can hold. Its
        module may have a function ``prepare()``, which is called once when the process starts.
      seconds: limit of a call.

    Attributes:
      problems: what went wrong so far: "timeouts", "crashes" and "errors" (exceptions), counted.
    """

    def __init__(self, function: str, seconds: float):
        self._function, self._seconds = function, seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: Any = None
        self.problems = {"timeouts": 0, "crashes": 0, "errors": 0}

    def __call__(self, *args: Any) -> Verdict:
        """Returns the verdict, within the time limit plus the time of a start.

        Raises:
          VerifierError: the process cannot be started, for example because a package is missing.
        """
        request = pickle.dumps(args)
        with self._lock:
            process = self._start()
            try:
                assert process.stdin is not None
                process.stdin.write(request)
                process.stdin.flush()
                reply = _read_line(process, self._seconds)
            except BrokenPipeError:
                reply = b""
            except BaseException:  # Ctrl-C: a late reply must not be taken for the next one's
                self.close()
                raise
            if reply is None:
                return self._lost("timeouts", "timeout")
            try:
                answer = json.loads(reply)
            except ValueError:  # an empty or broken line
                return self._lost("crashes", "died")
            if "error" in answer:
                self.problems["errors"] += 1
                return Verdict(None, str(answer["error"]))
            return Verdict(answer["value"], "")

    def close(self) -> None:
        """Ends the process; the next call starts another one."""
        if self._finalizer is not None:
            self._finalizer()
        self._process = None

    def _lost(self, kind: str, problem: str) -> Verdict:
        self.problems[kind] += 1
        self.close()
        return Verdict(None, problem)

    def _start(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self.close()
        command = [sys.executable, "-m", "sdd.tasks._verifier_worker", self._function]
        self._process = process = subprocess.Popen(
            [*command, str(self._seconds), str(MEMORY_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # The same modules as here, and no thread pools: it verifies one text at a time.
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONDONTWRITEBYTECODE": "1"}
            | dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            start_new_session=True,  # Ctrl-C is for the run; it decides what becomes of this process
        )
        self._finalizer = weakref.finalize(self, _end, process)
        hello = json.loads(_read_line(process, START_SECONDS) or b'{"error": "it did not start in time"}')
        if "error" in hello:
            self.close()
            raise VerifierError(f"verifier {self._function}: {hello['error']}")
        return process


def _read_line(process: subprocess.Popen[bytes], seconds: float) -> bytes | None:
    """Returns a line of the process; b"" when it ended, None when it took longer."""
    assert process.stdout is not None
    pipe, end, line = process.stdout.fileno(), time.monotonic() + seconds, b""
    while not line.endswith(b"\n"):
        if not select.select([pipe], [], [], max(end - time.monotonic(), 0))[0]:
            return None
        piece = os.read(pipe, 1 << 16)
        if not piece:
            return b""
        line += piece
    return line


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
