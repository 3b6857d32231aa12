"""Reading run folders and study folders: records in, arrays out.

A run folder is what ``sdd.loop`` writes; a study folder holds
``seed_<s>/<method>/`` run folders whose runs of one seed share the evaluation
prompts (``prompt_id`` joins them). Every problem with a file is a ``ValueError``
of one line that names the file, and the line where there is one.

Shapes: ``B`` prompts of a split, ``N`` samples a prompt.
"""

import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdd.metrics.strategies import numbered

START = "warm_start"
_COUNTABLE = 256  # strategies that a task lists; more are told apart within a prompt only
_LISTS = ("completion", "correct", "strategy", "token_entropy", "num_tokens")


@dataclasses.dataclass(frozen=True)
class EvaluationRollouts:
    """The graded rollouts of one split at one evaluation.

    Attributes:
      prompt_ids: B names; they join the runs of one seed.
      correct_BxN: bool.
      strategy_BxN: int32, index into ``strategies``; -1 where none could be told.
      strategies: names, sorted; the numbering is this file's own.
      token_entropy_BxN: float64, nats, mean over the tokens of a rollout.
      num_tokens_BxN: int32.
      listed: False where there are too many strategies to list: ``strategies`` are then
        numbers within a prompt, which mean nothing in another file.
    """

    prompt_ids: tuple[str, ...]
    correct_BxN: np.ndarray
    strategy_BxN: np.ndarray
    strategies: tuple[str, ...]
    token_entropy_BxN: np.ndarray
    num_tokens_BxN: np.ndarray
    listed: bool = True

    @property
    def num_samples(self) -> int:
        return int(self.correct_BxN.shape[1])

    def take(self, prompt_ids: list[str]) -> "EvaluationRollouts":
        """The rows of these prompts, in this order (KeyError for an unknown one)."""
        row = {name: i for i, name in enumerate(self.prompt_ids)}
        rows = np.array([row[name] for name in prompt_ids], dtype=np.int64)
        return dataclasses.replace(
            self,
            prompt_ids=tuple(prompt_ids),
            correct_BxN=self.correct_BxN[rows],
            strategy_BxN=self.strategy_BxN[rows],
            token_entropy_BxN=self.token_entropy_BxN[rows],
            num_tokens_BxN=self.num_tokens_BxN[rows],
        )


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder. Small files are read at once, rollouts when asked for.

    Attributes:
      evaluations: one record a (step, split), sorted by step then as written; of
        repeated ones (a resumed run) the last.
      events: records of ``events.jsonl``; empty where the file is not there.
      tolerant: lines that cannot be read are left out, since the run is still being written.
    """

    path: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    evaluations: tuple[dict[str, Any], ...]
    events: tuple[dict[str, Any], ...]
    tolerant: bool = False
    _cache: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(e["split"] for e in self.evaluations))

    @property
    def last_step(self) -> int:
        """Step of the last evaluation; -1 where there is none."""
        return max((e["step"] for e in self.evaluations), default=-1)

    @property
    def num_steps(self) -> int | None:
        """Steps that the config asked for; None where it does not say."""
        return (self.config.get("train") or {}).get("num_steps")

    @property
    def finished(self) -> bool:
        return self.last_step >= 0 and self.num_steps in (None, self.last_step)

    def steps(self, split: str) -> tuple[int, ...]:
        """Steps at which a split was evaluated, ascending."""
        return tuple(e["step"] for e in self.evaluations if e["split"] == split)

    def evaluation(self, split: str, step: int | None = None) -> dict[str, Any] | None:
        """The record of a split at a step (default: the last), or None."""
        step = self.last_step if step is None else step
        return next((e for e in self.evaluations if (e["step"], e["split"]) == (step, split)), None)

    def rollouts_path(self, split: str, step: int | None = None) -> Path:
        step = self.last_step if step is None else step
        return self.path / "rollouts" / f"step_{step:06d}" / f"{split}.jsonl"

    def rollouts(self, split: str, step: int | None = None) -> EvaluationRollouts:
        """Rollouts of a split at a step (default: the last), parsed once."""
        path = self.rollouts_path(split, step)
        if path not in self._cache:
            self._cache[path] = read_rollouts(path, self.tolerant)
        return self._cache[path]

    def examples(self, split: str, count: int, step: int | None = None) -> list[dict[str, Any]]:
        """The first records of a rollouts file, texts included."""
        return list(itertools.islice(_records(self.rollouts_path(split, step), (), self.tolerant), count))

    def train_metrics(self) -> list[dict[str, Any]]:
        """Records of ``metrics.jsonl``, one a train step; empty where it is not there."""
        return self._lines("metrics.jsonl")

    def timings(self) -> list[dict[str, Any]]:
        """Records of ``timings.jsonl``, one a train step; empty where it is not there."""
        return self._lines("timings.jsonl")

    def _lines(self, name: str) -> list[dict[str, Any]]:
        if name not in self._cache:
            path = self.path / name
            self._cache[name] = list(_records(path, ("step",), self.tolerant)) if path.exists() else []
        return self._cache[name]


@dataclasses.dataclass(frozen=True)
class Study:
    """Seeds -> method name -> run."""

    path: Path
    seeds: dict[int, dict[str, Run]]

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of all methods that any seed has, the starting model first."""
        found = dict.fromkeys(name for runs in self.seeds.values() for name in runs)
        return tuple(sorted(found, key=lambda name: (name != START, _ORDER.get(name, 99), name)))

    @property
    def splits(self) -> tuple[str, ...]:
        runs = (run for runs in self.seeds.values() for run in runs.values())
        return tuple(dict.fromkeys(split for run in runs for split in run.splits))

    def of_method(self, method: str) -> dict[int, Run]:
        """Seed -> run of one method, where it is there."""
        return {seed: runs[method] for seed, runs in self.seeds.items() if method in runs}


