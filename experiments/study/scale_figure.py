"""The figure of ``scale.py``: what self-distillation keeps less than GRPO, against size; a line a task."""

import io
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from sdd.report.mpl import RC, WIDTH

LOOKS = (("#0072B2", "o", "-"), ("#D55E00", "D", "--"), ("#009E73", "^", "-."), ("#CC79A7", "s", ":"))
PANELS = {"distinct": "distinct correct strategies of {k} draws", "harder_pass": "pass@{k}, harder questions"}


def draw(answer: dict[str, Any]) -> bytes:
    """SDSD minus GRPO with its 95 % interval, a panel for each of `PANELS`; PNG bytes.

    Args:
      answer: as `sdd.claims.scale.compute` returns it, with one cell at least.
    """
    cells = answer["cells"]
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    k = min(cell["k"] for cell in cells)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        axes = figure.subplots(1, len(PANELS))
        for ax, (name, title) in zip(axes, PANELS.items(), strict=True):
            for i, task in enumerate(tasks):
                color, marker, dash = LOOKS[i % len(LOOKS)]
                own = [cell for cell in cells if cell["task"] == task]
                # Side by side, so that intervals can be told apart.
                sizes = [cell["parameters"] * (1 + 0.06 * (i - (len(tasks) - 1) / 2)) for cell in own]
                found = [cell["against_grpo"][name] for cell in own]
                value = [f["value"] for f in found]
                ends = [[f["value"] - f["low"] for f in found], [f["high"] - f["value"] for f in found]]
                look = {"color": color, "marker": marker, "linestyle": dash, "label": task.replace("_", " ")}
                ax.errorbar(sizes, value, yerr=ends, capsize=2, **look)
            ax.axhline(0, color="#555555", lw=0.8)
            ax.set_xscale("log")
            ticks = sorted({cell["parameters"] for cell in cells})
            ax.set_xticks(ticks, [f"{t / 1000:.0f} k" for t in ticks])
            ax.minorticks_off()
            ax.set(title=title.format(k=k), xlabel="parameters of the layers", ylabel="SDSD minus GRPO")
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False
        )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=170, metadata={"Software": None})
    return buffer.getvalue()
