"""JSONL logs that grow: files of this machine, or objects in a store, which takes only whole ones."""

import io
import os
import time
from collections.abc import Callable
from typing import IO

from etils import epath

PathLike = str | os.PathLike[str]
_UPLOAD_EVERY = 30.0  # seconds; a store takes about one write of an object a second


def is_local(path: PathLike) -> bool:
    """Whether a path is of this machine's file system, and not ``gs://...`` or the like."""
    return "://" not in os.fspath(path)


def open_log(path: PathLike, clock: Callable[[], float] = time.monotonic) -> IO[bytes]:
    """Opens a log to append to; what a crash tore stays apart from the next line.

    A file is written at every flush. An object is written whole, at most twice a minute, and by `sync` and
    ``close``: what came after is lost with the process, and made again when the run goes on.
    """
    target = epath.Path(path)
    if not is_local(target):
        return ObjectLog(target, clock)
    target.parent.mkdir(parents=True, exist_ok=True)
    file = open(target, "a+b")  # noqa: SIM115 (Writers.close closes it)
    if size := file.seek(0, os.SEEK_END):
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.write(b"\n")
            file.flush()
    return file


def sync(log: IO[bytes], to_disk: bool = True) -> None:
    """Hands all lines over; ``to_disk`` waits until a file's are on the disk."""
    if isinstance(log, ObjectLog):
        log.upload()
        return
    log.flush()
    if to_disk:
        os.fsync(log.fileno())


class ObjectLog(io.BytesIO):
    """A log in an object store: its lines are kept here and uploaded together."""

    def __init__(self, target: epath.Path, clock: Callable[[], float]):
        found = target.read_bytes() if target.exists() else b""
        super().__init__(found + (b"\n" if found and not found.endswith(b"\n") else b""))
        self.seek(0, os.SEEK_END)
        self._target, self._clock = target, clock
        self._uploaded, self._at = len(found), clock()

    def flush(self) -> None:
        if self._clock() - self._at >= _UPLOAD_EVERY:
            self.upload()

    def upload(self) -> None:
        """Writes the object, where there is something new."""
        lines = self.getvalue()
        if len(lines) != self._uploaded:
            self._target.write_bytes(lines)
            self._uploaded = len(lines)
        self._at = self._clock()

    def close(self) -> None:
        if not self.closed:
            self.upload()
        super().close()
