"""Is the loss of diversity general, and does it depend on scale? From folders of runs to numbers and words.

A sweep's folder holds ``TASK/SIZE/seed_N/METHOD/``. Runs of the same task and seed have the same questions
at every size, so differences between sizes are paired by prompt too. Intervals hold 95 %: a bootstrap over
prompts, with several seeds a hierarchical one. Sizes are ordered by the parameters of their layers,
embeddings left out (as in 2001.08361).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdd.claims.compare import (
    Cells,
    Quantity,
    above,
    below,
    difference,
    distinct_correct_at,
    draws,
    favourite_share,
    gather,
    interval,
    missing_runs,
    pass_at,
)
from sdd.claims.runs import START, Run, Study, load_run, shared_prompts
from sdd.writers import write_json_atomic

SDSD, GRPO, DIVERSITY = "sdsd_k1", "grpo", "grpo_diversity"
COMPARED = (START, GRPO, SDSD)  # a seed counts where it has these
ID, HARDER = "id", "harder"
LOSSES = {"distinct": "distinct correct strategies", "harder_pass": "pass@k on harder questions"}

Answer = dict[str, Any]


def compute(folder: str | Path) -> Answer:
    """The numbers of every finished cell, the differences between sizes, and the answer in words.

    Returns:
      ``cells`` (one a task and size, see `_cell`), ``trends`` (one a task with two sizes or more, see
      `_trends`), ``paragraph``, and ``unfinished``, which says what is not there yet.

    Raises:
      ValueError: one line, where there is no run at all or a run's file is broken.
    """
    studies = _studies(Path(folder))
    cells, unfinished, gathered = [], [], {}
    for (task, size), study in studies.items():
        missing = missing_runs(study, COMPARED, (ID, HARDER))
        unfinished += [f"{task}, {size}: {text}" for texts in missing.values() for text in texts]
        seeds = [seed for seed in study.seeds if seed not in missing]
        if seeds:
            gathered[task, size] = {s: gather(study, seeds, COMPARED, s) for s in (ID, HARDER)}
            cells.append(_cell(task, size, study, seeds, gathered[task, size]))
    cells.sort(key=lambda cell: (cell["task"], cell["parameters"]))
    answer: Answer = {"cells": cells, "trends": _trends(cells, gathered), "unfinished": unfinished}
    return {**answer, "paragraph": paragraph(answer)}


def write(folder: str | Path) -> Answer:
    """Computes the answer of a sweep's folder and writes ``scale.json`` there, atomically."""
    answer = compute(folder)
    write_json_atomic(Path(folder) / "scale.json", answer)
    return answer


def layer_parameters(model: dict[str, Any]) -> int:
    """Parameters in the matrices of a decoder's layers, by its config; norms and embeddings left out."""
    E, C = model["width"], model["head_dim"]
    attention = 2 * E * model["num_heads"] * C + 2 * E * model["num_kv_heads"] * C
    return int(model["num_layers"] * (attention + 3 * E * model["mlp_dim"]))


def paragraph(answer: Answer) -> str:
    """The answer in words; every number in it is one of ``answer``'s."""
    cells, trends = answer["cells"], answer["trends"]
    if not cells:
        return "No cell is finished yet."
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    seeds = sorted({len(cell["seeds"]) for cell in cells})
    counts = " to ".join(str(n) for n in sorted({seeds[0], seeds[-1]}))
    text = [
        f"{len(cells)} cells of {len(tasks)} task{'s' * (len(tasks) > 1)}, {counts} "
        f"seed{'s' * (seeds[-1] > 1)} each."
    ]
    for loss, name in LOSSES.items():
        what = name.replace("@k", f"@{min(cell['k'] for cell in cells)}")
        text += [_verdict(cells, loss, what), *(_by_task(cells, trends, task, loss) for task in tasks)]
    ran_away = [f"{c['task']} {c['size']}" for c in cells if c["runaway"]]
    if ran_away:
        text.append(f"A self-distillation run ran away in {', '.join(ran_away)}.")
    return " ".join(text)


# ---- numbers --------------------------------------------------------------------------------------------


def _studies(folder: Path) -> dict[tuple[str, str], Study]:
    """(task, size) -> its runs; those without any evaluation yet are left out."""
    found: dict[tuple[str, str], dict[int, dict[str, Run]]] = {}
    for path in sorted(folder.glob("*/*/seed_*/*/evaluations.jsonl")):
        run = path.parent
        seed = int(run.parent.name.removeprefix("seed_"))
        cell = run.parent.parent
        found.setdefault((cell.parent.name, cell.name), {}).setdefault(seed, {})[run.name] = load_run(run)
    if not found:
        raise ValueError(f"{folder}: no runs found; a sweep holds TASK/SIZE/seed_<number>/METHOD/")
    return {(task, size): Study(folder / task / size, seeds) for (task, size), seeds in found.items()}


