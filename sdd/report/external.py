"""The figure of claim C6: students' diversity against that of the demonstrations that they read."""

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdd.claims.external import SDSD
from sdd.claims.runs import START
from sdd.report.look import STYLES, Style
from sdd.report.mpl import RC, WIDTH, marker

PANELS = {
    "distinct": "distinct correct strategies\nof {k} draws, in distribution",
    "harder": "pass@{k}, harder",
}
STUDENT = Style("student", "#D55E00")
WRITER = Style("policy that wrote the set", "#009E73", shape="triangle-up")


def draw(found: dict[str, Any]) -> bytes:
    """Draws `sdd.claims.external.table` as a PNG: a panel for strategies, one for harder problems."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        entries: dict[str, Any] = {}
        for ax, name in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
            _panel(ax, found, name)
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
        place: Any = {"loc": "outside upper center", "ncols": len(entries), "frameon": False}
        figure.legend(list(entries.values()), list(entries), **place)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=170, metadata={"Software": None})
    return buffer.getvalue()


def _panel(ax: Axes, found: dict[str, Any], name: str) -> None:
    """Students and writers with intervals, students of single seeds as dots, two runs as lines."""
    for writer, each in found["sets"].items():
        x, student = each["shown"], found["runs"][each["student"]]
        source = found["runs"][writer][name]
        for e, look in ((student[name], STUDENT), (source, WRITER)):
            error = [[e["value"] - e["low"]], [e["high"] - e["value"]]]
            ax.errorbar(x, e["value"], error, fmt=marker(look), color=look.color, label=look.label, capsize=2)
        if len(each["by_seed"]) > 1:
            values = student["by_seed"][name]
            xs = [each["by_seed"][seed] for seed in values]
            ax.plot(xs, list(values.values()), ".", ms=3, alpha=0.5, color=STUDENT.color)
        place: Any = {"xytext": (-6, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
        ax.annotate(writer.replace("_", " "), (x, source["value"]), fontsize=6, **place)
    for run in (START, SDSD):
        look = STYLES[run]
        ax.axhline(found["runs"][run][name]["value"], color=look.color, ls="--", lw=1, label=look.label)
    ax.margins(x=0.25)
    ax.set_xlabel(f"distinct right strategies of {found['samples']} shown")
    ax.set_ylabel(PANELS[name].format(k=found["k"]))
