"""Completions on disk, given back prompt by prompt in bounded memory, whatever the order they came in."""

import contextlib
import hashlib
import os
import sqlite3
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from sdd.measure.records import Completion, MeasureError, shown

Key = tuple[str, str]  # split, prompt_id

_BATCH = 2000  # completions written at once,
_BATCH_CHARACTERS = 2**22  # or fewer where they are long
_REMEMBERED = 50_000  # prompts whose row is known without a look into the file
_NO_STEP = -1
_VALID = "TMPDIR, a folder with room"
# Text is stored as bytes: a model can write half a surrogate pair, which no TEXT can hold.
_SCHEMA = """
CREATE TABLE prompt (
  id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, step INTEGER NOT NULL,
  split BLOB NOT NULL, prompt_id BLOB NOT NULL, text BLOB NOT NULL, conflict INTEGER NOT NULL DEFAULT 0);
CREATE TABLE completion (
  prompt INTEGER NOT NULL, text BLOB NOT NULL, correct INTEGER, score REAL, strategy BLOB, answer BLOB);
"""


class Group(NamedTuple):
    """A prompt with all its completions, in the order they were added.

    Attributes:
      key: (split, prompt_id).
      prompt: its text; "" where it is not known.
      completions: N texts.
      correct: N bool; None where any of them is not known.
      strategy, answer: N names, None where there is none.
      score: N float64; nan where there is none.
    """

    key: Key
    prompt: str
    completions: list[str]
    correct: np.ndarray | None
    strategy: list[str | None]
    answer: list[str | None]
    score: np.ndarray


