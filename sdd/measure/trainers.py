"""Rollouts that verl and TRL write while they train: one line -> completions."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

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
    whole,
)
from sdd.progress import printable

# ---- verl -----------------------------------------------------------------------------------------------

# A uid drawn anew at every step and run; behind it, where there is one, the session and the output in it.
_DRAWN = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?:_(\d+)_(\d+))?")


def verl(record: Record, where: str, options: Options) -> list[Completion]:
    """A line of ``trainer.rollout_data_dir`` or ``trainer.validation_data_dir``.

    Fields, as ``_dump_generations`` of verl's ``trainer/ppo/ray_trainer.py`` writes them: ``input``,
    ``output``, ``score``, ``step``, ``gts`` and whatever the reward function adds: ``acc`` is the verdict
    where it is there, ``pred`` the answer. verl draws a ``uid`` anew for every batch (``uuid4``), with
    ``_SESSION_OUTPUT`` behind it in newer versions, so that it cannot join two runs: such a uid is passed
    over, and the prompt is told by ``input`` and ``gts``. Another uid is the prompt_id.

    Raises:
      MeasureError: a session with several outputs. Their lines repeat the last one's score, and which lines
        are no last ones can only be told from those behind them.
    """
    prompt, output = (text(record.get(name, ABSENT), name, where) for name in ("input", "output"))
    uid, gts = record.get("uid"), record.get("gts")
    drawn = _DRAWN.fullmatch(uid) if isinstance(uid, str) else None
    if drawn and drawn[2] and drawn[2].lstrip("0"):
        what = f"uid {shown(uid)} is a further output of one session"
        raise MeasureError(f"{where}: {what}; valid: agent loops with one output a session")
    if uid is not None and not drawn:
        prompt_id, _ = prompt_of({"uid": uid}, "uid", where)
    else:
        prompt_id = prompt if gts is None else f"{prompt}\n{_as_text(gts, where)}"
    if options.score or "acc" not in record:
        name = options.score or "score"
        correct, score = verdict(record.get(name, ABSENT), name, where, options)
    else:  # the threshold is one for scores
        valid = "true, false, 0 or 1 (or name another field as the score)"
        correct, score = verdict(record["acc"], "acc", where, options._replace(threshold=1.0), valid)
        if score not in (None, 0.0, 1.0):
            raise bad(record["acc"], "acc", where, valid)
    pred = record.get("pred")
    answer = (
        label(pred, "pred", where) if isinstance(pred, str | int) and not isinstance(pred, bool) else None
    )
    step = whole(record.get("step"), "step", where)
    return [Completion(prompt_id, prompt, output, correct, score, None, answer, "", step)]


def _as_text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, sort_keys=True, default=str)
    except (RecursionError, TypeError, ValueError):
        raise bad(value, "gts", where, "a value that can be written as JSON") from None


# ---- TRL ------------------------------------------------------------------------------------------------

_NO_REWARD = {"step", "prompt", "completion", "advantage", "mode", "image", "images"}


def trl(record: Record, where: str, options: Options) -> list[Completion]:
    """A row of the completion tables of TRL's ``GRPOTrainer(log_completions=True)``.

    Columns, as ``trl/trainer/grpo_trainer.py`` writes them into ``completions/completions_<step>.parquet``:
    ``step``, ``prompt``, ``completion``, one for each reward function, those of ``log_extra``, and
    ``advantage``. Nothing tells rewards from extra columns: of several numbers one has to be named. A reward
    function that does not apply to a row leaves it empty. The prompt's text is the prompt_id.
    """
    prompt = _messages(record.get("prompt", ABSENT), "prompt", where)
    completion = _messages(record.get("completion", ABSENT), "completion", where)
    rewards = _rewards(record)
    name = options.score or (rewards[0] if len(rewards) == 1 else "")
    if options.graded and not name:
        found = f"several reward columns ({_listed(rewards)})" if rewards else "no reward column"
        raise BadLine(where, found, "one column of numbers, or one of several named as the score")
    value = record.get(name, ABSENT)
    if value is ABSENT and options.score:
        raise bad(value, name, where, f"one of {_listed(rewards)}" if rewards else "a column of numbers")
    correct, score = verdict(value, name, where, options)
    step = whole(record.get("step"), "step", where)
    return [Completion(prompt, prompt, completion, correct, score, None, None, "", step)]


def settle_trl(record: Record, where: str, options: Options) -> Options:
    """Names the reward column for the whole file."""
    names = _rewards(record)
    if options.score or not names:
        return options
    if len(names) > 1 and options.graded:
        raise MeasureError(
            f"{where}: several reward columns ({_listed(names)}); valid: one of them named as the score"
        )
    return options._replace(score=names[0]) if len(names) == 1 else options


def _rewards(record: Record) -> list[str]:
    """Columns that can be rewards: numbers, or empty in this row."""
    kinds = (int, float, type(None))
    return [name for name, value in record.items() if name not in _NO_REWARD and isinstance(value, kinds)]


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(printable(name)[:40] for name in names[:8])}{' and others' if names[8:] else ''}"


def _messages(value: Any, name: str, where: str) -> str:
    """Text, or a conversation as text: of a single message its content, of several with their roles."""
    if not isinstance(value, list):
        return text(value, name, where)
    parts = []
    for i, message in enumerate(value):
        at = f"{name}[{i}]"
        if not isinstance(message, dict):
            raise bad(message, at, where, 'a message {"role", "content"}')
        role = text(message.get("role", ABSENT), f"{at}.role", where)
        parts.append((role, _content(message, at, where)))
    if not parts:
        raise bad(value, name, where, "text, or at least one message")
    return parts[0][1] if len(parts) == 1 else "\n".join(f"{role}: {content}" for role, content in parts)


def _content(message: Mapping[str, Any], at: str, where: str) -> str:
    content = message.get("content", ABSENT)
    if (content is None or content is ABSENT) and message.get("tool_calls"):
        return ""
    if isinstance(content, list):  # parts, of which images say nothing here
        texts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(piece for piece in texts if isinstance(piece, str))
    return text(content, f"{at}.content", where)
