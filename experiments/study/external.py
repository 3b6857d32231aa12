"""sdd run experiments/study/external.py --workdir=runs/external --seeds=5

Claim C6: do demonstrations from outside, from policies of differing diversity, keep SDSD's student diverse?

For each seed a warm start, GRPO, and GRPO with diversity bonuses. Each of these policies writes a set of
demonstrations of the training prompts, and a student learns from each set, from the same warm start, with
SDSD's settings; SDSD itself is the reference. Runs that a study folder holds already are used, so that
--workdir may be the folder of ``experiments/concept_graph/study.py``. What it finds: external.json,
external.png.

    another study's runs       copy its seed_N folders to the workdir first
    see that it runs           --config.quick (minutes; its numbers mean nothing)
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import ml_collections

from experiments.concept_graph import grpo_diversity, sdsd, study
from experiments.concept_graph.base import on_policy
from sdd import study as study_lib

if TYPE_CHECKING:
    from sdd.config import RunConfig

BONUSES = (2.0,)  # beside that of grpo_diversity
REFERENCE = "sdsd_k1"
STUDENT = "sdft_"  # and the name of the run whose demonstrations it reads


def get_config() -> ml_collections.ConfigDict:
    """Returns the study; keys as in `sdd.study.config`, and those of the sets."""
    paper = study.get_config().experiments
    methods = {name: paper[name] for name in (REFERENCE, "grpo", "grpo_diversity")}
    for bonus in BONUSES:
        method = methods[f"grpo_diversity_{bonus:g}"] = grpo_diversity.get_config()
        method.step.bonus = bonus
        method.eval.every = 0  # only after the last step
    writers = [study_lib.WARM_START, *(name for name in methods if name != REFERENCE)]
    c = study_lib.config(paper.warm_start, methods | {STUDENT + name: student(name) for name in writers})
    c.num_demonstrations = 8  # rollouts a prompt in a set; the right ones demonstrate
    c.quick = False
    return c


def student(writer: str) -> ml_collections.ConfigDict:
    """Returns SDSD's settings, with the demonstrations of a run instead of the group's own."""
    c = on_policy("sdd.steps.sdft")
    own = sdsd.get_config().step
    c.step.update({key: own[key] for key in own if key != "name"})
    c.step.demonstrations = writer
    c.eval.every = 0
    return c


def resolve(config: ml_collections.ConfigDict) -> dict:
    """Returns name -> checked `sdd.config.RunConfig`; a student's demonstrations are named by their writer.

    Raises:
      ConfigError: one line that names the experiment, the key, its value and what is valid.
    """
    from sdd.config import ConfigError

    if config.num_demonstrations < 1:
        raise ConfigError(f"config.num_demonstrations={config.num_demonstrations}: must be 1 or more")
    config = config.copy_and_resolve_references()
    if config.quick:
        quick = {"warm_start_steps": 60, "num_steps": 20, "num_prompts": 16, "num_samples": 8}
        config.update(quick | {"final_num_prompts": 32, "final_num_samples": 16})
    return study_lib.resolve(config)


def run(config: ml_collections.ConfigDict, workdir: str, seeds: int = 1) -> None:
    """Runs what is not finished yet of the study, and says what it found; ``sdd run`` calls this.

    Args:
      config: as `get_config` returns it, perhaps changed by flags.
      workdir: the study's folder.
      seeds: how many seeds, from ``config.seed`` on.
    """
    runs = resolve(config)  # first: a slip is answered before anything heavy is imported
    import rich.console

    from sdd.claims import external
    from sdd.claims.runs import load_study
    from sdd.report import external as figure
    from sdd.writers import write_json_atomic

    console, folder = rich.console.Console(), Path(workdir).absolute()
    for seed in range(config.seed, config.seed + seeds):
        for name, run_config in runs.items():
            console.print(f"[bold]seed {seed}: {name}[/]", highlight=False)
            run_one(folder / f"seed_{seed}", name, run_config, seed, config.num_demonstrations, console)
    runs_of = load_study(folder)
    found = external.table(runs_of)
    write_json_atomic(folder / "external.json", {"C6": external.compute(runs_of, found), **found})
    (folder / "external.png").write_bytes(figure.draw(found))
    for name in ("external.json", "external.png"):
        console.print(str(folder / name), highlight=False)


def run_one(
    folder: Path, name: str, config: "RunConfig", seed: int, num_demonstrations: int, console
) -> None:
    """Trains one run of a seed where it is not finished; a student's demonstrations are written first."""
    from sdd import loop

    train, step = config.train, config.step
    if name != study_lib.WARM_START:
        train = dataclasses.replace(train, init_from=str(folder / study_lib.WARM_START))
    if name.startswith(STUDENT):
        path = demonstrations(folder, step.options.demonstrations, config, num_demonstrations)
        options = dataclasses.replace(step.options, demonstrations=str(path))
        step = dataclasses.replace(step, options=options)
    config = dataclasses.replace(config, seed=seed, train=train, step=step)
    if not finished(folder / name, config):
        loop.run(config, folder / name, console, data_dir=folder / "data")


def finished(folder: Path, config: "RunConfig") -> bool:
    """Whether a folder holds the run's end, wherever the study lay when it was begun."""
    from sdd.claims.runs import load_run
    from sdd.config import from_dict, to_dict

    if not (folder / "evaluations.jsonl").exists():
        return False
    found = load_run(folder)
    if not found.finished:
        return False
    theirs, mine = to_dict(from_dict(found.config)), to_dict(config)
    for values in (theirs, mine):
        values["train"].pop("init_from")
        values["step"].pop("demonstrations", None)
        values.pop("mesh"), values.pop("writers")
    return theirs == mine


def demonstrations(folder: Path, writer: str, student: "RunConfig", num_samples: int) -> Path:
    """The set that a run writes: rollouts of the training prompts that a student meets; written once."""
    from sdd.sample import policy, rollouts
    from sdd.tasks.base import TRAIN

    path = folder / "demonstrations" / f"{writer}.jsonl"
    if path.exists():
        return path
    with policy.opened(folder / writer, data_dir=str(folder / "data")) as (job, params, step):
        met = job._replace(config=dataclasses.replace(job.config, train=student.train))
        examples = policy.examples(met, TRAIN, None)
        seed = job.config.seed
        rollouts.write(
            job, params, examples, path, split=TRAIN, num_samples=num_samples, seed=seed, step=step
        )
    return path