class Store:
    """Completions in a temporary SQLite file, which goes when the store is closed or the process ends.

    Use it in a ``with`` statement: add everything, then read. Where completions of several training steps
    were added, everything that is read is of the last step, and `warnings` says so.

    Raises:
      MeasureError: the temporary file cannot be written.
    """

    def __init__(self) -> None:
        try:
            handle, self._path = tempfile.mkstemp(prefix="sdd-", suffix=".sqlite3")
        except OSError as error:
            raise MeasureError(f"no temporary file can be made ({error.strerror}); valid: {_VALID}") from None
        os.close(handle)
        # isolation_level None: the one transaction is ours, and a file that nobody reopens needs no journal.
        self._file = sqlite3.connect(self._path, isolation_level=None)
        self._close = weakref.finalize(self, _remove, self._file, self._path)
        for setting in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "temp_store=FILE"):
            self._file.execute(f"PRAGMA {setting}")
        self._file.execute("PRAGMA cache_size=-65536")  # KiB
        with self._writing():
            self._file.executescript(_SCHEMA)
            self._file.execute("BEGIN")
        self._waiting: list[tuple] = []
        self._waiting_characters = 0
        # Digest of a key -> its row and the hash of its prompt's text: None once it came with two texts.
        self._rows: dict[bytes, tuple[int, int | None]] = {}
        self._last: tuple[Any, bytes] = (None, b"")  # the last key and its digest
        self._num_rows = 0
        self._steps: Counter[int] = Counter()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def add(self, completions: Iterable[Completion]) -> None:
        """Adds completions, of any prompts in any order."""
        for c in completions:
            row = self._row(c)
            self._steps[_NO_STEP if c.step is None else c.step] += 1
            strategy = None if c.strategy is None else _bytes(c.strategy)
            answer = None if c.answer is None else _bytes(c.answer)
            self._waiting.append((row, _bytes(c.completion), c.correct, c.score, strategy, answer))
            self._waiting_characters += len(c.completion)
            if len(self._waiting) >= _BATCH or self._waiting_characters >= _BATCH_CHARACTERS:
                self._flush()

    def _row(self, c: Completion) -> int:
        """The row of a completion's prompt, a new one if need be."""
        key = (c.step, c.split, c.prompt_id)
        if self._last[0] != key:
            digest = _digest(*key)
            if digest not in self._rows:
                if len(self._rows) >= _REMEMBERED:
                    self._rows.clear()
                self._rows[digest] = self._find(digest, c)
            self._last = (key, digest)
        row, known = self._rows[self._last[1]]
        if known is not None and known != hash(c.prompt) and c.prompt:
            self._rows[self._last[1]] = (row, self._other_text(row, c.prompt))
        return row

    def _find(self, digest: bytes, c: Completion) -> tuple[int, int | None]:
        """(row, hash of its prompt's text) of a prompt in the file, a new one if need be."""
        select = "SELECT id, text FROM prompt WHERE digest = ?"
        if stored := self._file.execute(select, (digest,)).fetchone():
            return stored[0], hash(_text(stored[1]))
        self._num_rows += 1
        step = _NO_STEP if c.step is None else c.step
        values = (self._num_rows, digest, step, _bytes(c.split), _bytes(c.prompt_id), _bytes(c.prompt))
        with self._writing():
            self._file.execute("INSERT INTO prompt VALUES (?, ?, ?, ?, ?, ?, 0)", values)
        return self._num_rows, hash(c.prompt)

    def _other_text(self, row: int, text: str) -> int | None:
        """Takes the text of a prompt that had none (its hash), or notes that there are two (None)."""
        (stored,) = self._file.execute("SELECT text FROM prompt WHERE id = ?", (row,)).fetchone()
        with self._writing():
            if stored:
                self._file.execute("UPDATE prompt SET conflict = 1 WHERE id = ?", (row,))
                return None
            self._file.execute("UPDATE prompt SET text = ? WHERE id = ?", (_bytes(text), row))
        return hash(text)

    def _flush(self) -> None:
        with self._writing():
            self._file.executemany("INSERT INTO completion VALUES (?, ?, ?, ?, ?, ?)", self._waiting)
        self._waiting.clear()
        self._waiting_characters = 0

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            what = f"{self._path}: the temporary file cannot be written ({error})"
            raise MeasureError(f"{what}; valid: {_VALID}") from None

    def _ready(self) -> tuple[sqlite3.Connection, int]:
        """The file with everything in it and found by prompt, and the step that is read."""
        self._flush()
        with self._writing():
            self._file.execute("CREATE INDEX IF NOT EXISTS of_prompt ON completion (prompt)")
        return self._file, max(self._steps, default=_NO_STEP)

    def groups(self) -> Iterator[Group]:
        """Yields one prompt at a time with all its completions, in the order that they were first seen in."""
        file, step = self._ready()
        select = "SELECT id, split, prompt_id, text FROM prompt WHERE step = ? ORDER BY id"
        for row, split, prompt_id, text in file.execute(select, (step,)):
            yield self._group(row, (_text(split), _text(prompt_id)), _text(text))

    def group(self, key: Key) -> Group:
        """One prompt.

        Raises:
          MeasureError: it is not there.
        """
        file, step = self._ready()
        select = "SELECT id, text FROM prompt WHERE digest = ?"
        found = file.execute(select, (_digest(step, *key),)).fetchone()
        if not found:
            raise MeasureError(
                f"no prompt {shown(key[1])} in split {shown(key[0])}; valid: a key of prompts()"
            )
        return self._group(found[0], key, _text(found[1]))

    def _group(self, row: int, key: Key, prompt: str) -> Group:
        select = (
            "SELECT text, correct, score, strategy, answer FROM completion WHERE prompt = ? ORDER BY rowid"
        )
        texts, correct, score, strategy, answer = zip(*self._file.execute(select, (row,)))
        name = lambda value: None if value is None else _text(value)  # noqa: E731
        return Group(
            key=key,
            prompt=prompt,
            completions=[_text(value) for value in texts],
            correct=None if None in correct else np.array(correct, dtype=bool),
            strategy=[name(value) for value in strategy],
            answer=[name(value) for value in answer],
            score=np.array(score, dtype=np.float64),  # None becomes nan
        )

    @property
    def num_prompts(self) -> int:
        """Number of prompts."""
        file, step = self._ready()
        return file.execute("SELECT COUNT(*) FROM prompt WHERE step = ?", (step,)).fetchone()[0]

    @property
    def num_completions(self) -> int:
        """Number of completions."""
        return self._steps[max(self._steps, default=_NO_STEP)]

    def sizes(self) -> np.ndarray:
        """Number of completions of each prompt, int64, in the order in which they were first seen."""
        return np.fromiter((size for _, size in self.prompts()), dtype=np.int64)

    def prompts(self) -> Iterator[tuple[Key, int]]:
        """Yields each prompt's key and number of completions, in the order in which they were first seen."""
        file, step = self._ready()
        select = f"SELECT split, prompt_id, {_SIZE} FROM prompt WHERE step = ? ORDER BY id"
        for split, prompt_id, size in file.execute(select, (step,)):
            yield (_text(split), _text(prompt_id)), size

    def sizes_by_key(self) -> dict[Key, int]:
        """Key -> number of completions."""
        return dict(self.prompts())

    def splits(self) -> dict[str, tuple[int, int]]:
        """Split -> (prompts, completions), in the order in which they were first seen."""
        file, step = self._ready()
        select = (
            f"SELECT split, COUNT(*), SUM({_SIZE}) FROM prompt WHERE step = ? GROUP BY split ORDER BY MIN(id)"
        )
        return {_text(split): (prompts, size) for split, prompts, size in file.execute(select, (step,))}

    def warnings(self) -> list[str]:
        """What who reads the numbers has to know, a line each."""
        file, step = self._ready()
        found = []
        if len(self._steps) > 1:
            rest = sum(self._steps.values()) - self._steps[step]
            found.append(
                f"several training steps: only the last, step {step}, is measured ({self._steps[step]} "
                f"completions; {rest} of others are left out); to measure another, choose it"
            )
        select = "SELECT COUNT(*), MIN(id) FROM prompt WHERE step = ? AND conflict"
        count, first = file.execute(select, (step,)).fetchone()
        if count:
            name = file.execute("SELECT prompt_id FROM prompt WHERE id = ?", (first,)).fetchone()[0]
            found.append(
                f"{count} of {self.num_prompts} prompts have one prompt_id and different texts (the first is "
                f"{shown(_text(name))}): their completions are taken together"
            )
        return found


_SIZE = "(SELECT COUNT(*) FROM completion WHERE prompt = prompt.id)"


def _remove(file: sqlite3.Connection, path: str) -> None:
    with contextlib.suppress(sqlite3.Error):
        file.close()
    with contextlib.suppress(FileNotFoundError):
        os.remove(path)


def _digest(step: int | None, split: str, prompt_id: str) -> bytes:
    """16 bytes in place of a key, which can be a whole prompt."""
    key = f"{_NO_STEP if step is None else step} {len(split)} {split}{prompt_id}"
    return hashlib.blake2b(_bytes(key), digest_size=16).digest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(stored: bytes) -> str:
    return stored.decode("utf-8", "surrogatepass")
