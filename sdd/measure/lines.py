"""Lines of JSONL files and rows of Parquet files, one at a time, in bounded memory.

A line longer than the limit never enters memory whole. What is wrong with a line is yielded in its place, as
a `BadLine`, and reading goes on with the next one; what is wrong with a file is raised, as a `MeasureError`.
"""

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from sdd.measure.records import BadLine, MeasureError, shown
from sdd.progress import printable
from sdd.typed import error_line

MAX_BYTES = 16 * 2**20
VALID_FILES = "a file .jsonl, .ndjson or .json with one object a line, the same with .gz, or .parquet"
VALID_FOLDERS = "a folder of <step>.jsonl (verl) or completions_<step>.parquet (TRL)"
_PIECE = 2**20  # bytes read at once of a long line
_ROWS = 256  # rows of a Parquet file in memory at once
_IN_FOLDERS = (r"(\d+)\.jsonl(\.gz)?", r"completions_(\d+)\.(parquet|jsonl)")


class Line(NamedTuple):
    """A line that holds an object.

    Attributes:
      where: ``FILE:LINE``, the line (of a Parquet file the row) counted from 1.
      record: field -> value, as JSON has them.
    """

    where: str
    record: dict[str, Any]


def read(path: str | os.PathLike[str], max_bytes: int = MAX_BYTES) -> Iterator[Line | BadLine]:
    """Yields the lines of a file, or of all the files of a folder in the order of their numbers.

    Blank lines are passed over. The limit is for lines; of Parquet a batch of rows is in memory, whatever
    its size.

    Args:
      path: see `files`.
      max_bytes: a longer line is a `BadLine`.

    Raises:
      MeasureError: a path that `files` refuses, or a file that is empty, not readable or not Parquet.
    """
    for file in files(path):
        rows = _parquet if file.suffix.lower() == ".parquet" else _json_lines
        yield from rows(file, max_bytes)


def files(path: str | os.PathLike[str]) -> list[Path]:
    """The files that a path stands for: itself, or those of a dump folder in the order of their numbers.

    Raises:
      MeasureError: nothing is there, the ending is unknown, or the folder is not a dump folder.
    """
    file = Path(path)
    name = printable(str(file))
    try:
        there = sorted(entry.name for entry in file.iterdir()) if file.is_dir() else None
        missing = not file.exists()
    except (OSError, ValueError) as error:
        raise MeasureError(f"{name}: cannot be read ({_reason(error)}); valid: {VALID_FILES}") from None
    if missing:
        raise MeasureError(f"{name}: no such file; valid: {VALID_FILES}, or {VALID_FOLDERS}")
    if there is not None:
        return _of_folder(file, there)
    if not _readable(file):
        raise MeasureError(f"{name}: an unknown ending; valid: {VALID_FILES}")
    return [file]


def _of_folder(folder: Path, names: list[str]) -> list[Path]:
    for pattern in _IN_FOLDERS:
        found = [(int(match[1]), name) for name in names if (match := re.fullmatch(pattern, name))]
        if found:
            return [folder / name for _, name in sorted(found)]
    there = [printable(name) for name in names if _readable(Path(name))]
    listed = f"{', '.join(there[:5])}{' and others' if len(there) > 5 else ''}" if there else "no such file"
    raise MeasureError(
        f"{printable(str(folder))}: a folder, with {listed}; valid: {VALID_FILES}, or {VALID_FOLDERS}"
    )


def _readable(file: Path) -> bool:
    return re.search(r"\.(parquet|(jsonl|ndjson|json)(\.gz)?)$", file.name.lower()) is not None


def _reason(error: BaseException) -> str:
    return printable(error_line(error))


# ---- JSON lines -----------------------------------------------------------------------------------------


def _json_lines(path: Path, max_bytes: int) -> Iterator[Line | BadLine]:
    name = printable(str(path))
    number = 0
    empty = True
    try:
        with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb") as file:
            while True:
                try:
                    line, size = _next_line(file, max_bytes)
                except (EOFError, zlib.error, gzip.BadGzipFile) as error:  # nothing behind it can be read
                    what = f"the compressed file is damaged or cut off ({_reason(error)})"
                    yield BadLine(f"{name}:{number + 1}", what, "a whole .gz file")
                    return
                if not size:
                    break
                number += 1
                if size > max_bytes:
                    valid = f"at most {max_bytes} bytes"
                    empty = False
                    yield BadLine(f"{name}:{number}", f"a line of {size} bytes", valid)
                elif line.strip():
                    empty = False
                    yield _parse(line, f"{name}:{number}", first=number == 1)
    except OSError as error:
        raise MeasureError(f"{name}: cannot be read ({_reason(error)}); valid: {VALID_FILES}") from None
    if empty:
        raise MeasureError(f"{name}: an empty file; valid: at least one line")


def _next_line(file: BinaryIO | gzip.GzipFile, max_bytes: int) -> tuple[bytes, int]:
    """The next line and its size; of a line above the limit only the size. Size 0: the end."""
    pieces: list[bytes] = []
    size = 0
    while piece := file.readline(_PIECE):
        size += len(piece)
        if size <= max_bytes:
            pieces.append(piece)
        else:
            pieces.clear()
        if piece.endswith(b"\n"):
            break
    return b"".join(pieces), size


def _parse(line: bytes, where: str, first: bool) -> Line | BadLine:
    valid = "one JSON object a line"
    whole = line.endswith(b"\n")
    try:
        text = line.rstrip().decode("utf-8")
        record = json.loads(text.removeprefix("\ufeff") if first else text)
    except UnicodeDecodeError as error:
        if not whole and error.reason == "unexpected end of data":
            return BadLine(where, "ends within a character: the file seems cut off", valid)
        byte = f"byte {error.start + 1} of the line (0x{line[error.start]:02x}) is not UTF-8"
        return BadLine(where, byte, "UTF-8 text")
    except RecursionError:
        return BadLine(where, "JSON that is nested too deeply", valid)
    except ValueError as error:
        reason = "a number of too many digits"
        if isinstance(error, json.JSONDecodeError):
            reason = f"{error.msg}, column {error.colno}"
        cut = "" if whole else ", and the line has no end: the file seems cut off"
        return BadLine(where, f"not valid JSON ({printable(reason)}){cut}", valid)
    if not isinstance(record, dict):
        return BadLine(where, f"{shown(record)} instead of an object", valid)
    return Line(where, record)


# ---- Parquet --------------------------------------------------------------------------------------------


def _parquet(path: Path, max_bytes: int) -> Iterator[Line]:
    name = printable(str(path))
    try:
        import pyarrow.parquet
    except ImportError:
        raise MeasureError(
            f"{name}: reading .parquet needs pyarrow, which is not installed; run: pip install pyarrow"
        ) from None
    number = 0
    for batch in _batches(pyarrow.parquet, path, name):
        for record in batch:
            number += 1
            yield Line(f"{name}:{number}", record)
    if not number:
        raise MeasureError(f"{name}: an empty file; valid: at least one row")


def _batches(parquet: Any, path: Path, name: str) -> Iterator[list[dict[str, Any]]]:
    """Rows in batches within each row group; a group can be the whole file."""
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                rows = batch.to_pylist()
                yield rows
    except Exception as error:  # of damaged bytes pyarrow raises a dozen types
        raise MeasureError(
            f"{name}: not readable as Parquet ({_reason(error)}); valid: a whole file"
        ) from None
