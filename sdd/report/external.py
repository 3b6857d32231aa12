"""The figure of claim C6: students' diversity against that of the demonstrations that they read."""

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sdd.claims.external import SDSD
from sdd.claims.runs import START
from sdd.report.figures import RC, STYLES, WIDTH

PANELS = {
    "distinct": "distinct correct strategies\nof {k} draws, in distribution",
    "harder": "pass@{k}, harder",
}
LINES = {START: STYLES[START], SDSD: STYLES[SDSD]}


def draw(found: dict[str, Any]) -> bytes:
    """Draws `sdd.claims.external.table` as a PNG: a panel for strategies, one for harder problems."""
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        for ax, (name, text) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
            for writer, each in found["sets"].items():
                student = found["runs"][each["student"]]
                x, y, source = each["shown"], student[name], found["runs"][writer][name]
                points = {
                    "student": (y, "o", "#D55E00"),
                    "policy that wrote the set": (source, "^", "#009E73"),
                }
                for label, (e, marker, color) in points.items():
                    error = [[e["value"] - e["low"]], [e["high"] - e["value"]]]
                    ax.errorbar(
                        x["value"], e["value"], error, fmt=marker, color=color, label=label, capsize=2
                    )
                by_seed = student["by_seed"][name]
                ax.plot(
                    [each["by_seed"][seed] for seed in by_seed],
                    list(by_seed.values()),
                    ".",
                    ms=3,
                    alpha=0.5,
                    color="#D55E00",
                )
                ax.annotate(
                    writer.replace("_", " "),
                    (x["value"], source["value"]),
                    fontsize=6,
                    ha="center",
                    xytext=(0, 5),
                    textcoords="offset points",
                )
            for run, look in LINES.items():
                value = found["runs"][run][name]["value"]
                ax.axhline(value, color=look.color, ls="--", lw=1, label=look.label)
            ax.set(
                xlabel=f"distinct strategies among the right of {found['samples']} demonstrations",
                ylabel=text.format(k=found["k"]),
            )
        entries: dict[str, Any] = {}
        for ax in figure.axes:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                entries.setdefault(label, handle)
        figure.legend(
            list(entries.values()),
            list(entries),
            loc="outside upper center",
            ncols=len(entries),
            frameon=False,
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=170, metadata={"Software": None})
    return buffer.getvalue()
