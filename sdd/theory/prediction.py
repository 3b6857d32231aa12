"""C8: changes of log-ratios among equally correct answers, predicted at the start, measured at the end."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sdd import information, weights
from sdd import mesh as mesh_lib
from sdd.build import make_task
from sdd.claims.fits import Predicted, fits
from sdd.claims.predicted import FILE
from sdd.claims.runs import Run, load_run
from sdd.config import RunConfig, from_dict
from sdd.metrics.reduce import Estimate
from sdd.model import make as make_model
from sdd.tasks.base import Example, Task
from sdd.theory import optima
from sdd.types import Params
from sdd.writers import write_json_atomic

PREDICTIONS = {
    "given": "SDSD optimum, demonstrations of the start",
    "own": "SDSD optimum, demonstrations of its own",
    "start": "the start's own log-ratio: the likelier gains",
}
"""Fields of `Pairs` that a measurement is compared with; the last is no theory, but what to beat."""

_CONTEXTS_PER_CALL = 64
_BLOCK = 32


class Pairs(NamedTuple):
    """Pairs of different right answers to a prompt, each pair once; the order within one is arbitrary.

    Attributes:
      prompt_X: int, which prompt.
      measured_X: nats, change of log pi(a|x) / pi(b|x) from the start to the end.
      given_X: nats, as SDSD predicts it, demonstrations drawn from the start's policy.
      own_X: nats, as SDSD predicts it when the policy demonstrates to itself until nothing changes.
      start_X: nats, log pi(a|x) / pi(b|x) at the start.
    """

    prompt_X: np.ndarray
    measured_X: np.ndarray
    given_X: np.ndarray
    own_X: np.ndarray
    start_X: np.ndarray


class Listed(NamedTuple):
    """Right answers to the prompts that have at least two.

    Attributes:
      examples: B of them.
      answers: each prompt's different right answers, as tokens.
    """

    examples: Sequence[Example]
    answers: Sequence[Sequence[np.ndarray]]


def load_task(start: Run) -> tuple[RunConfig, Task]:
    """The config and task of a run; its data are read from its own folder, or the one that a study shares.

    Raises:
      ValueError: the data are not there.
    """
    config = from_dict(start.config)
    folders = [start.path / "data", start.path.parent / "data"]
    data = next((folder for folder in folders if folder.is_dir()), None)
    if data is None:
        raise ValueError(f"{start.path}: no data; valid: a run with data in {folders[0]} or {folders[1]}")
    return config, make_task(config, data)


def right_answers(start: Run, task: Task, split: str, num_prompts: int, most: int = 8) -> Listed:
    """Different right answers among the last rollouts of a run, the most frequent first, at most ``most``.

    A prompt with fewer than two is left out. Texts are encoded again, and end in a stop token.

    Raises:
      ValueError: no prompt has two; or the run lacks rollouts.
    """
    source = task.source(split)
    by_id = {example["prompt_id"]: example for example in map(source.__getitem__, range(len(source)))}
    examples, answers = [], []
    for record in start.examples(split, num_prompts):
        right = Counter(
            text for text, correct in zip(record["completion"], record["correct"], strict=True) if correct
        )
        if len(right) < 2 or record["prompt_id"] not in by_id:
            continue
        examples.append(by_id[record["prompt_id"]])
        answers.append([_tokens(task, text) for text, _ in right.most_common(most)])
    if not examples:
        raise ValueError(
            f"{start.path}: no prompt of split {split!r} has two different right answers in the last rollouts"
        )
    return Listed(examples, answers)


def _tokens(task: Task, text: str) -> np.ndarray:
    ids = list(task.tokenizer.encode(text))
    if not ids or ids[-1] not in task.tokenizer.stop_ids:
        ids.append(task.tokenizer.stop_ids[0])
    return np.array(ids, np.int32)


def load_params(run: Run, task: Task, mesh: jax.sharding.Mesh) -> tuple[Any, Params]:
    """The model of a run and the parameters of its newest checkpoint; call it under ``jax.set_mesh``."""
    model = make_model(from_dict(run.config).model, task.tokenizer.vocab_size)
    return model, weights.load_params(run.path, model, mesh)


def informed(
    model: Any, params: Params, task: Task, mesh: jax.sharding.Mesh, listed: Listed
) -> information.Information:
    """log pi(y|x) and log pi(y|x, d) of listed answers; prompts with fewer are filled up with their first."""
    most = max(map(len, listed.answers))
    longest = max(len(row) for rows in listed.answers for row in rows)
    tokens = np.zeros((len(listed.answers) * most, longest), np.int32)
    mask = np.zeros(tokens.shape, bool)
    for b, rows in enumerate(listed.answers):
        for m in range(most):
            row = rows[m] if m < len(rows) else rows[0]
            tokens[b * most + m, : len(row)], mask[b * most + m, : len(row)] = row, True
    multiple = mesh_lib.row_multiple(mesh)
    measure = information.make(
        model, task, mesh, contexts_per_call=-(-_CONTEXTS_PER_CALL // multiple) * multiple, block_size=_BLOCK
    )
    return measure(params, listed.examples, tokens, mask)


def compare(
    sizes: Sequence[int], start: information.Information, end: information.Information, beta: float = 0.0
) -> Pairs:
    """Predictions from the start's likelihoods against what changed.

    Args:
      sizes: how many answers of each prompt are real.
      start: of the network before.
      end: of the network after, on the same answers.
      beta: of the SDSD optimum; 0 is what `sdd.steps.sdsd` trains to.
    """
    columns: list[list[np.ndarray]] = [[], [], [], [], []]
    for b, size in enumerate(sizes):
        logp_C = start.logp_BxM[b, :size].astype(np.float64)
        taught_CxC = start.conditional_logp_BxMxM[b, :size, :size].T  # [d, y]
        gains = optima.sdsd_gains(logp_C, taught_CxC, beta)
        measured_C = end.logp_BxM[b, :size] - logp_C
        first, second = np.triu_indices(size, 1)
        changes = [optima.differences(gain_C)[first, second] for gain_C in (measured_C, *gains, logp_C)]
        for column, values in zip(columns, [np.full(len(first), b), *changes], strict=True):
            column.append(values)
    return Pairs(*(np.concatenate(column) for column in columns))


def agreement(pairs: Pairs, name: str, seed: int = 0) -> dict[str, Estimate]:
    """How well a prediction fits, see `sdd.claims.fits.fits`; z is the start's log-ratio.

    Args:
      pairs: what is compared.
      name: one of `PREDICTIONS`; "start" has no partial correlation.
      seed: of the resamples.
    """
    columns = Predicted(pairs.prompt_X, getattr(pairs, f"{name}_X"), pairs.measured_X, pairs.start_X)
    found = fits([columns], seed)
    return {key: value for key, value in found.items() if (name, key) != ("start", "partial")}


def summary(pairs: Pairs) -> dict[str, Any]:
    """Plain values: counts, root mean squares in nats, `agreement` of each prediction; nan becomes None."""
    rms = lambda x_X: float(np.sqrt(np.mean(x_X**2)))  # noqa: E731
    found: dict[str, Any] = {
        "prompts": len(np.unique(pairs.prompt_X)),
        "pairs": len(pairs.prompt_X),
        "measured_rms": rms(pairs.measured_X),  # the RL optimum predicts 0
    }
    for name in PREDICTIONS:
        fits = {key: _plain(estimate) for key, estimate in agreement(pairs, name).items()}
        found[name] = {"rms": rms(getattr(pairs, f"{name}_X"))} | fits
    return found


def _plain(estimate: Estimate) -> dict[str, float | None]:
    return {end: value if np.isfinite(value) else None for end, value in estimate._asdict().items()}


def predict(start: Run, ends: Sequence[Run], split: str, num_prompts: int) -> dict[str, Pairs]:
    """Pairs of each trained run, by the name of its folder, from the right answers of the start's rollouts.

    Raises:
      ValueError: see `load_task` and `right_answers`; an unknown split.
      ConfigError: a checkpoint that cannot be read.
    """
    config, task = load_task(start)
    if split not in task.splits:
        raise ValueError(f"split {split!r} is not one of {task.name}; valid: {', '.join(task.splits)}")
    listed = right_answers(start, task, split, num_prompts)
    mesh = mesh_lib.make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        each = [informed(*load_params(run, task, mesh), task, mesh, listed) for run in (start, *ends)]
    sizes = [len(rows) for rows in listed.answers]
    return {_name(run): compare(sizes, each[0], end) for run, end in zip(ends, each[1:], strict=True)}


def record(start: Run, split: str, pairs_of: Mapping[str, Pairs]) -> dict[str, Any]:
    """What theory.json holds: the summary of each run, and its pairs (nats, rounded to 4 decimals)."""
    columns = {
        name: {
            field.removesuffix("_X"): np.round(column, 4).tolist()
            for field, column in pairs._asdict().items()
        }
        for name, pairs in pairs_of.items()
    }
    runs = {name: summary(pairs) for name, pairs in pairs_of.items()}
    return {"start": str(start.path), "split": split, "runs": runs, "pairs": columns}


def write(folder: Path, start: str, ends: Sequence[str], num_prompts: int = 128) -> None:
    """Writes ``theory.json`` into the folder of a seed, for runs in it; what it holds already is kept.

    Args:
      folder: holds the run folders.
      start: name of the run that the others were trained from.
      ends: names of finished runs.
      num_prompts: at most, of the first split.

    Raises:
      ValueError: see `predict`; or a ``theory.json`` that is broken.
    """
    path = folder / FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"runs": {}, "pairs": {}}
    new = [name for name in ends if name not in known["pairs"]]
    if not new:
        return
    begun = load_run(folder / start)
    split = begun.splits[0]
    found = record(begun, split, predict(begun, [load_run(folder / n) for n in new], split, num_prompts))
    write_json_atomic(path, found | {key: known[key] | found[key] for key in ("runs", "pairs")})


def _name(run: Run) -> str:
    return Path(run.path).name
