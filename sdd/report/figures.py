"""Figures of a study or a run: matplotlib on Figure objects, no pyplot, no global state.

Colours are Okabe and Ito's, which people with any colour vision can tell apart, and
fixed per method across figures; lines differ in dash and marker too.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdd.claims.runs import START, Run, Study
from sdd.report.summary import Row, curves_over_steps, shared_k

RUNAWAY = "runaway found"
WIDTH = 7.0  # inches: two columns of a paper


class Style(NamedTuple):
    label: str
    color: str
    dash: str = "-"
    marker: str = "o"


STYLES = {
    START: Style("starting model", "#555555", "--", "s"),
    "grpo": Style("GRPO", "#0072B2", "-", "o"),
    "grpo_diversity": Style("GRPO + diversity", "#009E73", "-", "^"),
    "sdsd_k1": Style("SDSD, K = 1", "#D55E00", "-", "D"),
    "sdsd_k3": Style("SDSD, K = 3", "#CC79A7", "-.", "v"),
}
MORE_COLORS = ("#E69F00", "#56B4E9", "#000000", "#999933", "#882255")
SPLITS = {"id": "in distribution", "larger": "larger", "harder": "harder"}
RC: Any = {
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize", "legend.fontsize"), 8),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 7),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    # A name out of a file is a name, not TeX.
    "text.parse_math": False,
}


def style(method: str, methods: tuple[str, ...]) -> Style:
    """A method's fixed style; unknown methods take further colours in the order of the study."""
    if method in STYLES:
        return STYLES[method]
    place = [name for name in methods if name not in STYLES].index(method)
    color = MORE_COLORS[place % len(MORE_COLORS)]
    return Style(_shown(method), color, ("-", "-.", ":")[place // len(MORE_COLORS) % 3], "P")


def label(method: str) -> str:
    """A method's name for people."""
    return STYLES[method].label if method in STYLES else method


def draw_all(study: Study, rows: dict[tuple[str, str], Row], folder: Path | None = None) -> dict[str, bytes]:
    """Draws every figure for which there are data.

    Args:
      rows: `sdd.report.summary.final_rows` of the study.
      folder: where ``<name>.png`` go; nowhere if None.

    Returns:
      name -> PNG bytes.
    """
    makers: dict[str, Callable[[], Figure | None]] = {
        "pass_at_k": lambda: pass_curves(study, rows),
        "diversity_over_steps": lambda: diversity_over_steps(study),
        "plane": lambda: plane(study, rows),
        "teacher_health": lambda: teacher_health(study),
    }
    pngs = {}
    for name, make in makers.items():
        with matplotlib.rc_context(RC):
            figure = make()
            if figure is None:
                continue
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=170, metadata={"Software": None})
        pngs[name] = buffer.getvalue()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.png").write_bytes(pngs[name])
    return pngs


def pass_curves(study: Study, rows: dict[tuple[str, str], Row]) -> Figure | None:
    """pass@k against k, a panel a split, with 95 % bands."""
    splits = [split for split in study.splits if any(s == split for _, s in rows)]
    if not splits:
        return None
    figure, axes = _panels(1, len(splits), 2.6, sharey="row")
    for ax, split in zip(axes[0], splits):
        for method in study.methods:
            if row := rows.get((method, split)):
                look = style(method, study.methods)
                ks = list(row.curve)
                low, value, high = ([row.curve[k][end] for k in ks] for end in ("low", "value", "high"))
                ax.fill_between(ks, low, high, color=look.color, alpha=0.15, linewidth=0)
                ax.plot(ks, value, look.dash, color=look.color, marker=look.marker, label=look.label)
        ax.set_xscale("log", base=2)
        ticks = sorted({k for (_, s), row in rows.items() if s == split for k in row.curve})
        ax.set_xticks(ticks, [str(k) for k in ticks])
        ax.minorticks_off()
        ax.set(title=_split(split), xlabel="k")
    axes[0][0].set_ylabel("pass@k")
    return _with_legend(figure)


def diversity_over_steps(study: Study) -> Figure | None:
    """Distinct correct strategies, the favourite's share, pass@1 and token entropy over steps."""
    k = shared_k(study, "distinct_correct")
    names = {
        "pass@1": "pass@1",
        "top_strategy_share": "favourite's share",
        "token_entropy": "token entropy (nats)",
    }
    if k:
        names = {f"distinct_correct@{k}": f"distinct correct\nof {k} draws"} | names
    methods = [m for m in study.methods if m != START or len(study.methods) == 1]
    splits = study.splits
    if not splits:
        return None
    figure, axes = _panels(len(names), len(splits), 1.55 * len(names) + 0.4, sharey="row")
    for i, (name, text) in enumerate(names.items()):
        for ax, split in zip(axes[i], splits):
            start = [points[-1][1] for points in curves_over_steps(study, START, split, name).values()]
            if start and START not in methods:
                look = STYLES[START]
                ax.axhline(float(np.mean(start)), ls="--", lw=1, color=look.color, label=look.label)
            for method in methods:
                look = style(method, study.methods)
                _seed_lines(ax, curves_over_steps(study, method, split, name), look)
            if i == 0:
                ax.set_title(_split(split))
            if i == len(names) - 1:
                ax.set_xlabel("step")
        axes[i][0].set_ylabel(text)
    return _with_legend(figure)


def plane(study: Study, rows: dict[tuple[str, str], Row]) -> Figure | None:
    """(pass@1, distinct correct strategies): where each method went from the starting model."""
    known = [row for row in rows.values() if row.metrics[f"distinct_correct@{row.k}"]["value"] is not None]
    rows = {(row.method, row.split): row for row in known}
    splits = [split for split in study.splits if any(s == split for _, s in rows)]
    if not splits:
        return None
    figure, axes = _panels(1, len(splits), 2.7, sharey="row")
    for ax, split in zip(axes[0], splits):
        start = rows.get((START, split))
        for method in study.methods:
            if row := rows.get((method, split)):
                look = style(method, study.methods)
                axis = ("pass@1", f"distinct_correct@{row.k}")
                x, y = (row.metrics[name]["value"] for name in axis)
                if len(row.seeds) > 1:
                    ax.plot(
                        *(list(row.by_seed[name].values()) for name in axis),
                        look.marker,
                        ms=2.5,
                        alpha=0.45,
                        color=look.color,
                    )
                ax.plot(x, y, look.marker, ms=6, color=look.color, label=look.label, zorder=3)
                if start and method != START:
                    origin = tuple(start.metrics[name]["value"] for name in axis)
                    arrow = {"arrowstyle": "-|>", "color": look.color, "lw": 1, "shrinkA": 4, "shrinkB": 4}
                    ax.annotate("", (x, y), origin, arrowprops=arrow)
                ax.set_ylabel(f"distinct correct strategies\nof {row.k} draws" if ax is axes[0][0] else "")
        ax.set(title=_split(split), xlabel="pass@1")
        ax.margins(0.12)
    return _with_legend(figure)


def teacher_health(study: Study) -> Figure | None:
    """How well the teacher reads demonstrations, and the entropies, over steps; runs that have a teacher."""
    methods = [m for m in study.methods if any(_has_teacher(run) for run in study.of_method(m).values())]
    panels = {
        "teacher's accuracy\nwith a demonstration": ("evaluation", "teacher_accuracy"),
        "teacher's entropy (nats),\nevaluation": ("evaluation", "teacher_entropy"),
        "teacher's entropy (nats),\ntraining, on the right path": ("train", "teacher_entropy_on_path"),
        "teacher's entropy (nats),\ntraining, off the right path": ("train", "teacher_entropy_off_path"),
        "student's entropy (nats),\ntraining": ("train", "token_entropy"),
    }
    filled = {}
    for text, (source, name) in panels.items():
        found = {method: _curves(study, method, source, name) for method in methods}
        if any(found.values()):
            filled[text] = {method: curves for method, curves in found.items() if curves}
    if not filled:
        return None
    columns = min(3, len(filled))
    figure, axes = _panels(-(-len(filled) // columns), columns, 1.9 * -(-len(filled) // columns) + 0.4)
    flat = [ax for row in axes for ax in row]
    for ax, (text, found) in zip(flat, filled.items()):
        for method, curves in found.items():
            look = style(method, study.methods)
            _seed_lines(ax, curves, look)
            for step in _runaways(study, method):
                ax.axvline(step, color=look.color, lw=0.8, ls=":", label=RUNAWAY)
        ax.set(title=text, xlabel="step")
    for ax in flat[len(filled) :]:
        ax.set_visible(False)
    return _with_legend(figure)


# ---- parts ----------------------------------------------------------------------------------------------


def _panels(rows: int, columns: int, height: float, **share: Any) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(WIDTH if columns > 1 else WIDTH / 2, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **share)


def _with_legend(figure: Figure) -> Figure:
    entries: dict[str, Any] = {}
    for ax in figure.axes:
        for handle, text in zip(*ax.get_legend_handles_labels()):
            entries.setdefault(text, handle)
    if RUNAWAY in entries:  # after the methods
        entries[RUNAWAY] = entries.pop(RUNAWAY)
    columns = min(len(entries), 6 if figure.get_figwidth() > WIDTH / 2 else 2)
    if entries:
        place: dict[str, Any] = {"loc": "outside upper center", "ncols": columns, "frameon": False}
        figure.legend(list(entries.values()), list(entries), **place)
    return figure


def _seed_lines(ax: Axes, curves: dict[int, list[tuple]], look: Style) -> None:
    """One seed: its line and its interval. Several: thin lines, and their mean where all have a point."""
    if not curves:
        return
    line: dict[str, Any] = {"color": look.color, "linestyle": look.dash}
    if len(curves) == 1:
        steps, mean, low, high = map(list, zip(*next(iter(curves.values()))))
        if None not in low and None not in high:
            ax.fill_between(steps, low, high, color=look.color, alpha=0.15, linewidth=0)
    else:
        by_step = [{point[0]: point[1] for point in points} for points in curves.values()]
        for values in by_step:
            ax.plot(list(values), list(values.values()), lw=0.6, alpha=0.4, **line)
        steps = sorted(set.intersection(*(set(values) for values in by_step)))
        mean = [float(np.mean([values[step] for values in by_step])) for step in steps]
    ax.plot(steps, mean, marker=look.marker if len(steps) < 20 else "", label=look.label, **line)


def _has_teacher(run: Run) -> bool:
    names = set().union(*(e["metrics"] for e in run.evaluations), *(run.train_metrics()[:1]))
    return any(name.startswith("teacher_") for name in names)


def _curves(study: Study, method: str, source: str, name: str) -> dict[int, list[tuple]]:
    if source == "evaluation":
        return curves_over_steps(study, method, study.splits[0], name) if study.splits else {}
    curves = {}
    for seed, run in study.of_method(method).items():
        points = [(m["step"], m[name]) for m in run.train_metrics() if m.get(name) is not None]
        if points:
            curves[seed] = _smoothed(points)
    return curves


def _smoothed(points: list[tuple[int, float]]) -> list[tuple]:
    """Mean over bins of steps, about 30 of them: a batch is small, its numbers jump."""
    width = max(1, -(-max(step for step, _ in points) // 30))
    bins: dict[int, list[float]] = {}
    for step, value in points:
        bins.setdefault(step // width, []).append(value)
    last = max(step for step, _ in points)
    middles = {i: min((i + 0.5) * width, last) for i in sorted(bins)}
    return [(middle, float(np.mean(bins[i])), None, None) for i, middle in middles.items()]


def _runaways(study: Study, method: str) -> list[int]:
    runs = study.of_method(method).values()
    return [e["step"] for run in runs for e in run.events if e["event"] == "runaway" and "step" in e]


def _split(split: str) -> str:
    return SPLITS.get(split, _shown(split))


def _shown(name: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in name)[:40]
