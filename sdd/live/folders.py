"""A run or study folder that somebody else is writing: what is there, whether it changed, a copy to read."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOGS = ("evaluations.jsonl", "events.jsonl", "metrics.jsonl", "timings.jsonl")
WHOLE = ("config.json", "environment.json")  # written whole or not at all
_TAIL = 1 << 16  # bytes in which the last line of a log is looked for


def runs(folder: Path) -> list[Path]:
    """The run folders that have begun: the folder itself, or those of a study's seeds; sorted."""
    if (folder / "config.json").exists():
        return [folder]
    return sorted(config.parent for config in folder.glob("seed_*/*/config.json"))


def version(folder: Path) -> str:
    """A short text that changes when something that a report shows does; "" where nothing has begun."""
    found = [f"{path} {s.st_mtime_ns} {s.st_size}" for path, s in _files(folder)]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16] if found else ""


def copied(folder: Path, into: Path) -> Path | None:
    """Copies what a report reads, without the lines that are still being written.

    Rollouts are written whole, and are linked. Runs without an evaluation are left out.

    Args:
      folder: of a run or a study; only read.
      into: an empty folder.

    Returns:
      The copy, of the same name; None where no run has an evaluation yet.
    """
    copy = into / folder.resolve().name
    for run in runs(folder):
        logs = {name: whole_lines(run / name) for name in LOGS}  # read once: a resumed run cuts them back
        if not logs["evaluations.jsonl"]:
            continue
        target = copy / run.relative_to(folder)
        target.mkdir(parents=True)
        for name in WHOLE:
            if (run / name).exists():
                (target / name).write_bytes((run / name).read_bytes())
        for name, lines in logs.items():
            if lines:
                (target / name).write_bytes(lines)
        (target / "rollouts").symlink_to((run / "rollouts").resolve(), target_is_directory=True)
    return copy if copy.exists() else None


def whole_lines(path: Path) -> bytes:
    """The lines of a log that have an end; nothing where there is no file yet."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    return content[: content.rfind(b"\n") + 1]


def status(folder: Path) -> str:
    """One line: how far the run that wrote last is."""
    begun = runs(folder)
    if not begun:
        return f"waiting for a run in {folder}"
    newest = max(begun, key=_last_written)
    name = "" if newest == folder else f"{newest.relative_to(folder)}: "
    total = (_json((newest / "config.json").read_bytes()).get("train") or {}).get("num_steps", "?")
    step = _last_line(newest / "metrics.jsonl").get("step", 0)
    ago = max(int(time.time() - _last_written(newest)), 0)
    more = f"; {len(begun)} runs have begun" if len(begun) > 1 else ""
    return f"{name}step {step} of {total}, written {_duration(ago)} ago{more}"


def _duration(seconds: int) -> str:
    if seconds < 100:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 6000 else f"{seconds // 3600} h"


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for run in runs(folder):
        for path in (*(run / name for name in (*WHOLE, *LOGS)), *sorted(run.glob("rollouts/step_*"))):
            try:
                yield path, path.stat()
            except FileNotFoundError:
                continue


def _last_written(run: Path) -> float:
    return max((s.st_mtime for _, s in _files(run)), default=0.0)


def _last_line(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
            tail = file.read()
    except FileNotFoundError:
        return {}
    lines = tail[: tail.rfind(b"\n") + 1].splitlines()
    return _json(lines[-1]) if lines else {}


def _json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
