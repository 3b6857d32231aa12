"""sdd run experiments/study/runaway.py --workdir=runs/runaway --seeds=2

SDSD with teachers of different speed at a learning rate that does not end, and SDPO: which of them run away,
and whether the detector (sdd/health.py) warned before pass@1 fell. It writes runaway.json and
figures/runaway.png beside the report. In the folder of another concept graph study it starts from the warm
starts there. See docs/runaway.md.

    the fastest teacher alone  --config.methods=ema_950
"""

import json
from pathlib import Path

import ml_collections

from experiments.concept_graph import sdsd, warm_start
from experiments.study.methods import method as published
from sdd import study

TEACHERS = {
    "ema_950": {"ema_decay": 0.95},
    "ema_990": {"ema_decay": 0.99},
    "ema_995": {"ema_decay": 0.995},
    "ema_999": {"ema_decay": 0.999},
    "frozen": {"teacher": "frozen"},
    "trust_region": {"ema_decay": 0.95, "trust_region": 0.3},
}
PANELS = {
    "pass@1": "pass@1",
    "teacher_accuracy": "teacher's accuracy",
    "teacher_entropy": "teacher's entropy (nats)",
    "token_entropy": "student's entropy (nats)",
}
FALL = 0.05  # of pass@1 from its best, which counts as fallen


def get_config() -> ml_collections.ConfigDict:
    """Returns the study of the teachers."""
    methods = {}
    for name, options in TEACHERS.items():
        c = sdsd.get_config()
        c.step.update(options)
        c.optimizer.schedule = "constant"
        c.train.num_steps, c.eval.every = 400, 50
        c.eval.splits = ("id",)
        c.eval.final_num_prompts, c.eval.final_num_samples = c.eval.num_prompts, c.eval.num_samples
        methods[name] = c
    # SDPO as experiments/study/methods.py has it: a fast teacher, and one demonstration for a whole group.
    methods["sdpo"] = published("sdpo")
    methods["sdpo"].eval.every = 50
    return study.config(warm_start.get_config(), methods)


def run(config: ml_collections.ConfigDict, workdir: str, seeds: int = 1) -> None:
    """Runs the study, and writes what the runs show."""
    study.run_config(config, workdir, seeds)
    from sdd.claims.runs import load_study

    found = load_study(workdir)
    curves = {
        name: {seed: curve(run.evaluations) for seed, run in found.of_method(name).items()}
        for name in config.methods
    }
    events = {
        name: {seed: run.events for seed, run in found.of_method(name).items()} for name in config.methods
    }
    summary = {
        name: {
            str(seed): fallen(points) | {"warned": warned(events[name][seed])}
            for seed, points in by_seed.items()
        }
        for name, by_seed in curves.items()
    }
    (Path(workdir) / "runaway.json").write_text(json.dumps(summary, indent=1) + "\n")
    draw(curves, Path(workdir) / "figures" / "runaway.png")
    for name, by_seed in summary.items():
        for seed, row in by_seed.items():
            print(f"{name} seed {seed}: " + ", ".join(f"{key} {value}" for key, value in row.items()))


def curve(evaluations) -> dict[str, list[float]]:
    """Steps, and each metric of `PANELS` at them, of the first split."""
    rows = [e for e in evaluations if e["split"] == evaluations[0]["split"]]
    values = {name: [e["metrics"][name]["value"] for e in rows] for name in PANELS}
    return {"step": [e["step"] for e in rows], **values}


def fallen(points: dict[str, list[float]]) -> dict[str, float | int | None]:
    """The best pass@1 and its step, the last, and the first step at which it is `FALL` below the best."""
    steps, passed = points["step"], points["pass@1"]
    best = max(range(len(steps)), key=passed.__getitem__)
    after = [step for i, step in enumerate(steps) if max(passed[: i + 1]) - passed[i] > FALL]
    return {
        "best": round(passed[best], 3),
        "best_step": steps[best],
        "last": round(passed[-1], 3),
        "teacher_last": round(points["teacher_accuracy"][-1], 3),
        "fell": after[0] if after else None,
    }


def warned(events) -> int | None:
    """The first step of a ``teacher_drift`` or ``runaway``."""
    return min((e["step"] for e in events if e["event"] in ("teacher_drift", "runaway")), default=None)


def draw(curves, path: Path) -> None:
    """A panel a metric, a colour a teacher, a line a seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.6), layout="constrained")
    for ax, (metric, text) in zip(figure.subplots(2, 2).flat, PANELS.items(), strict=True):
        for i, (name, by_seed) in enumerate(curves.items()):
            for j, points in enumerate(by_seed.values()):
                ax.plot(points["step"], points[metric], color=f"C{i}", lw=1.2, label="" if j else name)
        ax.set_title(text, fontsize=8)
        ax.tick_params(labelsize=7)
        ax.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=6,
        frameon=False,
        fontsize=8,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=170, metadata={"Software": None})
