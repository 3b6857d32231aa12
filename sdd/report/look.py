"""How methods, splits and metrics are called and drawn, the same in every figure, table and page.

Colours are Okabe and Ito's, which people with any colour vision can tell apart, and
fixed per method; lines differ in dash and points in shape too, so that more methods
than colours stay apart.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from sdd.claims.runs import START
from sdd.progress import printable


class Style(NamedTuple):
    """Label for people, colour, lengths of dashes and gaps in px, Vega-Lite's name of the point's shape."""

    label: str
    color: str
    dash: tuple[int, ...] = ()
    shape: str = "circle"


_COLORS = ("#E69F00", "#56B4E9", "#0072B2", "#009E73", "#D55E00", "#CC79A7")
_ROUNDS = (
    ((6, 2), "cross"),
    ((2, 2), "square"),
    ((8, 2, 2, 2), "triangle-right"),
    ((), "triangle-left"),
    ((10, 3), "circle"),
    ((4, 4), "diamond"),
)
STYLES = {
    START: Style("starting model", "#7a7a7a", (5, 3), "square"),
    "grpo": Style("GRPO", "#0072B2", (), "circle"),
    "grpo_diversity": Style("GRPO + diversity", "#009E73", (), "triangle-up"),
    "sdsd_k1": Style("SDSD, K = 1", "#D55E00", (), "diamond"),
    "sdsd_k3": Style("SDSD, K = 3", "#CC79A7", (8, 2, 2, 2), "triangle-down"),
    "csd": Style("CSD", "#E69F00", (), "triangle-right"),
}
# Their order fixes their colours: a new one goes to the end.
_LABELS = {
    "pass_at_k": "pass@k policy",
    "entropy_bonus": "entropy bonus",
    "grpo_anchored": "GRPO, anchored",
    "dph": "DPH-RL",
    "simko": "SimKO",
    "sdpo": "SDPO",
    "opsd": "OPSD",
    "sdft": "SDFT",
    "beta_opsd": "beta-OPSD",
    "sc_sdpo": "SC-SDPO",
    "eopd": "EOPD",
    "pmi_residual": "PMI residual",
    "rlcsd": "RLCSD",
    "anti_sd": "anti-SD",
    "ida_opd": "IDA-OPD",
}
SPLITS = {"id": "in distribution", "larger": "larger", "harder": "harder"}
METRICS = {
    "top_strategy_share": "favourite's share",
    "top_correct_strategy_share": "favourite's share of the right ones",
    "strategy_entropy": "entropy of strategies (nats)",
    "unseen_mass": "unseen strategies' share",
    "token_entropy": "token entropy (nats)",
    "sequence_entropy": "sequence entropy (nats)",
    "token_nll": "negative log-likelihood (nats a token)",
    "response_length": "response length (tokens)",
    "teacher_accuracy": "teacher's accuracy",
    "teacher_entropy": "teacher's entropy (nats)",
    "teacher_entropy_on_path": "teacher's entropy, right path (nats)",
    "teacher_entropy_off_path": "teacher's entropy, off the path (nats)",
    "teacher_logp_right": "teacher's log p, right answers (nats)",
    "teacher_logp_wrong": "teacher's log p, wrong answers (nats)",
    "learning_rate": "learning rate",
    "grad_norm": "norm of the gradient",
}


def style(method: str, methods: Sequence[str]) -> Style:
    """A method's fixed style; unknown methods take further ones in the order of the study."""
    if method in STYLES:
        return STYLES[method]
    others = [name for name in methods if name not in STYLES and name not in _LABELS]
    place = list(_LABELS).index(method) if method in _LABELS else len(_LABELS) + others.index(method)
    dash, shape = _ROUNDS[place // len(_COLORS) % len(_ROUNDS)]
    return Style(label(method), _COLORS[place % len(_COLORS)], dash, shape)


def label(method: str) -> str:
    """A method's name for people."""
    if method in STYLES:
        return STYLES[method].label
    return _LABELS[method] if method in _LABELS else shown(method)


def labels(methods: Sequence[str]) -> dict[str, str]:
    """Method -> label, no two the same, the control characters in names spelled out."""
    found: dict[str, str] = {}
    for method in methods:
        text, number = label(method), 2
        while text in found.values():
            text, number = f"{label(method)} ({number})", number + 1
        found[method] = text
    return found


def split_name(split: str) -> str:
    """A split's name for people."""
    return SPLITS.get(split, shown(split))


def metric_name(metric: str) -> str:
    """A metric's name for people: ``distinct@32`` becomes "distinct strategies of 32 draws"."""
    if match := re.fullmatch(r"(distinct(?:_correct)?)@(\d+)", metric):
        return f"{match[1].replace('_', ' ')} strategies of {match[2]} draws"
    return METRICS.get(metric, shown(metric.replace("_", " ")))


def shown(name: str) -> str:
    """A name out of a file, as text of one line that is not too long."""
    text = printable(name)
    return text if len(text) <= 48 else f"{text[:24]}...{text[-20:]}"
