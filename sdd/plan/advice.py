"""What to change where a plan does not fit: a change is named only if the estimate says that it helps."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from sdd.config import ConfigError, RunConfig
from sdd.plan import plans
from sdd.plan.inputs import Sizes


def advise(plan: plans.Plan, sizes: Sizes, devices: list[Any]) -> str:
    """One line: what is too large, and the first change by which the estimate falls below the memory."""
    gb, available = 1e9, plan.topology.chip.memory
    problem = f"{plan.total / gb:.3g} GB a chip in {plan.larger}, of {available / gb:.3g} GB"
    before = plans.estimate(plan.config, sizes, plan.topology, plans.counted(plan.config, sizes, devices))
    best = ("", 0.0)
    for text, changed in changes(plan.config, plan.mesh):
        try:
            known = plans.counted(changed, sizes, devices)
        except ConfigError:
            continue
        after = plans.estimate(changed, sizes, plan.topology, known)
        # The compiler's number stands; what changes is taken from the estimates.
        left = plan.total + after.total - before.total if plan.total > before.total else after.total
        if left <= available:
            return f"{problem}; {text} needs about {left / gb:.3g} GB"
        if plan.total - left > best[1]:
            best = (f"; the most that one change saves: {text}, about {left / gb:.3g} GB", plan.total - left)
    return f"{problem}{best[0]}; more chips, or --fit"


def changes(config: RunConfig, mesh: dict[str, int]) -> Iterator[tuple[str, RunConfig]]:
    """Changes of one setting that make a plan smaller, those that cost least first."""
    train, model = config.train, config.model
    rows = train.prompts_per_step // (mesh["data"] * mesh["fsdp"])
    for parts in (n for n in range(train.micro_batches + 1, rows + 1) if rows % n == 0):
        yield (
            f"--config.train.micro_batches={parts}",
            dataclasses.replace(config, train=dataclasses.replace(train, micro_batches=parts)),
        )
    if model.remat != "full":
        remat = dataclasses.replace(model, remat="full")
        yield "--config.model.remat=full", dataclasses.replace(config, model=remat)
    if mesh["data"] > 1:
        fsdp = mesh["data"] * mesh["fsdp"]
        shape = {"data": 1, "fsdp": fsdp, "tensor": mesh["tensor"]}
        yield (
            f"--config.mesh.data=1 --config.mesh.fsdp={fsdp}",
            plans.with_mesh(config, shape, train.micro_batches),
        )
    for tensor in (n for n in (2, 4, 8, 16) if n > mesh["tensor"] and mesh["fsdp"] * mesh["tensor"] % n == 0):
        shape = {"data": mesh["data"], "fsdp": mesh["fsdp"] * mesh["tensor"] // tensor, "tensor": tensor}
        text = f"--config.mesh.fsdp={shape['fsdp']} --config.mesh.tensor={tensor}"
        yield text, plans.with_mesh(config, shape, train.micro_batches)
    if hasattr(config.step.options, "block_size") and config.step.options.block_size != 32:
        options = dataclasses.replace(config.step.options, block_size=32)
        yield (
            "--config.step.block_size=32",
            dataclasses.replace(config, step=dataclasses.replace(config.step, options=options)),
        )
    ways = mesh["data"] * mesh["fsdp"] * train.micro_batches
    for prompts in (train.prompts_per_step // n for n in (2, 4, 8) if train.prompts_per_step % n == 0):
        if prompts % ways == 0:
            fewer = dataclasses.replace(train, prompts_per_step=prompts)
            yield f"--config.train.prompts_per_step={prompts}", dataclasses.replace(config, train=fewer)
