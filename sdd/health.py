"""Names the ways in which a run goes wrong, from its evaluations; a pure function of them.

Self-distillation has two failures that look alike at pass@k and differ in cause:

- collapse of strategies: pass@1 rises, and fewer strategies are left that succeed;
- runaway: the demonstration-reading mode itself decays. No verdict of the verifier
  enters the teacher and its target is the student's own average, so the student
  learns the teacher's uncertainty and the average returns it, until pass@1 falls.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """One line of events.jsonl.

    Attributes:
      event: "teacher_drift", "runaway" or "collapse_of_strategies".
      step: the first evaluation at which it holds.
      message: one or two sentences with the numbers.
    """

    event: str
    step: int
    message: str


@dataclasses.dataclass(frozen=True)
class Thresholds:
    """When a change counts. Accuracies and pass@1 are in [0, 1], entropies in nats a token.

    Attributes:
      teacher_accuracy_drop: fall of the teacher's accuracy with a demonstration from its best.
      teacher_entropy_factor: the teacher's entropy over its lowest value since then.
      teacher_entropy_rise: the same as a difference, so that .001 to .003 does not count.
      token_entropy_factor: the student's token entropy over its lowest value since then.
      pass_drop: fall of pass@1 from its best since then.
      distinct_fraction: distinct_correct@k (largest k) below this share of the first evaluation's.
      pass_rise: rise of pass@1 over the first evaluation that goes with a collapse of strategies.
    """

    teacher_accuracy_drop: float = 0.03
    teacher_entropy_factor: float = 1.2
    teacher_entropy_rise: float = 0.005
    token_entropy_factor: float = 1.25
    pass_drop: float = 0.05
    distinct_fraction: float = 0.6
    pass_rise: float = 0.02


def _number(line: Mapping[str, Any], name: str) -> float:
    """Returns a metric of an evaluation line, an estimate's value or a plain number; nan if absent."""
    value = line.get("metrics", {}).get(name)
    if isinstance(value, Mapping):
        value = value.get("value")
    return float("nan") if value is None else float(value)


def _ks_of_distinct(line: Mapping[str, Any]) -> set[int]:
    names = (re.fullmatch(r"distinct_correct@(\d+)", name) for name in line.get("metrics", {}))
    return {int(match[1]) for match in names if match}


class _Reading(NamedTuple):
    """What the teacher checks read at one evaluation."""

    step: int
    accuracy: float
    entropy: float
    token_entropy: float
    pass_at_1: float


def _reading(line: Mapping[str, Any]) -> _Reading:
    names = ("teacher_accuracy", "teacher_entropy", "token_entropy", "pass@1")
    return _Reading(int(line["step"]), *(_number(line, name) for name in names))


def _teacher_finding(past: Sequence[_Reading], limits: Thresholds) -> Finding | None:
    """Judges the last reading against those since the teacher's best accuracy (the latest such)."""
    now = past[-1]
    best = max(range(len(past)), key=lambda i: (past[i].accuracy, i))
    since = past[best:]
    accuracy = past[best].accuracy
    entropy = min(reading.entropy for reading in since)
    token_entropy = min(reading.token_entropy for reading in since)
    pass_at_1 = max(reading.pass_at_1 for reading in since)
    drifted = (
        accuracy - now.accuracy > limits.teacher_accuracy_drop
        and now.entropy >= limits.teacher_entropy_factor * entropy
        and now.entropy - entropy >= limits.teacher_entropy_rise
    )
    if not drifted:
        return None
    teacher = (
        f"from step {past[best].step} to {now.step} the teacher's accuracy with a demonstration fell from "
        f"{accuracy:.3f} to {now.accuracy:.3f} while its entropy rose from {entropy:.3f} to "
        f"{now.entropy:.3f} nats"
    )
    fallen = pass_at_1 - now.pass_at_1 > limits.pass_drop
    if fallen and now.token_entropy >= limits.token_entropy_factor * token_entropy:
        return Finding(
            "runaway",
            now.step,
            f"runaway: {teacher}, the student's token entropy rose from {token_entropy:.3f} to "
            f"{now.token_entropy:.3f} nats and pass@1 fell from {pass_at_1:.3f} to {now.pass_at_1:.3f}: "
            "nothing pulls the demonstration-reading mode back, since no verdict of the verifier enters it "
            "and the teacher is the student's own average. A slower teacher, a trust region around the "
            "start, or a lower learning rate helps.",
        )
    seen = f"fell from {pass_at_1:.3f} to" if fallen else "has not fallen yet,"
    return Finding(
        "teacher_drift",
        now.step,
        f"teacher_drift: {teacher}; pass@1 {seen} {now.pass_at_1:.3f}. It is how a runaway begins: a slower "
        "teacher, a trust region around the start, or a lower learning rate helps.",
    )


def _collapse_finding(
    first: Mapping[str, Any], line: Mapping[str, Any], limits: Thresholds
) -> Finding | None:
    """Compares an evaluation with the first, at the largest k that both have."""
    shared = _ks_of_distinct(first) & _ks_of_distinct(line)
    if not shared:
        return None
    name = f"distinct_correct@{max(shared)}"
    before, now = _number(first, name), _number(line, name)
    pass_before, pass_now = _number(first, "pass@1"), _number(line, "pass@1")
    # Comparisons with nan are False: an undefined metric gives no finding.
    if not (now < limits.distinct_fraction * before and pass_now - pass_before >= limits.pass_rise):
        return None
    return Finding(
        "collapse_of_strategies",
        int(line["step"]),
        f"collapse_of_strategies: from step {first['step']} to {line['step']} {name} fell from "
        f"{before:.2f} to {now:.2f} while pass@1 rose from {pass_before:.3f} to {pass_now:.3f}.",
    )


def diagnose(history: Sequence[Mapping[str, Any]], limits: Thresholds = Thresholds()) -> list[Finding]:
    """Finds a drifting teacher, a runaway and a collapse of strategies.

    Each event is reported once, at the first evaluation at which it holds, and
    judged by the evaluations up to there alone: so a longer history never changes
    an earlier finding, and a loop may call this after every evaluation and log the
    findings of the newest step. Once there is a runaway, no drift is reported.

    Args:
      history: lines of evaluations.jsonl of one split, in step order. Metrics may
        be estimates ({"value": ..}) or numbers. Lines of other splits than the
        first line's are ignored. A run without teacher_accuracy and
        teacher_entropy (GRPO, supervised) has no drift and no runaway.
      limits: see `Thresholds`.

    Returns:
      Findings in step order.
    """
    lines = [line for line in history if line.get("split") == history[0].get("split")]
    found: dict[str, Finding] = {}
    readings: list[_Reading] = []
    for line in lines:
        new = [_collapse_finding(lines[0], line, limits)]
        reading = _reading(line)
        if not any(math.isnan(number) for number in reading):
            readings.append(reading)
            new.append(_teacher_finding(readings, limits))
        for finding in new:
            late_drift = finding and finding.event == "teacher_drift" and "runaway" in found
            if finding and not late_drift:
                found.setdefault(finding.event, finding)
    return list(found.values())
