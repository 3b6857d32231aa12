"""Demonstrations that lie in files: any program, or a person, may have written them."""

import glob
import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sdd.tasks.base import Example, Task
from sdd.typed import ConfigError


class Written(NamedTuple):
    """Attributes:
    texts: prompt_id -> the demonstrations of that prompt, as texts.
    prompts: prompt_id -> the prompt's text, where the files say it.
    """

    texts: Mapping[str, Sequence[str]]
    prompts: Mapping[str, str]


def read(path: str, key: str) -> Written:
    """Reads demonstrations from JSON lines, as ``sdd sample`` writes them and ``sdd measure`` reads them.

    A line holds ``prompt_id`` and ``completion``, one text or a list of texts. Where it holds ``correct``
    (of the same form), only what is right demonstrates. ``prompt`` tells prompts of other tasks.

    Args:
      path: a file (``.gz`` too), or a pattern of files such as ``demos/*.jsonl``.
      key: the config's key, for errors.

    Raises:
      ConfigError: no such file, or a line that is not of this form.
    """
    files = [path] if Path(path).is_file() else sorted(glob.glob(path))
    if not files:
        raise ConfigError(f"{key}={path!r}: no such file; valid: JSON lines, as sdd sample writes them")
    texts: dict[str, list[str]] = {}
    prompts: dict[str, str] = {}
    for file in files:
        for number, record in _records(file, key):
            where = f"{key}: {file}:{number}"
            prompt_id, shown = record.get("prompt_id"), _right(record, where)
            if not isinstance(prompt_id, str):
                raise ConfigError(f"{where}: prompt_id is {prompt_id!r:.40}; valid: a text")
            texts.setdefault(prompt_id, []).extend(shown)
            if isinstance(record.get("prompt"), str):
                prompts[prompt_id] = record["prompt"]
    return Written({name: found for name, found in texts.items() if found}, prompts)


def _records(file: str, key: str) -> Iterator[tuple[int, dict[str, Any]]]:
    opener = gzip.open if file.endswith(".gz") else open
    try:
        with opener(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except ValueError:
                    record = None
                if not isinstance(record, dict):
                    raise ConfigError(f"{key}: {file}:{number}: not a JSON object; valid: one a line")
                yield number, record
    except (OSError, EOFError) as error:
        raise ConfigError(f"{key}: {file} cannot be read ({error})") from None


def _right(record: Mapping[str, Any], where: str) -> list[str]:
    """The completions of a line that demonstrate."""
    texts = record.get("completion")
    texts = texts if isinstance(texts, list) else [texts]
    correct = record.get("correct", True)
    correct = correct if isinstance(correct, list) else [correct] * len(texts)
    if not all(isinstance(text, str) for text in texts):
        raise ConfigError(f"{where}: completion is {record.get('completion')!r:.40}; valid: a text or texts")
    if len(correct) != len(texts):
        raise ConfigError(f"{where}: {len(correct)} entries of correct; valid: {len(texts)}, as completions")
    return [text for text, is_right in zip(texts, correct, strict=True) if is_right]


def tokens(task: Task, text: str) -> np.ndarray:
    """A demonstration's ids as a response has them, at most ``task.response_length``; the rest is cut."""
    return np.asarray(task.tokenizer.encode(text), np.int32)[: task.response_length]


def check(written: Written, task: Task, examples: Sequence[Example], least: float, what: str) -> None:
    """Refuses demonstrations of another task, and too few of them.

    Args:
      written: what `read` found.
      task: the task that is trained on.
      examples: those that training will meet.
      least: share of them that must have a demonstration.
      what: names the demonstrations, for errors.

    Raises:
      ConfigError: one line.
    """
    covered = [example for example in examples if example["prompt_id"] in written.texts]
    for example in covered:
        name = example["prompt_id"]
        if name in written.prompts and written.prompts[name] != task.tokenizer.decode(task.prompt(example)):
            raise ConfigError(
                f"{what}: {name} is another prompt there than in the task {task.name}; "
                "valid: demonstrations of the same task, data and seed"
            )
        try:
            tokens(task, written.texts[name][0])
        except ValueError as error:
            raise ConfigError(f"{what}: {name}: the demonstration cannot be read ({error})") from None
    if not covered or len(covered) < least * len(examples):
        raise ConfigError(
            f"{what}: demonstrations for {len(covered)} of the {len(examples)} prompts that training meets; "
            f"valid: for a share of at least config.step.coverage={least}"
        )


def draw(
    counts_B: Sequence[int], rng_B: Sequence[np.random.Generator], group_size: int, num_demos: int
) -> np.ndarray:
    """Up to K demonstrations of its prompt for every rollout, uniformly and without replacement.

    Returns:
      index_NxK: int32, numbers below the prompt's count, -1 for none.
    """
    index_NxK = np.full((len(counts_B) * group_size, num_demos), -1, np.int32)
    for row, index_K in enumerate(index_NxK):
        prompt = row // group_size
        found = rng_B[prompt].permutation(counts_B[prompt])[:num_demos]
        index_K[: len(found)] = found
    return index_NxK