_ORDER = {"grpo": 0, "grpo_diversity": 1, "sdsd_k1": 2, "sdsd_k3": 3}


def load_run(path: str | Path, tolerant: bool = False) -> Run:
    """Reads a run folder.

    Args:
      tolerant: of a run that is still being written: what is missing or torn is left out.

    Raises:
      ValueError: one line, for a missing or torn ``config.json`` or
        ``evaluations.jsonl``, or a torn other file.
    """
    path = Path(path)
    evaluations: dict[tuple[int, str], dict[str, Any]] = {}
    lines = path / "evaluations.jsonl"
    if lines.exists() or not tolerant:
        for record in _records(lines, ("step", "split", "metrics"), tolerant):
            evaluations[record["step"], record["split"]] = record
    events = path / "events.jsonl"
    environment = path / "environment.json"
    return Run(
        path=path,
        config=_read_json(path / "config.json", tolerant),
        environment=_read_json(environment, tolerant) if environment.exists() else {},
        evaluations=tuple(sorted(evaluations.values(), key=lambda record: record["step"])),
        events=tuple(_records(events, ("event",), tolerant)) if events.exists() else (),
        tolerant=tolerant,
    )


def load_study(path: str | Path, tolerant: bool = False) -> Study:
    """Reads ``<study>/seed_<s>/<method>/``; a method that is not there is left out.

    Args:
      tolerant: as in `load_run`.

    Raises:
      ValueError: one line, where there is no run at all or a run's file is broken.
    """
    path = Path(path)
    folders = sorted(
        (int(match[1]), folder)
        for folder in (path.iterdir() if path.is_dir() else ())
        if folder.is_dir() and (match := re.fullmatch(r"seed_(\d+)", folder.name))
    )
    seeds = {
        seed: {
            run.name: load_run(run, tolerant)
            for run in sorted(folder.iterdir())
            if run.is_dir() and (run / "config.json").exists()
        }
        for seed, folder in folders
    }
    seeds = {seed: runs for seed, runs in seeds.items() if runs}
    if not seeds:
        raise ValueError(f"{path}: no runs found; a study folder holds seed_<number>/<method>/config.json")
    return Study(path, seeds)


