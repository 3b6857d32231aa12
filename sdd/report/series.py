"""The numbers behind the figures, as records: one a mark that is drawn."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sdd.claims.runs import Run, Study
from sdd.report.load import is_start
from sdd.report.look import labels, metric_name, split_name
from sdd.report.summary import Row, curves_over_steps, shared_k

Records = list[dict[str, Any]]
MOST_METRICS = 24
BINS = 60
ENTROPIES = (
    "token_entropy",
    "teacher_entropy_on_path",
    "teacher_entropy_off_path",
    "teacher_logp_right",
    "teacher_logp_wrong",
)
TRAINING = ("reward", "loss", "learning_rate", "grad_norm", "response_length", "top_strategy_share")
_FIRST = ("distinct_correct@K", "pass@1", "pass@K", "top_strategy_share", "token_entropy")


def pass_at_k(study: Study, rows: dict[tuple[str, str], Row]) -> Records:
    """pass@k of the final models with intervals."""
    names = labels(study.methods)
    return [
        {"method": names[method], "split": split_name(split), "k": k, **estimate}
        for (method, split), row in rows.items()
        for k, estimate in row.curve.items()
    ]


def over_steps(study: Study) -> Records:
    """Metrics of evaluations; of several seeds the mean, and the lowest and the highest seed.

    Of one seed ``low`` and ``high`` are the interval over prompts. Where methods are
    compared, the starting model's last evaluation comes along with ``start`` true and no step.
    """
    names, records = labels(study.methods), []
    alone = all(is_start(method) for method in study.methods)
    for metric in evaluation_metrics(study):
        for split in study.splits:
            for method in study.methods:
                place = {"method": names[method], "split": split_name(split), "metric": metric_name(metric)}
                points = _over_seeds(curves_over_steps(study, method, split, metric))
                if is_start(method) and not alone:
                    records += [place | point | {"step": None, "start": True} for point in points[-1:]]
                else:
                    records += [place | point | {"start": False} for point in points]
    return records


def evaluation_metrics(study: Study) -> list[str]:
    """Names of the evaluations' metrics that are shown, the most telling first."""
    found: dict[str, None] = {}
    for runs in study.seeds.values():
        for run in runs.values():
            for evaluation in run.evaluations:
                found |= dict.fromkeys(evaluation["metrics"])
    k = shared_k(study, "distinct_correct") or shared_k(study, "pass") or 1
    first = [name.replace("@K", f"@{k}") for name in _FIRST]
    others = [name for name in found if name not in first and ("@" not in name or name == f"distinct@{k}")]
    return [*(name for name in dict.fromkeys(first) if name in found), *others][:MOST_METRICS]


def training(study: Study, metrics: Sequence[str]) -> Records:
    """Metrics of the train batches, means over bins of steps; of several seeds mean, lowest and highest."""
    names, records = labels(study.methods), []
    for metric in metrics:
        for method in study.methods:
            if is_start(method) and len(study.methods) > 1:
                continue
            runs = study.of_method(method).values()
            last = max((m["step"] for run in runs for m in run.train_metrics()[-1:]), default=0)
            curves = {i: _binned(run, metric, last) for i, run in enumerate(runs)}
            place: dict[str, Any] = {"method": names[method], "metric": metric_name(metric)}
            points = _over_seeds({i: curve for i, curve in curves.items() if curve})
            records += [place | point | {"runaway": None} for point in points]
            if points:
                records += [place | {"runaway": step} for step in _runaways(runs)]
    return records


def teacher(study: Study) -> Records:
    """The teacher's accuracy at evaluations, and entropies and log-probabilities of the train batches."""
    names, records = labels(study.methods), []
    for split in study.splits[:1]:
        for method in study.methods:
            points = _over_seeds(curves_over_steps(study, method, split, "teacher_accuracy"))
            place = {"method": names[method], "metric": metric_name("teacher_accuracy"), "runaway": None}
            records += [place | point for point in points]
    return records + training(study, ENTROPIES)


def timings(study: Study) -> Records:
    """Median seconds of a step and its parts, over seeds and the steps after the first tenth (compiling)."""
    names, records = labels(study.methods), []
    for method in study.methods:
        steps = [t for run in study.of_method(method).values() for t in _warm(run)]
        if not steps:
            continue
        parts = {name: _median(steps, f"{name}_seconds") for name in ("sample", "update")}
        total = _median(steps, "seconds")
        parts["other"] = max(0.0, total - sum(parts.values()))
        shown = {"sample": "sampling", "update": "update", "other": "the rest"}
        for i, (part, seconds) in enumerate(parts.items()):
            share = seconds / total if total else 0.0
            place = {"method": names[method], "part": shown[part], "order": i}
            records.append(place | {"seconds": seconds, "total": total, "share": share})
    return records


def _warm(run: Run) -> list[dict[str, Any]]:
    records = [t for t in run.timings() if isinstance(t.get("seconds"), int | float)]
    return records[len(records) // 10 :]


def _median(records: Sequence[dict[str, Any]], name: str) -> float:
    values = [record[name] for record in records if isinstance(record.get(name), int | float)]
    return float(np.median(values)) if values else 0.0


def _over_seeds(curves: dict[int, list[tuple[Any, ...]]]) -> Records:
    """Curves of (step, value, low, high) of several seeds -> points at the steps that all of them have."""
    if not curves:
        return []
    if len(curves) == 1:
        points = next(iter(curves.values()))
        return [{"step": s, "value": v, "low": low, "high": high, "seeds": 1} for s, v, low, high in points]
    by_seed = [{point[0]: point[1] for point in points} for points in curves.values()]
    steps = sorted(set.intersection(*(set(values) for values in by_seed)))
    at = {step: [values[step] for values in by_seed] for step in steps}
    return [
        {"step": step, "value": float(np.mean(v)), "low": min(v), "high": max(v), "seeds": len(v)}
        for step, v in at.items()
    ]


def _binned(run: Run, name: str, last_step: int) -> list[tuple[Any, ...]]:
    width = max(1, -(-last_step // BINS))
    bins: dict[int, list[float]] = {}
    for record in run.train_metrics():
        value = record.get(name)
        if isinstance(value, int | float) and np.isfinite(value):
            bins.setdefault(record["step"] // width, []).append(value)
    means = {i: float(np.mean(values)) for i, values in sorted(bins.items())}
    return [(min((i + 0.5) * width, last_step), mean, None, None) for i, mean in means.items()]


def _runaways(runs: Iterable[Run]) -> list[int]:
    return [e["step"] for run in runs for e in run.events if e["event"] == "runaway" and "step" in e]
