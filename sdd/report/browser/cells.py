"""The rollouts of one prompt at one step of one run, as the page's script reads them.

Equal rollouts are kept once, with a number for each sample that names its rollout. Texts lie in pieces, a
piece a token, each once in a table of the whole page; put together they are the completion exactly.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sdd.details import Details
from sdd.tasks.base import TRAIN

if TYPE_CHECKING:
    from sdd.report.browser.choose import Line

LOOK = 32  # characters; how far the text of a token is looked for
_DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
PER_NAT = 200  # log-probabilities are kept in units of 1/200 nat, down to -20.475


class Table:
    """Texts of the page, each once: ``table(text) -> number``; what is new since a mark can be dropped."""

    def __init__(self) -> None:
        self.number: dict[Any, int] = {}

    def __call__(self, key: Any) -> int:
        return self.number.setdefault(key, len(self.number))

    def cut(self, size: int) -> None:
        """Forgets all but the first ``size``."""
        self.number = dict(list(self.number.items())[:size])


class Found(NamedTuple):
    """A line of a rollouts file, and its tokens where they were kept.

    Attributes:
      record: the line.
      pieces: a list of texts a rollout, or None.
      logp: nats, a list a rollout, or None.
      drawing: of the prompt and its responses, or None.
    """

    record: dict[str, Any]
    pieces: list[list[str]] | None
    logp: list[np.ndarray] | None
    drawing: dict[str, Any] | None


def found(record: dict[str, Any], details: Details | None, first: int) -> Found:
    """Joins a line with its tokens; ``first`` is the number of its first rollout in the file."""
    if details is None:
        return Found(record, None, None, None)
    rows = range(first, first + len(record["completion"]))
    if rows.stop > len(details.length_N):
        raise ValueError("its details have fewer rollouts")
    ends = details.length_N[: rows.stop].cumsum()
    slices = [slice(int(ends[r] - details.length_N[r]), int(ends[r])) for r in rows]
    pieces = [[details.pieces[int(i)] for i in details.token_M[s]] for s in slices]
    drawing = details.drawings[first // len(rows)] if details.drawings else None
    return Found(record, pieces, [details.logp_M[s] for s in slices], drawing)


def split_text(text: str, pieces: Sequence[str]) -> list[str]:
    """Cuts a text where its tokens end; the parts joined are the text, whatever the pieces are.

    A tokenizer may put white space between tokens or drop it, and a token may be a part of a character. A
    piece that is not found takes no text, and the next that is found ends what was skipped.
    """
    parts: list[str] = []
    at = 0
    for piece in pieces:
        core = piece.strip() or piece
        where = text.find(core, at, at + len(core) + LOOK) if core else -1
        if where < 0:
            parts.append("")
            continue
        if parts and not parts[-1]:  # the text of those before, which were not found
            gap = text[at:where].rstrip()
            parts[-1], at = gap, at + len(gap)
        end = where + len(core)
        trailing = piece[len(piece.rstrip()) :] if core != piece else ""
        if trailing and text.startswith(trailing, end):
            end += len(trailing)
        parts.append(text[at:end])
        at = end
    if at < len(text):
        parts = [*parts[:-1], (parts[-1] if parts else "") + text[at:]]
    return parts


def coded(logp: np.ndarray) -> str:
    """Two characters a token."""
    steps = np.clip(np.nan_to_num(-np.asarray(logp, np.float64), nan=99, posinf=99) * PER_NAT, 0, 4095)
    return "".join(_DIGITS[q >> 6] + _DIGITS[q & 63] for q in np.rint(steps).astype(int).tolist())


def cell(one: Found, limit: int, pieces: Table, strategies: Table) -> dict[str, Any]:
    """What the page holds of a line, at most ``limit`` of its rollouts.

    ``{"r": [rollout, ..], "of": [number of the rollout, one a sample], "n": samples in the file}``, a rollout
    ``[right, strategy or -1, [piece, ..], logp or 0, path or 0, nodes that only it has]``.
    """
    record = one.record
    number: dict[Any, int] = {}
    rollouts: list[list[Any]] = []
    of = []
    for i in range(min(limit, len(record["completion"]))):
        parts = [record["completion"][i]]
        if one.pieces is not None:
            parts = split_text(parts[0], one.pieces[i]) or [parts[0]]
        name, right = record["strategy"][i], bool(record["correct"][i])
        key = (right, name, tuple(parts))
        if key not in number:
            drawn = one.drawing["responses"][one.drawing["of"][i]] if one.drawing else None
            rollouts.append(
                [
                    int(right),
                    -1 if name is None else strategies(str(name)),
                    [pieces(part) for part in parts],
                    coded(one.logp[i]) if one.logp is not None and len(one.logp[i]) == len(parts) else 0,
                    *([drawn["path"], drawn["nodes"]] if drawn else []),
                ]
            )
        of.append(number.setdefault(key, len(number)))
    return {"r": rollouts, "of": of, "n": len(record["completion"])}


def teachers(
    record: dict[str, Any], line: int, batch: Sequence[Found], pieces: Table, strategies: Table
) -> dict[str, Any]:
    """What taught the rollouts of a training prompt.

    ``{"by": [[k, ..], ..], "others": [rollout of another prompt, ..]}``, a list a rollout: samples of the
    same prompt, or -1 - k for the others; ``{"read": [text, ..], "reads": [[k, ..], ..]}`` where the teacher
    read what is no rollout of the batch.

    Args:
      record: the line.
      line: its number in the file, from 0 on.
      batch: all lines of the file.
      pieces, strategies: where texts go.
    """
    size = len(record["completion"])
    if "teacher_contexts" in record:
        return {"read": record["teacher_contexts"], "reads": record["teacher_context"]}
    if "demonstrations" not in record:
        return {}
    others: dict[int, int] = {}
    by = [
        [row % size if row // size == line else -1 - others.setdefault(row, len(others)) for row in rows]
        for rows in record["demonstrations"]
    ]
    shown = []
    for row in others:
        there = batch[row // size]
        one = {name: there.record[name][row % size :] for name in ("completion", "correct", "strategy")}
        alone = there._replace(
            record=one,
            pieces=there.pieces and there.pieces[row % size :],
            logp=there.logp and there.logp[row % size :],
            drawing=None,
        )
        shown += cell(alone, 1, pieces, strategies)["r"]
    return {"by": by, "others": shown}


class Page:
    """What is in the page so far, and how much room is left.

    Args:
      methods: names of all methods.
      limit: most rollouts of a prompt.
      room: bytes of JSON.
    """

    def __init__(self, methods: Sequence[str], limit: int, room: int):
        self.limit, self.left = limit, room - 1000
        self.methods = {name: i for i, name in enumerate(methods)}
        self.pieces, self.strategies, self.prompts, self.splits = Table(), Table(), Table(), Table()
        self.drawings: dict[int, Any] = {}
        self.cells: list[dict[str, Any]] = []

    def add(self, block: "Sequence[Line]") -> bool:
        """Takes lines if they fit together; otherwise everything stays as it was."""
        tables = (self.pieces, self.strategies, self.prompts, self.splits)
        marks, drawings = [len(table.number) for table in tables], dict(self.drawings)
        cells = [self._cell(line) for line in block]
        fresh: list[Any] = [list(table.number)[mark:] for table, mark in zip(tables, marks)]
        fresh.append([self.drawings[i] for i in self.drawings.keys() - drawings.keys()])
        size = len(to_json([fresh, cells])) + 60 * len(fresh[2])  # and the keys of each prompt
        if size > self.left:
            for table, mark in zip(tables, marks):
                table.cut(mark)
            self.drawings = drawings
            return False
        self.left -= size
        self.cells += cells
        return True

    def _cell(self, line: "Line") -> dict[str, Any]:
        record = line.found.record
        prompt = self.prompts((line.seed, str(record["prompt_id"]), str(record.get("prompt", ""))))
        if line.found.drawing and prompt not in self.drawings:
            self.drawings[prompt] = {name: line.found.drawing[name] for name in ("nodes", "edges", "text")}
        where = {"m": self.methods[line.method], "s": line.seed, "t": line.step, "p": self.splits(line.split)}
        made = cell(line.found, self.limit, self.pieces, self.strategies)
        by = teachers(record, *line.batch[::-1], self.pieces, self.strategies) if line.batch else {}
        return where | {"q": prompt} | made | by

    def data(self) -> dict[str, Any]:
        """Table of texts, prompts with their pictures, and cells."""
        prompts = [
            {"id": name, "text": text} | ({"drawing": self.drawings[i]} if i in self.drawings else {})
            for i, (_, name, text) in enumerate(self.prompts.number)
        ]
        tables = {"pieces": self.pieces, "strategies": self.strategies, "splits": self.splits}
        named = {name: list(table.number) for name, table in tables.items()}
        return named | {"prompts": prompts, "cells": self.cells, "train": TRAIN}


def to_json(value: Any) -> str:
    """JSON in ASCII that no HTML parser takes for anything but text."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text
