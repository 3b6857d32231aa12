"""A study: one warm start a seed, several methods from it, and a report that compares them."""

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import rich.console
from rich.markup import escape

from sdd import loop, report
from sdd.config import RunConfig
from sdd.terminal import shown

WARM_START = "warm_start"


def run(
    warm_start: RunConfig,
    methods: Mapping[str, RunConfig],
    workdir: str | Path,
    *,
    seeds: int = 1,
    console: rich.console.Console | None = None,
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
      console: where to say what happens.

    Returns:
      The claims, as in ``claims.json``; of several processes the first writes them, and the others return {}.
    """
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
                console.print(f"[bold]seed {seed}: {escape(shown(name))}[/]", highlight=False)
            loop.run(config, folder / name, console, data_dir=folder / "data")
    if jax.process_index() != 0:
        return {}
    claims = report.write_study_report(workdir, console)
    minutes = (time.monotonic() - began) / 60
    console.print(f"{escape(shown(workdir / 'report.html'))}  ({minutes:.1f} minutes)", highlight=False)
    return claims
