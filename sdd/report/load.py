"""Folders on a command line -> one study to report on."""

import os
from collections.abc import Sequence
from pathlib import Path

from sdd.claims.runs import START, Run, Study, load_run, load_study


def load(paths: Sequence[str | Path], tolerant: bool = False) -> Study:
    """One study of a study folder, a run folder, or several of either.

    A run's seed is the one in its config. Where several folders are compared, runs of
    the same name and seed are told apart by as much of their folder's path as it takes:
    ``a/grpo`` and ``b/grpo``.

    Args:
      tolerant: as in `sdd.claims.runs.load_run`.

    Raises:
      ValueError: one line, where a folder holds no run or a file of it is broken.
    """
    folders = list({Path(path).resolve(): Path(path) for path in paths}.values())
    if len(folders) == 1:
        return _one(folders[0], tolerant)
    studies = {folder: _one(folder, tolerant) for folder in folders}
    taken: dict[tuple[int, str], int] = {}
    for study in studies.values():
        for key in _runs(study):
            taken[key] = taken.get(key, 0) + 1
    prefixes = _prefixes(list(studies))
    seeds: dict[int, dict[str, Run]] = {}
    for folder, study in studies.items():
        clash = any(taken[key] > 1 for key in _runs(study))
        for (seed, name), run in _runs(study).items():
            seeds.setdefault(seed, {})[f"{prefixes[folder]}/{name}" if clash else name] = run
    return Study(
        Path(os.path.commonpath([folder.resolve() for folder in folders])), dict(sorted(seeds.items()))
    )


def load_one_run(path: str | Path, tolerant: bool = False) -> Study:
    """A run alone, as a study; `load` with an error that speaks of a run.

    Raises:
      ValueError: one line, as `sdd.claims.runs.load_run`.
    """
    run = load_run(path, tolerant)
    seed = run.config.get("seed", 0)
    return Study(run.path, {seed if isinstance(seed, int) else 0: {run.path.resolve().name: run}})


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    return (folder / "config.json").exists()


def start_of(study: Study, method: str) -> str | None:
    """The method's starting model, or None; ``a/grpo`` started from ``a/warm_start`` if it is there."""
    prefix = method.rpartition("/")[0]
    names = (f"{prefix}/{START}", START) if prefix else (START,)
    return next((name for name in names if name in study.methods and name != method), None)


def is_start(method: str) -> bool:
    """Whether runs of this name are starting models."""
    return method.rpartition("/")[2] == START


def _one(folder: Path, tolerant: bool) -> Study:
    return load_one_run(folder, tolerant) if is_run(folder) else load_study(folder, tolerant)


def _runs(study: Study) -> dict[tuple[int, str], Run]:
    return {(seed, name): run for seed, runs in study.seeds.items() for name, run in runs.items()}


def _prefixes(folders: Sequence[Path]) -> dict[Path, str]:
    """The ends of the folders' paths that tell them apart, without what is the same at the end of all."""
    parts = {folder: folder.resolve().parts for folder in folders}
    longest, depth, same = max(map(len, parts.values())), 1, 0
    while len({p[-depth:] for p in parts.values()}) < len(parts) and depth < longest:
        depth += 1
    while same < depth - 1 and len({p[len(p) - same - 1] for p in parts.values()}) == 1:
        same += 1
    return {folder: "/".join(p[-depth : len(p) - same]) for folder, p in parts.items()}
