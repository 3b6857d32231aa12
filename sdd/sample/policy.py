"""A policy to sample from: a run's checkpoint, or the weights that an experiment file names."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import rich.console
from etils import epath

from sdd import checkpoint, experiment, initial, lookup, overrides, runfolder
from sdd import config as config_lib
from sdd.build import make_parts
from sdd.config import ConfigError, RunConfig
from sdd.data import first_met
from sdd.job import Job
from sdd.tasks.base import TRAIN, Example
from sdd.types import Params
from sdd.writers import Writers


@contextlib.contextmanager
def opened(
    source: str | Path, changes: Sequence[str] = (), step: int | None = None, data_dir: str | None = None
) -> Iterator[tuple[Job, Params, int]]:
    """Loads a policy, on the devices that there are; nothing is written to its folder.

    Args:
      source: a run's folder, or an experiment file whose config.train.init_from names the weights.
      changes: ``--config.KEY=VALUE``, of either's config.
      step: which checkpoint of a run; None: the newest.
      data_dir: where the task's data are prepared. None: where the run or its study keeps them, or else
        in the user's cache.

    Yields:
      ``(job, params, step)``: the job writes no logs; the step is 0 for an experiment file.

    Raises:
      ConfigError: nothing of these is there, or it cannot be used; one line.
    """
    folder = runfolder.folder(source)
    if str(source).endswith(".py"):
        config, steps = _of_experiment(str(source), changes, step), [0]
    else:
        config, steps = _of_run(folder, changes), checkpoint.steps_of(folder)
    step = steps[-1] if step is None else step
    if step not in steps:
        raise ConfigError(
            f"--step={step}: {source} has checkpoints of the steps {', '.join(map(str, steps))}"
        )
    parts = make_parts(config, Path(data_dir) if data_dir else _data(folder))
    job = Job(config, folder, parts, Writers({}), rich.console.Console(stderr=True), lambda: False)
    with jax.set_mesh(parts.mesh):
        like = initial.abstract_state(parts).params
        if str(source).endswith(".py"):
            params = initial.read_params(config, parts, like)
        else:
            params = checkpoint.restore_params(folder, like, step)
        yield job, params, step


def _of_experiment(file: str, changes: Sequence[str], step: int | None) -> RunConfig:
    if step is not None:
        raise ConfigError(f"--step={step}: {file} is no run; valid: a run's folder, or no --step")
    values = overrides.apply(experiment.get_config(experiment.load(file)), changes)
    config = config_lib.resolve(values)
    if not config.train.init_from:
        raise ConfigError(
            f"{file}: which weights? valid: --config.train.init_from=FOLDER or FILE.gguf, or a run's folder"
        )
    return config


def _of_run(folder: epath.Path, changes: Sequence[str]) -> RunConfig:
    file = folder / "config.json"
    try:
        values: dict[str, Any] = json.loads(file.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"{folder}: no config.json; valid: a run's folder, or an experiment file (.py) with "
            "--config.train.init_from=WEIGHTS"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read ({error}); valid: the config.json of a run") from None
    if not isinstance(values, dict) or "task" not in values:
        raise ConfigError(f"{file}: not of a run; valid: a run's folder, or an experiment file (.py)")
    # Once through the dataclasses: what JSON cannot say (tuples) is as the keys have it.
    known = ml_collections.ConfigDict(config_lib.to_dict(config_lib.from_dict(values)))
    return config_lib.resolve(overrides.apply(known, changes))


def _data(folder: epath.Path) -> Path:
    """The data of a run, or those that its study shares; where neither is, a folder in the user's cache."""
    found = (Path(place) / "data" for place in (folder, folder.parent))
    return next((place for place in found if place.is_dir()), runfolder.cached_data_folder(folder))


def examples(job: Job, split: str, num_prompts: int | None) -> list[Example]:
    """Prompts of a split: of an evaluation split the first ones, of the training split those met first.

    Args:
      job: whose task, and whose order of training prompts.
      split: "train" or an evaluation split.
      num_prompts: how many; None: as many as the run's final evaluation, or all that its training meets.

    Raises:
      ConfigError: no such split, or fewer prompts; one line.
    """
    task, config = job.parts.task, job.config
    splits = (TRAIN, *task.splits)
    if split not in splits:
        near = lookup.nearest(split, splits)
        raise ConfigError(f"--split={split}: {task.name} has no such split{near}; valid: {', '.join(splits)}")
    source = task.source(split)
    if num_prompts is not None and not 1 <= num_prompts <= len(source):
        raise ConfigError(
            f"--num_prompts={num_prompts}: the split {split!r} of {task.name} has {len(source)} prompts; "
            f"valid: 1 to {len(source)}"
        )
    if split != TRAIN:
        return [source[i] for i in range(num_prompts or config.eval.final_num_prompts)]
    per_step, steps = config.train.prompts_per_step, config.train.num_steps
    if num_prompts is not None:
        steps = -(-len(source) // per_step)  # an epoch holds every prompt
    places = first_met(len(source), batch_size=per_step, num_batches=steps, seed=config.seed)
    return [source[i] for i in places[:num_prompts]]
