"""sdd run experiments/study/scale.py --workdir=runs/scale

Is the loss of diversity under self-distillation general, and does it depend on scale? Every task x size x
seed has a warm start and every method from it; ``scale.json`` and ``scale.png`` answer. A study that was
stopped goes on with the same command. The seeds come one after the other, and after each cell the answer is
written anew.

    a first answer        --config.quick=True
    more seeds            --seeds=3
    a part of it          --config.tasks=countdown --config.sizes=small,large
"""

import dataclasses
from pathlib import Path

import ml_collections

from experiments.study.scale_base import METHODS, SIZES, TASKS, method, warm_start

WARM_START = "warm_start"


def get_config() -> ml_collections.ConfigDict:
    """Returns what is swept; the settings of each run are in ``scale_base.py``."""
    return ml_collections.ConfigDict(
        {
            "seed": 0,  # of the first seed; the others follow it
            "tasks": tuple(TASKS),
            "sizes": tuple(SIZES),
            "methods": METHODS,
            "quick": False,  # fewer steps, fewer questions in evaluations
        }
    )


def resolve(study: ml_collections.ConfigDict) -> dict:
    """Returns (task, size) -> name -> checked `sdd.config.RunConfig`; the warm start comes first.

    Raises:
      ConfigError: one line that names a key, its value and what is valid.
    """
    from sdd import config

    known = {"tasks": tuple(TASKS), "sizes": tuple(SIZES), "methods": METHODS}
    for key, valid in known.items():
        for name in study[key]:
            if name not in valid:
                raise config.ConfigError(f"config.{key}: there is no {name!r}; valid: {', '.join(valid)}")
    cells = {}
    for task in study.tasks:
        for size in study.sizes:
            configs = {WARM_START: warm_start(task, size)}
            configs |= {name: method(task, size, name) for name in study.methods}
            for c in configs.values():
                c.seed = study.seed
                if study.quick:
                    _shorten(c)
            cells[task, size] = {name: config.resolve(c) for name, c in configs.items()}
    return cells


def _shorten(c: ml_collections.ConfigDict) -> None:
    """Fewer steps, smaller batches of the warm start, and few small evaluations, in place."""
    warm = c.step.name == "sdd.steps.sft"
    c.train.num_steps = 800 if warm else 300
    c.train.prompts_per_step = 16
    c.train.checkpoint_every = 0
    c.train.log_every = 10
    # All of one size, so that one program serves them; the teacher is watched from the start.
    c.eval.every = c.train.num_steps if c.step.name == "sdd.steps.sdsd" else 0
    c.eval.num_prompts = c.eval.final_num_prompts = 128
    c.eval.num_samples = c.eval.final_num_samples = 32
    c.eval.bootstrap = 200


def run(config: ml_collections.ConfigDict, workdir: str, seeds: int = 1) -> None:
    """Runs what is not finished yet, and writes the answer after each cell; ``sdd run`` calls this.

    Args:
      config: as `get_config` returns it, perhaps changed by flags.
      workdir: the study's folder; runs are ``TASK/SIZE/seed_N/NAME`` in it.
      seeds: how many seeds, from ``config.seed`` on.
    """
    cells = resolve(config)  # first: a slip is answered before anything heavy is imported
    import rich.console

    from experiments.study.scale_figure import draw
    from sdd import loop
    from sdd.claims import scale

    console = rich.console.Console()
    root = Path(workdir).absolute()
    for seed in range(config.seed, config.seed + seeds):
        for (task, size), runs in cells.items():
            folder = root / task / size / f"seed_{seed}"
            for name, settings in runs.items():
                settings = dataclasses.replace(settings, seed=seed)
                if name != WARM_START:
                    train = dataclasses.replace(settings.train, init_from=str(folder / WARM_START))
                    settings = dataclasses.replace(settings, train=train)
                console.print(f"[bold]{task}, {size}, seed {seed}: {name}[/]", highlight=False)
                loop.run(settings, folder / name, console, data_dir=folder / "data")
            answer = scale.write(root)
            (root / "scale.png").write_bytes(draw(answer))
    console.print(f"{answer['paragraph']}\n{root / 'scale.json'}", highlight=False, markup=False)
