"""``--fail-if``: a condition on a metric, for a job that should stop a change that costs too much."""

import ast
import operator
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from sdd.lookup import nearest
from sdd.measure.records import MeasureError
from sdd.metrics import Estimate

_COMPARISONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
_OPERATIONS: dict[type, Any] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
FORM = "METRIC[.low|.high|.change] < NUMBER, or with baseline: 'distinct@8 < 0.8 * baseline'"


class Condition(NamedTuple):
    """Attributes:
    text: as it was given.
    metric: its name.
    end: "value", "low" or "high"; of the change where ``of_change``.
    of_change: whether the change against the baseline is meant.
    comparison: "<", "<=", ">" or ">=".
    bound: arithmetic in numbers and ``baseline``.
    """

    text: str
    metric: str
    end: str
    of_change: bool
    comparison: str
    bound: ast.expr


def parse(text: str) -> Condition:
    """Reads a condition: a metric, a comparison, and arithmetic in numbers and the word ``baseline``.

    ``METRIC.low``, ``METRIC.high``: ends of its 95 % interval; ``METRIC.change``, ``METRIC.change.high``:
    of the change against the baseline.

    Raises:
      MeasureError: it is not of that form.
    """
    found = re.fullmatch(r"\s*(?P<left>[^<>=]+?)\s*(?P<op><=|>=|<|>)\s*(?P<right>[^<>=]+?)\s*", text)
    if found is None:
        raise MeasureError(f"--fail-if {text!r}: not a condition; valid: {FORM}")
    metric, end, of_change = found["left"], "value", False
    if metric.endswith((".low", ".high")):
        metric, end = metric.rsplit(".", 1)
    if metric.endswith(".change"):
        metric, of_change = metric.removesuffix(".change"), True
    try:
        bound = ast.parse(found["right"], mode="eval").body
        _evaluate(bound, 1.0)
    except ZeroDivisionError:
        pass
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise MeasureError(
            f"--fail-if {text!r}: {found['right']!r} is no arithmetic in numbers and `baseline`; "
            f"valid: {FORM}"
        ) from None
    return Condition(text, metric, end, of_change, found["op"], bound)


def holds(
    condition: Condition,
    metrics: Mapping[str, Estimate],
    baseline: Mapping[str, Estimate],
    change: Mapping[str, Estimate],
) -> bool:
    """Whether the condition holds. What cannot be told is an error, never a pass.

    Raises:
      MeasureError: an unknown or undefined metric, or no baseline where one is needed.
    """
    where = f"--fail-if {condition.text!r}"
    names_baseline = any(isinstance(node, ast.Name) for node in ast.walk(condition.bound))
    if (condition.of_change or names_baseline) and not baseline:
        raise MeasureError(f"{where}: there is no baseline; valid: with --baseline FILE")
    estimates = change if condition.of_change else metrics
    for side in (estimates, baseline) if names_baseline else (estimates,):
        if condition.metric not in side:
            raise MeasureError(f"{where}: no metric {condition.metric!r}{nearest(condition.metric, side)}")
    value = getattr(estimates[condition.metric], condition.end)
    reference = baseline[condition.metric].value if names_baseline else 0.0
    try:
        bound = _evaluate(condition.bound, reference)
    except ZeroDivisionError:
        raise MeasureError(f"{where}: divides by zero") from None
    if value != value or bound != bound:
        raise MeasureError(f"{where}: {condition.metric} is undefined for every prompt of a file")
    return bool(_COMPARISONS[condition.comparison](value, bound))


def _evaluate(node: ast.expr, baseline: float) -> float:
    """Arithmetic in numbers and ``baseline``; ValueError for anything else."""
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return float(node.value)  # type: ignore[arg-type]
        case ast.Name(id="baseline"):
            return baseline
        case ast.UnaryOp(op=ast.USub()):
            return -_evaluate(node.operand, baseline)
        case ast.BinOp() if type(node.op) in _OPERATIONS:
            sides = (_evaluate(node.left, baseline), _evaluate(node.right, baseline))
            return _OPERATIONS[type(node.op)](*sides)
    raise ValueError("not arithmetic")
