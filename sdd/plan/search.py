"""Meshes and numbers of parts that a config may have on a topology, the fastest first."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

from sdd.config import ConfigError, RunConfig
from sdd.plan import plans
from sdd.plan.chips import Topology
from sdd.plan.inputs import Sizes

COMPILED = 1  # plans that are compiled once they are ranked
TRIES = 3  # plans that are compiled at most, where those ranked before turn out not to fit


class Found(NamedTuple):
    """Attributes:
    plans: those that fit, the fastest first, then the others, the smallest first; compiled ones in front.
    tried: how many there are.
    refused: how many were left out since chips of several processes would share a row.
    """

    plans: tuple[plans.Plan, ...]
    tried: int
    refused: int


def candidates(config: RunConfig, topology: Topology) -> Iterator[tuple[dict[str, int], int]]:
    """Meshes that fill the chips and divide the config's sizes, each with every number of parts."""
    model, prompts = config.model, config.train.prompts_per_step
    chips = topology.chips
    divisors = [n for n in range(1, chips + 1) if chips % n == 0]
    for tensor, fsdp in itertools.product(divisors, divisors):
        data, left = divmod(chips, tensor * fsdp)
        splits = (model.num_heads, model.num_kv_heads, model.mlp_dim)
        if left or any(n % tensor for n in splits) or data % topology.slices or prompts % (data * fsdp):
            continue
        rest = prompts // (data * fsdp)
        for parts in (n for n in range(1, rest + 1) if rest % n == 0):
            yield {"data": data, "fsdp": fsdp, "tensor": tensor}, parts


def search(config: RunConfig, sizes: Sizes, topology: Topology, devices: list[Any]) -> Found:
    """Estimates every candidate and compiles the best of those that fit.

    Raises:
      ConfigError: no mesh of these chips divides the config's sizes.
    """
    estimated, refused = [], 0
    for shape, parts in candidates(config, topology):
        here = plans.with_mesh(config, shape, parts)
        try:
            known = plans.counted(here, sizes, devices)
        except ConfigError:
            refused += 1
            continue
        estimated.append((plans.estimate(here, sizes, topology, known), known))
    if not estimated:
        raise ConfigError(
            f"--fit: no mesh of {topology.chips} chips divides config.train.prompts_per_step="
            f"{config.train.prompts_per_step} and the model's heads; valid: another number of prompts"
        )
    estimated.sort(key=lambda pair: rank(pair[0]))
    done: list[plans.Plan] = []
    for plan, known in estimated[:TRIES]:
        done.append(plans.compile_plan(plan.config, sizes, topology, known))
        if sum(p.fits for p in done) >= COMPILED or not plan.fits:
            break
    rest = [plan for plan, _ in estimated[len(done) :]]
    return Found((*sorted(done, key=rank), *rest), len(estimated), refused)


def rank(plan: plans.Plan) -> tuple[bool, float, float]:
    """Those that fit by time, and the smaller of equals; then the others by size."""
    seconds = sum(phase.seconds for phase in plan.phases)
    return (not plan.fits, seconds if plan.fits else 0.0, plan.total)
