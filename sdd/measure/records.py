"""What a file of rollouts holds once it is read, and the two errors that reading it can end in.

The functions check one value of a line each. They take the value (``ABSENT`` where the line has no such
field), the field's name and the line's place, and raise a `BadLine` that says all three and what is valid.
"""

import json
import math
import reprlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from sdd.progress import printable

Record = Mapping[str, Any]
ABSENT: Any = object()  # in place of the value of a field that a line lacks: null is a value
CUT = 60  # characters of a value that an error shows


class Completion(NamedTuple):
    """One sampled answer to a prompt, whatever the format of its file.

    Attributes:
      prompt_id: what joins the samples of a prompt, and the same prompt in two files.
      prompt: text; "" where the file does not hold it.
      completion: text.
      correct: the verdict; None where the file holds none.
      score: what the verdict was made from, if it was a number.
      strategy: name of the way in which it was solved; None where none could be told.
      answer: the final answer, for majority votes; None where there is none.
      split: "" where the file names none.
      step: of the training run; None where the file names none.
    """

    prompt_id: str
    prompt: str
    completion: str
    correct: bool | None
    score: float | None
    strategy: str | None
    answer: str | None
    split: str
    step: int | None = None


class Options(NamedTuple):
    """How lines are read.

    Attributes:
      threshold: where correctness is a number: right if it is at least this.
      score: name of the field (of TRL: the reward column) that correctness is taken from; "": the format's.
      graded: whether every line has to tell correctness; False takes it where it is there.
      step: of files with several training steps, the one to use; None: all lines are passed on.
    """

    threshold: float = 1.0
    score: str = ""
    graded: bool = True
    step: int | None = None


class MeasureError(ValueError):
    """Files that cannot be measured: one line."""


class BadLine(Exception):
    """A line that cannot be used: ``FILE:LINE: what is wrong; valid: what would be right``.

    Raised where a line is parsed, yielded where lines are read: the caller may count it and go on.
    """

    def __init__(self, where: str, what: str, valid: str):
        super().__init__(f"{where}: {what}; valid: {valid}")


def shown(value: Any) -> str:
    """A value as an error shows it: as JSON has it, printable, short; of lists and objects the size."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object of {len(value)} fields"
    if isinstance(value, str):
        quoted = json.dumps(printable(value[: CUT + 1]), ensure_ascii=False).replace("\\\\", "\\")
        return quoted if len(quoted) <= CUT + 2 else f'{quoted[: CUT - 1]}…"'
    plain = value is None or isinstance(value, bool | int | float)
    text = json.dumps(value) if plain else f"a {type(value).__name__} {printable(reprlib.repr(value))}"
    return text if len(text) <= CUT else f"{text[: CUT - 1]}…"


def bad(value: Any, name: str, where: str, valid: str) -> BadLine:
    """The error for a field's value, or for a field that is not there."""
    what = f"no field {printable(name)}" if value is ABSENT else f"{printable(name)} is {shown(value)}"
    return BadLine(where, what, valid)


def text(value: Any, name: str, where: str) -> str:
    """The value, which has to be text."""
    if isinstance(value, str):
        return value
    raise bad(value, name, where, "text")


def number(value: Any, name: str, where: str, valid: str = "a finite number") -> float:
    """The value, which has to be a finite number; true and false are none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            if math.isfinite(converted := float(value)):
                return converted
        except OverflowError:  # a whole number beyond the largest float
            pass
    raise bad(value, name, where, valid)


def label(value: Any, name: str, where: str) -> str | None:
    """A name: text, or a number as text; None where the field is null or not there."""
    if value is None or value is ABSENT:
        return None
    if isinstance(value, str):
        return value
    valid = "text, a finite number or null"
    number(value, name, where, valid)
    return str(value)


def whole(value: Any, name: str, where: str) -> int | None:
    """A step: a whole number, or the text of one; None where the field is null or not there."""
    if value is None or value is ABSENT:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 19:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return value
    raise bad(value, name, where, "a whole number >= 0")


def verdict(
    value: Any, name: str, where: str, options: Options, valid: str = "true, false or a finite number"
) -> tuple[bool | None, float | None]:
    """A field -> (correct, score): a bool is the verdict, a number a score with a threshold."""
    if isinstance(value, bool):
        return value, None
    if not options.graded and (value is None or value is ABSENT):
        return None, None
    score = number(value, name, where, valid)
    return score >= options.threshold, score


def prompt_of(record: Record, field: str, where: str) -> tuple[str, str]:
    """(prompt_id, prompt) of a line that may lack one of them."""
    name, prompt = record.get(field), record.get("prompt")
    prompt = None if prompt is None else text(prompt, "prompt", where)
    valid = "text or a whole number, or in its place the text of a prompt"
    if name is None and prompt:
        return prompt, prompt
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise bad(record.get(field, ABSENT), field, where, valid)
    return str(name), prompt or ""