def _cell(task: str, size: str, study: Study, seeds: Sequence[int], gathered: dict[str, Cells]) -> Answer:
    """A task and size: final numbers of each method, and SDSD's differences.

    ``methods``: name -> ``pass@1``, ``pass@k``, ``distinct``, ``favourite`` (in distribution),
    ``harder_pass@1``, ``harder_pass``, ``harder_distinct``. ``against_grpo`` and ``against_start``: the same
    of SDSD minus the other, paired. k is 32, or what there are samples for. ``teacher``: SDSD's teacher
    accuracy with a demonstration, at start and end. ``runaway``: the seeds in which SDSD ran away.
    """
    rollouts = [r for cells in gathered.values() for runs in cells.values() for r in runs.values()]
    k = draws(rollouts)
    more = [seed for seed in seeds if seed not in missing_runs(study, (DIVERSITY,), (ID, HARDER))]
    bonus = {s: gather(study, more, (DIVERSITY,), s) for s in (ID, HARDER)}
    methods = {name: _numbers(gathered, name, k) for name in COMPARED}
    if more:
        methods[DIVERSITY] = _numbers(bonus, DIVERSITY, k)
    runs = [study.seeds[seed][SDSD] for seed in seeds]
    return {
        "task": task,
        "size": size,
        "parameters": layer_parameters(runs[0].config["model"]),
        "seeds": list(seeds),
        "k": k,
        "num_prompts": len(next(iter(gathered[ID].values()))[SDSD].prompt_ids),
        "steps": runs[0].num_steps,
        "methods": methods,
        "against_grpo": _paired(gathered, GRPO, k),
        "against_start": _paired(gathered, START, k),
        "teacher": {where: _teacher(runs, end) for where, end in (("start", 0), ("end", -1))},
        "runaway": [s for s, run in zip(seeds, runs) if any(e["event"] == "runaway" for e in run.events)],
    }


def _quantities(k: int) -> dict[str, tuple[str, Quantity]]:
    """Name -> split and quantity."""
    return {
        "pass@1": (ID, pass_at(1)),
        "pass@k": (ID, pass_at(k)),
        "distinct": (ID, distinct_correct_at(k)),
        "favourite": (ID, favourite_share),
        "harder_pass@1": (HARDER, pass_at(1)),
        "harder_pass": (HARDER, pass_at(k)),
        "harder_distinct": (HARDER, distinct_correct_at(k)),
    }


def _numbers(gathered: dict[str, Cells], method: str, k: int) -> Answer:
    return {
        name: interval([of(runs[method]) for runs in gathered[split].values()])
        for name, (split, of) in _quantities(k).items()
    }


def _paired(gathered: dict[str, Cells], baseline: str, k: int) -> Answer:
    return {
        name: difference(gathered[split], of, SDSD, baseline) for name, (split, of) in _quantities(k).items()
    }


def _teacher(runs: Sequence[Run], end: int) -> float | None:
    """Mean over seeds of the teacher's accuracy with a demonstration, at the first or last evaluation."""
    found = []
    for run in runs:
        lines = [e["metrics"].get("teacher_accuracy") for e in run.evaluations if e["split"] == ID]
        values = [line["value"] for line in lines if line and line.get("value") is not None]
        found += values[end:][:1]
    return float(np.mean(found)) if found else None


def _trends(cells: Sequence[Answer], gathered: dict[tuple[str, str], dict[str, Cells]]) -> list[Answer]:
    """A task: SDSD minus GRPO at the largest size, minus the same at the smallest, paired by prompt."""
    trends = []
    for task in dict.fromkeys(cell["task"] for cell in cells):
        own = [cell for cell in cells if cell["task"] == task]
        small, large = own[0], own[-1]
        seeds = [seed for seed in small["seeds"] if seed in large["seeds"]]
        if small is large or not seeds:
            continue
        k = min(small["k"], large["k"])
        ends = [gathered[task, cell["size"]] for cell in (large, small)]
        change = {loss: _change(ends, seeds, *_quantities(k)[loss]) for loss in LOSSES}
        sizes = {"smallest": small["size"], "largest": large["size"]}
        trends.append({"task": task, **sizes, "seeds": seeds, "change": change})
    return trends


def _change(ends: Sequence[dict[str, Cells]], seeds: Sequence[int], split: str, of: Quantity) -> Answer:
    values = []
    for seed in seeds:
        runs = [end[split][seed][method] for end in ends for method in (SDSD, GRPO)]
        a, b, c, d = (of(r) for r in shared_prompts(runs))
        values.append((a - b) - (c - d))
    return interval(values)


# ---- words ----------------------------------------------------------------------------------------------


def _verdict(cells: Sequence[Answer], loss: str, what: str) -> str:
    grpo, start = ([cell[against][loss] for cell in cells] for against in ("against_grpo", "against_start"))
    fewer, more = sum(map(below, grpo)), sum(map(above, grpo))
    return (
        f"In {what} self-distillation ends below GRPO in {fewer} of {len(cells)} cells, above it in {more}, "
        f"and in {len(cells) - fewer - more} they cannot be told apart; it ends below the start in "
        f"{sum(map(below, start))}."
    )


def _by_task(cells: Sequence[Answer], trends: Sequence[Answer], task: str, loss: str) -> str:
    own = [cell for cell in cells if cell["task"] == task]
    shown = ", ".join(f"{_shown(cell['against_grpo'][loss])} ({cell['size']})" for cell in own)
    text = f"{task}, SDSD minus GRPO: {shown}"
    for trend in trends:
        if trend["task"] == task:
            change = trend["change"][loss]
            how = "grows" if below(change) else "shrinks" if above(change) else "does not change clearly"
            text += f"; from {trend['smallest']} to {trend['largest']} the loss {how}, by {_shown(change)}"
    return f"{text}."


def _shown(i: dict[str, Any]) -> str:
    if i["value"] is None:
        return "undefined"
    return f"{i['value']:+.2f} [{i['low']:+.2f}, {i['high']:+.2f}]"
