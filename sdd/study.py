"""A study: one warm start a seed, several methods from it, and a report that compares them.

A study's file has ``get_config``, which returns `config` of its experiments, and ``run = study.run_config``.
"""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections

from sdd.config import ConfigError, RunConfig
from sdd.config import resolve as resolve_run

WARM_START = "warm_start"

# Keys of a study that change every experiment; 0 leaves what the experiment says.
SHARED = {
    "num_steps": ("train", "num_steps"),
    "eval_every": ("eval", "every"),
    "num_prompts": ("eval", "num_prompts"),
    "num_samples": ("eval", "num_samples"),
    "final_num_prompts": ("eval", "final_num_prompts"),
    "final_num_samples": ("eval", "final_num_samples"),
}
_OF_METHODS = ("num_steps", "eval_every")  # those of SHARED that do not change the warm start


def config(
    warm_start: ml_collections.ConfigDict, experiments: Mapping[str, ml_collections.ConfigDict]
) -> ml_collections.ConfigDict:
    """The config of a study.

    Its keys: ``seed`` of the first seed (the others follow it), ``methods`` that are run, ``experiments``
    with the settings of each, ``warm_start_steps``, and those of `SHARED`, which hold for all experiments.

    Args:
      warm_start: what every method starts from.
      experiments: name -> config of a method.
    """
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "methods": tuple(experiments),
            "warm_start_steps": 0,
            **dict.fromkeys(SHARED, 0),
            "experiments": {WARM_START: warm_start, **experiments},
        }
    )


def resolve(study: ml_collections.ConfigDict) -> dict[str, RunConfig]:
    """Returns name -> checked `sdd.config.RunConfig` of the warm start, which comes first, and the methods.

    Raises:
      ConfigError: one line that names the experiment, the key, its value and what is valid.
    """
    runs = {}
    for name in (WARM_START, *study.methods):
        if name not in study.experiments:
            known = ", ".join(sorted(set(study.experiments) - {WARM_START}))
            raise ConfigError(f"config.methods: there is no experiment {name!r}; valid: {known}")
        c = study.experiments[name].copy_and_resolve_references()
        c.seed = study.seed
        for key, (section, field) in SHARED.items():
            if study[key] and not (name == WARM_START and key in _OF_METHODS):
                c[section][field] = study[key]
        if name == WARM_START and study.warm_start_steps:
            c.train.num_steps = study.warm_start_steps
        try:
            runs[name] = resolve_run(c)
        except ConfigError as error:
            raise ConfigError(f"{name}: {error}") from None
    return runs


def run_config(config: ml_collections.ConfigDict, workdir: str, seeds: int = 1) -> None:
    """Runs what is not finished yet of a study, and writes its report; ``sdd run`` calls this.

    Args:
      config: as `config` returns it, perhaps changed by flags.
      workdir: the study's folder.
      seeds: how many seeds, from ``config.seed`` on.
    """
    runs = resolve(config)  # first: a slip is answered before anything heavy is imported
    run(runs.pop(WARM_START), runs, workdir, seeds=seeds)


def run(
    warm_start: RunConfig,
    methods: Mapping[str, RunConfig],
    workdir: str | Path,
    *,
    seeds: int = 1,
    console: Any = None,
) -> dict[str, Any]:
    """Runs what is not finished yet of a study, and writes its report.

    Every seed has its own graphs, warm start, evaluation set and method runs; the
    methods of a seed share all but the method. A study that was stopped goes on where
    it was.

    Args:
      warm_start: the config of the warm start.
      methods: name -> config; they start from the warm start's parameters.
      workdir: the study's folder.
      seeds: how many seeds, counted from the config's own.
      console: a `rich.console.Console`: where to say what happens.

    Returns:
      The claims, as in ``claims.json``; of several processes the first writes them, and the others return {}.
    """
    import jax
    import rich.console
    from rich.markup import escape

    from sdd import loop, report
    from sdd.theory import prediction

    console = console or rich.console.Console()
    workdir = Path(workdir).absolute()
    began = time.monotonic()
    for seed in range(warm_start.seed, warm_start.seed + seeds):
        folder = workdir / f"seed_{seed}"
        for name, config in {WARM_START: warm_start, **methods}.items():
            config = dataclasses.replace(config, seed=seed)
            if name != WARM_START:
                train = dataclasses.replace(config.train, init_from=str(folder / WARM_START))
                config = dataclasses.replace(config, train=train)
            if jax.process_index() == 0:
                console.print(f"[bold]seed {seed}: {escape(name)}[/]", highlight=False)
            loop.run(config, folder / name, console, data_dir=folder / "data")
        if jax.process_count() == 1:
            try:
                prediction.write(folder, WARM_START, list(methods))
            except ValueError as error:  # the task has no prompts with several right answers, say
                console.print(f"no prediction of changes (C8): {escape(str(error))}", highlight=False)
    if jax.process_index() != 0:
        return {}
    claims = report.write_study_report(workdir, console)
    minutes = (time.monotonic() - began) / 60
    console.print(f"{escape(str(workdir / 'report.html'))}  ({minutes:.1f} minutes)", highlight=False)
    return claims
