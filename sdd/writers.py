"""The files of a run folder: JSON lines while it runs, whole files at once, TensorBoard, progress.

JSON has no NaN and no infinity: a non-finite number is written as ``null``. Every other float is written
with the shortest digits that read back to the same float64, so equal files mean equal bits. Paths go
through ``etils.epath``, so that a run folder may be in an object store (``gs://...``).
"""

import dataclasses
import importlib.util
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from etils import epath

from sdd import logfile
from sdd.config import ConfigError
from sdd.logfile import PathLike, is_local
from sdd.progress import printable as printable
from sdd.progress import progress as progress  # the loop shows and writes from one place

LOGS = ("metrics", "timings", "evaluations", "events")


def jsonable(value: Any) -> Any:
    """Plain Python data for ``value``: scalars and arrays of numpy and jax unpacked, non-finite floats None.

    Raises:
      TypeError: ``value`` holds something that JSON cannot say.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        if array.dtype != object:
            return jsonable(array.tolist())
    raise TypeError(
        f"cannot write a {type(value).__name__} as JSON: {value!r:.80}; valid: numbers, text, lists, mappings"
    )


def to_line(record: Mapping[str, Any]) -> bytes:
    """One JSON line, ASCII only: no character of a model's output can end the line or act on a terminal."""
    return json.dumps(jsonable(record), allow_nan=False).encode() + b"\n"


# ---- whole files ----------------------------------------------------------------------------------------


def write_json_atomic(path: PathLike, obj: Any) -> None:
    """Writes ``obj`` as indented JSON; a reader sees the old file or the new one, never a part."""
    _write_atomic(path, [json.dumps(jsonable(obj), indent=2, allow_nan=False).encode() + b"\n"])


def write_lines_atomic(path: PathLike, records: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON line a record; a reader sees the old file or the new one, never a part."""
    _write_atomic(path, (to_line(record) for record in records))


def write_bytes_atomic(path: PathLike, content: bytes) -> None:
    """Writes a file; a reader sees the old one or the new one, never a part."""
    _write_atomic(path, [content])


def truncate_after(path: PathLike, step: int) -> int:
    """Drops from a JSONL log what a run wrote after ``step``, before the run is resumed from there.

    Keeps, byte for byte, the whole, valid lines whose ``"step"`` is at most ``step``. A last line that a
    crash tore goes, and so does any line without a step. The file is replaced atomically; a missing one stays
    missing. Returns the number of dropped lines.
    """
    log = epath.Path(path)
    if not log.exists():
        return 0
    lines = log.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if (at := _step_of(line)) is not None and at <= step]
    if kept and not kept[-1].endswith(b"\n"):  # whole, only its end of line was lost
        kept[-1] += b"\n"
    if kept != lines:
        _write_atomic(log, kept)
    return len(lines) - len(kept)


def _step_of(line: bytes) -> int | None:
    try:
        record = json.loads(line)
    except ValueError:  # torn, or not text
        return None
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int) else None


def _write_atomic(path: PathLike, chunks: Iterable[bytes]) -> None:
    target = epath.Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not is_local(target):  # an object appears whole, once it is complete
        target.write_bytes(b"".join(chunks))
        return
    temporary = Path(target).with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


# ---- logs -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Writers:
    """The open logs of one run, made by `open_writers`. Without logs (other hosts) nothing is written."""

    logs: Mapping[str, IO[bytes]]
    tensorboard: Any = None

    def log_metrics(self, step: int, metrics: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl; nothing that depends on the clock: a resumed run repeats its bits."""
        self._log("metrics", step, metrics)
        self._scalars("train", step, metrics)

    def log_timings(self, step: int, timings: Mapping[str, Any]) -> None:
        """A line of timings.jsonl; seconds."""
        self._log("timings", step, timings)
        self._scalars("timings", step, timings)

    def log_evaluation(
        self,
        step: int,
        split: str,
        num_prompts: int,
        num_samples: int,
        metrics: Mapping[str, tuple[Any, Any, Any]],
    ) -> None:
        """A line of evaluations.jsonl; each metric is (value, low, high): a confidence interval."""
        named = {
            name: {"value": value, "low": low, "high": high} for name, (value, low, high) in metrics.items()
        }
        counts = {"split": split, "num_prompts": num_prompts, "num_samples": num_samples}
        self._log("evaluations", step, counts | {"metrics": named})
        self._scalars(f"eval_{split}", step, {name: value for name, (value, _, _) in metrics.items()})

    def log_event(self, step: int, event: str, message: str) -> None:
        """A line of events.jsonl: something that a person should know about this run."""
        self._log("events", step, {"event": event, "message": message})
        if self.tensorboard:
            self.tensorboard.add_text(event, message, int(step))

    def flush(self, fsync: bool = False) -> None:
        """Hands everything to the operating system; with ``fsync`` waits until it is on the disk."""
        for log in self.logs.values():
            logfile.sync(log, fsync)
        if self.tensorboard:
            self.tensorboard.flush()

    def close(self) -> None:
        """Flushes and closes every file."""
        for log in self.logs.values():
            log.close()
        if self.tensorboard:
            self.tensorboard.close()

    def _log(self, name: str, step: int, values: Mapping[str, Any]) -> None:
        if "step" in values:
            raise ValueError(f"'step' is taken in {name}.jsonl; give that value another name")
        if self.logs:
            self.logs[name].write(to_line({"step": int(step), **values}))
            self.logs[name].flush()  # a crash costs no line, and `tail -f` shows it at once

    def _scalars(self, group: str, step: int, values: Mapping[str, Any]) -> None:
        if self.tensorboard:
            for name, value in jsonable(values).items():
                if isinstance(value, int | float):  # leaves out the non-finite
                    self.tensorboard.add_scalar(f"{group}/{name}", value, int(step))


def open_writers(
    workdir: PathLike, *, tensorboard: bool = False, resume_step: int | None = None, enabled: bool = True
) -> Writers:
    """Opens the logs of a run folder.

    Args:
      workdir: the run folder; made when missing.
      tensorboard: also write ``<workdir>/tensorboard``.
      resume_step: the step of the checkpoint that the run goes on from (-1: it starts anew); what the logs
        say about later steps is dropped first. None leaves them as they are.
      enabled: False on every host but the first: nothing is opened and nothing written.

    Raises:
      ConfigError: TensorBoard is asked for and not installed, or ``workdir`` is in an object store,
        which its writer cannot append to.
    """
    if not enabled:
        return Writers({})
    if tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise ConfigError(
            "config.writers.tensorboard: tensorboardX is not installed; run: pip install 'sdd[tensorboard]'"
        )
    folder = epath.Path(workdir)
    if tensorboard and not is_local(folder):
        raise ConfigError(
            f"config.writers.tensorboard: {folder} is in an object store; valid: a local --workdir"
        )
    paths = {name: folder / f"{name}.jsonl" for name in LOGS}
    if resume_step is not None:
        for path in paths.values():
            truncate_after(path, resume_step)
    logs = {name: logfile.open_log(path) for name, path in paths.items()}
    if not tensorboard:
        return Writers(logs)
    import tensorboardX

    # Points after the checkpoint are hidden: the resumed run writes them again.
    purge_step = None if resume_step is None else resume_step + 1
    events = tensorboardX.SummaryWriter(os.fspath(folder / "tensorboard"), purge_step=purge_step)
    return Writers(logs, events)
