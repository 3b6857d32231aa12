"""The figure of C8: predicted against measured changes of log-ratios."""

import io
from collections.abc import Mapping

import matplotlib
from matplotlib.figure import Figure

from sdd.report.look import style
from sdd.report.mpl import RC, WIDTH, marker
from sdd.theory.prediction import Pairs, agreement

_TITLES = {"given": "demonstrations of the start", "own": "demonstrations of its own"}


def draw(pairs_of: Mapping[str, Pairs]) -> bytes:
    """A panel for each prediction, a colour for each run; PNG bytes.

    Args:
      pairs_of: name of a run -> its pairs.
    """
    methods = tuple(pairs_of)
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(WIDTH, 4.0), layout="constrained")
        axes = figure.subplots(1, len(_TITLES), sharey=True)
        for ax, (prediction, title) in zip(axes, _TITLES.items(), strict=True):
            for name, pairs in pairs_of.items():
                look, fit = style(name, methods), agreement(pairs, prediction)["correlation"]
                text = f"{look.label}: r = {fit.value:.2f} [{fit.low:.2f}, {fit.high:.2f}]"
                points = (getattr(pairs, f"{prediction}_X"), pairs.measured_X)
                ax.plot(*points, marker(look), ms=1.6, alpha=0.35, mew=0, color=look.color, label=text)
            ax.axline((0, 0), slope=1, color="#555555", lw=0.8, ls="--", label="SDSD optimum")
            ax.axhline(0, color="#555555", lw=0.8, ls=":", label="RL optimum")
            ax.set(title=title, xlabel="predicted change of log-ratio (nats)")
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}  # not over the points
            legend = ax.legend(fontsize=6, markerscale=3, frameon=False, **place)
            for handle in legend.legend_handles:
                handle.set_alpha(1)
        axes[0].set_ylabel("measured change (nats)")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=170, metadata={"Software": None})
    return buffer.getvalue()
