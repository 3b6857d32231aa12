"""Matplotlib's settings for a figure in a paper, and the styles of `sdd.report.look` in its words."""

from typing import Any

from sdd.report.look import Style

WIDTH = 7.0  # inches: two columns of a paper
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
_MARKERS = {
    "circle": "o",
    "square": "s",
    "cross": "P",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "triangle-right": ">",
    "triangle-left": "<",
}


def marker(style: Style) -> str:
    """Matplotlib's name of a style's point."""
    return _MARKERS[style.shape]
