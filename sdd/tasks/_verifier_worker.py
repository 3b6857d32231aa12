"""The process in which a verifier runs: a hang, a crash or an exhausted memory ends it and not the run.

Requests are pickles on stdin, ``(arguments,)``; replies are JSON lines, so that what was done to this
process by the text it verified cannot reach the other one as more than a number. What a verifier
prints goes nowhere. Started by `sdd.tasks._verifier`, as

    python -m sdd.tasks._verifier_worker package.module.function SECONDS MEMORY_BYTES
"""

import contextlib
import json
import os
import pickle
import pkgutil
import sys
from typing import Any, BinaryIO

# Verifiers evaluate what a model wrote. These audit events are what such a text has no business with;
# this keeps accidents away and is no wall against an attacker.
_FORBIDDEN = (
    *("os.exec", "os.fork", "os.kill", "os.mkdir", "os.posix_spawn", "os.remove", "os.rename", "os.rmdir"),
    *("os.system", "os.truncate", "ctypes.dlopen", "shutil.", "socket.", "subprocess."),
)


def forbid(event: str, args: tuple) -> None:
    """An audit hook: refuses processes, sockets, and changes of files."""
    writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event.startswith(_FORBIDDEN):
        raise PermissionError(f"a verifier may not do this: {event}")


def limit_memory(num_bytes: int) -> None:
    """Bounds the address space, where the system can."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (num_bytes, num_bytes))


def alarm(seconds: float) -> None:
    """Ends this process in so many seconds, whatever it does then; 0 calls that off."""
    import signal

    if hasattr(signal, "setitimer"):  # the parent kills too; this is for when the parent is gone
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def serve(function: Any, requests: BinaryIO, replies: BinaryIO, seconds: float) -> None:
    """Answers requests until there are no more."""
    replies.write(b'{"ready": true}\n')
    replies.flush()
    while True:
        try:
            args = pickle.load(requests)
        except EOFError:
            return
        alarm(2 * seconds)
        try:
            reply = json.dumps({"value": function(*args)})
        except BaseException as error:  # SystemExit and MemoryError of the verifier too
            reply = json.dumps({"error": f"{type(error).__name__}: {error}"[:200]})
        alarm(0)
        replies.write(reply.encode() + b"\n")
        replies.flush()


def main() -> None:
    """Reads the command line."""
    path, seconds, memory = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    limit_memory(memory)
    try:
        function = pkgutil.resolve_name(path)
        prepare = getattr(sys.modules[function.__module__], "prepare", None)
        if prepare is not None:
            prepare()
    except BaseException as error:
        replies.write(json.dumps({"error": f"{type(error).__name__}: {error}"[:400]}).encode() + b"\n")
        replies.flush()
        return
    sys.addaudithook(forbid)
    serve(function, requests, replies, seconds)


if __name__ == "__main__":
    main()
