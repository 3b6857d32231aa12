"""Rows of JSONL files, checked; an error names file, line and field."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from sdd import lookup


class RowError(ValueError):
    """A data file that cannot be used; one line."""


def existing_file(path: epath.PathLike) -> epath.Path:
    """Returns the path of a file.

    Raises:
      RowError: there is none; the line lists the most similar names beside it.
    """
    path = epath.Path(path)
    if path.is_file():
        return path
    beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = lookup.nearest(path.name, beside)
    listed = ", ".join(sorted(beside)[:8]) or "nothing"
    where = f"{path.parent} holds {listed}" if path.parent.is_dir() else f"{path.parent} is no folder"
    raise RowError(f"{path}: no such file{near}; {where}")


def read_rows(path: epath.PathLike, fields: Mapping[str, type]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ``("FILE:LINE", row)`` of a JSONL file; blank lines are skipped.

    Args:
      path: a file, local or any that epath opens.
      fields: field -> type that every row must have; others are passed on as they are.

    Raises:
      RowError: no such file, a line that is no JSON object, a field that is missing or of another
        type, or a file without rows.
    """
    path = existing_file(path)
    found = False
    with path.open("rb") as lines:  # bytes, so that a character cut in half is a bad line like any other
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            found = True
            where = f"{path}:{number}"
            try:
                row = json.loads(line)
            except ValueError as error:
                raise RowError(f"{where}: not valid JSON ({error}); valid: one object a line") from None
            if not isinstance(row, dict):
                raise RowError(f"{where}: a {type(row).__name__}; valid: one object a line")
            for name, kind in fields.items():
                if name not in row:
                    near = lookup.nearest(name, row)
                    raise RowError(f"{where}: no field {name!r}{near}; it has {', '.join(row) or 'none'}")
                if not isinstance(row[name], kind) or isinstance(row[name], bool):
                    raise RowError(
                        f"{where}: field {name!r} is {row[name]!r:.60}; valid: of type {kind.__name__}"
                    )
            yield where, row
    if not found:
        raise RowError(f"{path}: holds no rows")


def unique(rows: Iterator[tuple[str, Any]], key: Callable[[Any], Any], field: str) -> list[tuple[str, Any]]:
    """Returns the rows as a list.

    Raises:
      RowError: two rows have the same key; the line names both places.
    """
    seen: dict[Any, str] = {}
    kept = []
    for where, row in rows:
        if (first := seen.setdefault(key(row), where)) != where:
            raise RowError(f"{where}: {field} {key(row)!r} occurs twice, first in {first}; valid: unique ids")
        kept.append((where, row))
    return kept