def read_rollouts(path: str | Path, tolerant: bool = False) -> EvaluationRollouts:
    """Parses a rollouts file into arrays; with ``tolerant`` lines that cannot be read are left out.

    Raises:
      ValueError: one line, for a missing, torn or empty file, a repeated prompt_id,
        or a row whose number of samples differs.
    """
    path = Path(path)
    rows: dict[str, list[list[Any]]] = {}
    names: dict[str, int] = {}
    num_samples = -1
    for number, record in enumerate(_records(path, ("prompt_id", *_LISTS), tolerant), 1):
        columns = [record[key] for key in _LISTS]
        num_samples = len(columns[0]) if num_samples < 0 else num_samples
        if num_samples == 0 or any(len(column) != num_samples for column in columns):
            lengths = ", ".join(f"{key} {len(column)}" for key, column in zip(_LISTS, columns, strict=True))
            raise ValueError(f"{path}:{number}: expected {num_samples or '>= 1'} samples, found {lengths}")
        prompt_id = str(record["prompt_id"])
        if prompt_id in rows:
            raise ValueError(f"{path}:{number}: prompt_id {prompt_id!r} occurs twice")
        for name in record["strategy"]:
            if name is not None:
                names.setdefault(name, len(names))
        rows[prompt_id] = columns[1:]
    if not rows:
        raise ValueError(f"{path}: holds no rollouts")
    correct, strategy, entropy, num_tokens = zip(*rows.values(), strict=True)
    strategies, strategy_BxN = _numbered(sorted(names), strategy)
    return EvaluationRollouts(
        prompt_ids=tuple(rows),
        correct_BxN=np.array(correct, dtype=bool),
        strategy_BxN=strategy_BxN,
        strategies=strategies,
        token_entropy_BxN=np.array(entropy, dtype=np.float64),
        num_tokens_BxN=np.array(num_tokens, dtype=np.int32),
        listed=len(names) <= _COUNTABLE,
    )


def _numbered(
    names: Sequence[str], rows: Sequence[Sequence[str | None]]
) -> tuple[tuple[str, ...], np.ndarray]:
    """(names of the strategies, BxN their numbers, -1 for none).

    Where strategies cannot be listed each prompt's are numbered by themselves: counts are B x S.
    """
    if len(names) <= _COUNTABLE:
        ids: dict[str | None, int] = {None: -1, **{name: i for i, name in enumerate(names)}}
        return tuple(names), np.array([[ids[name] for name in row] for row in rows], dtype=np.int32)
    strategy_BxN = np.array([numbered(row) for row in rows], dtype=np.int32)
    return tuple(f"way {i + 1}" for i in range(int(strategy_BxN.max()) + 1)), strategy_BxN


def shared_prompts(rollouts: list[EvaluationRollouts]) -> list[EvaluationRollouts]:
    """The same prompts of each, in the same order (those that all of them have)."""
    known = set.intersection(*(set(r.prompt_ids) for r in rollouts))
    shared = [prompt_id for prompt_id in rollouts[0].prompt_ids if prompt_id in known]
    return [r.take(shared) for r in rollouts]


def _read_json(path: Path, tolerant: bool = False) -> dict[str, Any]:
    if tolerant:
        try:
            return _read_json(path)
        except ValueError:
            return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: file is missing") from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def _records(path: Path, required: tuple[str, ...] = (), tolerant: bool = False) -> Iterator[dict[str, Any]]:
    """Objects of a JSONL file; blank lines are skipped, and with ``tolerant`` those that are not one."""
    try:
        # Bytes, so that a character cut in half is a torn line like any other.
        lines = path.open("rb")
    except FileNotFoundError:
        raise ValueError(f"{path}: file is missing") from None
    with lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                if tolerant:
                    continue
                torn = "" if line.endswith(b"\n") else " (torn: the last line has no end)"
                raise ValueError(f"{path}:{number}: not valid JSON{torn}") from None
            missing = [key for key in required if not isinstance(record, dict) or key not in record]
            if missing and tolerant:
                continue
            if missing:
                raise ValueError(f"{path}:{number}: lacks {', '.join(missing)}")
            yield record
