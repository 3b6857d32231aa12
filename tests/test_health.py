"""The detector on histories like those that the method's trials showed, and on healthy ones."""

import pytest

from sdd.health import Thresholds, diagnose


def history(steps, **metrics):
    """Lines of evaluations.jsonl from a list of values a metric; `at` in a name stands for @."""
    lines = []
    for i, step in enumerate(steps):
        values = {name.replace("_at_", "@"): column[i] for name, column in metrics.items()}
        estimates = {n: {"value": v, "low": v, "high": v} for n, v in values.items() if v is not None}
        lines.append({"step": step, "split": "id", "metrics": estimates})
    return lines


STEPS = (0, 100, 200, 300, 400, 500, 600)
RUNAWAY = dict(
    teacher_accuracy=[0.91, 0.93, 0.939, 0.91, 0.866, 0.78, 0.673],
    teacher_entropy=[0.06, 0.04, 0.04, 0.08, 0.19, 0.45, 0.79],
    token_entropy=[0.72, 0.50, 0.38, 0.36, 0.41, 0.55, 0.90],
    pass_at_1=[0.61, 0.75, 0.81, 0.82, 0.80, 0.72, 0.53],
)


def events(lines, **limits):
    return [(f.event, f.step) for f in diagnose(lines, Thresholds(**limits))]


def test_a_runaway_begins_as_a_drift_and_is_named_with_its_numbers():
    findings = diagnose(history(STEPS, **RUNAWAY))
    assert [(f.event, f.step) for f in findings] == [("teacher_drift", 400), ("runaway", 500)]
    drift, runaway = (f.message for f in findings)
    assert drift.startswith("teacher_drift: ") and "pass@1 has not fallen yet, 0.800" in drift
    assert runaway.startswith("runaway: ") and "\n" not in runaway
    for part in (
        "from step 200 to 500",
        "0.939 to 0.780",
        "0.040 to 0.450",
        "0.360 to 0.550",
        "0.820 to 0.720",
    ):
        assert part in runaway
    for part in ("nothing pulls", "slower teacher", "trust region", "lower learning rate"):
        assert part in runaway


def test_a_fast_runaway_from_the_first_evaluation():
    lines = history(
        (0, 100),
        teacher_accuracy=[0.93, 0.2],
        teacher_entropy=[0.05, 1.5],
        token_entropy=[0.72, 1.86],
        pass_at_1=[0.61, 0.11],
    )
    assert events(lines) == [("runaway", 100)]


def test_a_longer_history_never_changes_an_earlier_finding():
    lines = history(STEPS, **RUNAWAY)
    full = diagnose(lines)
    for end in range(len(lines) + 1):
        last = lines[end - 1]["step"] if end else -1
        assert diagnose(lines[:end]) == [f for f in full if f.step <= last]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("teacher_accuracy", [0.93, 0.94, 0.95, 0.95, 0.95, 0.94, 0.93]),
        ("teacher_entropy", [0.06, 0.04, 0.04, 0.04, 0.04, 0.04, 0.044]),
    ],
)
def test_a_teacher_that_holds_is_not_a_runaway(name, values):
    assert events(history(STEPS, **RUNAWAY | {name: values})) == []


@pytest.mark.parametrize(
    ("name", "values", "text"),
    [
        ("token_entropy", [0.72, 0.5, 0.38, 0.36, 0.36, 0.37, 0.38], "pass@1 has not fallen yet, 0.800"),
        ("pass_at_1", [0.61, 0.75, 0.81, 0.82, 0.82, 0.82, 0.83], "pass@1 has not fallen yet, 0.820"),
    ],
)
def test_a_student_that_holds_leaves_it_at_a_drift(name, values, text):
    (finding,) = diagnose(history(STEPS, **RUNAWAY | {name: values}))
    assert finding.event == "teacher_drift" and finding.step == 400 and text in finding.message


def test_a_drift_that_took_pass_at_1_along_says_so():
    lines = history(
        (0, 100),
        teacher_accuracy=[0.93, 0.8],
        teacher_entropy=[0.05, 0.3],
        token_entropy=[0.7, 0.7],
        pass_at_1=[0.61, 0.4],
    )
    (finding,) = diagnose(lines)
    assert finding.event == "teacher_drift" and "pass@1 fell from 0.610 to 0.400" in finding.message


def test_after_a_runaway_no_drift_is_reported():
    lines = history(
        (0, 100, 200),
        teacher_accuracy=[0.93, 0.7, 0.8],
        teacher_entropy=[0.05, 0.9, 0.4],
        token_entropy=[0.5, 1.2, 0.6],
        pass_at_1=[0.61, 0.4, 0.6],
    )
    assert events(lines) == [("runaway", 100)]


def test_thresholds_are_obeyed():
    lines = history(STEPS, **RUNAWAY)
    assert events(lines, teacher_accuracy_drop=0.2) == [("runaway", 600)]
    assert events(lines, pass_drop=0.2) == [("teacher_drift", 400), ("runaway", 600)]
    assert events(lines, token_entropy_factor=2.0) == [("teacher_drift", 400), ("runaway", 600)]
    assert events(lines, teacher_entropy_factor=100) == []
    assert events(lines, teacher_entropy_rise=2.0) == []


def test_a_healthy_run_without_a_teacher():
    lines = history(
        STEPS,
        token_entropy=[0.72, 0.5, 0.4, 0.38, 0.5, 0.6, 0.7],
        pass_at_1=[0.61, 0.7, 0.8, 0.82, 0.7, 0.6, 0.5],
        distinct_correct_at_32=[3.8, 3.5, 3.2, 3.0, 2.9, 2.8, 2.7],
    )
    assert diagnose(lines) == []
    assert diagnose([]) == []


def test_a_healthy_self_distillation_run_and_a_missing_reading():
    lines = history(
        STEPS,
        teacher_accuracy=[0.91, 0.95, None, 0.96, float("nan"), 0.95, 0.96],
        teacher_entropy=[0.06, 0.03, None, 0.02, float("nan"), 0.02, 0.015],
        token_entropy=[0.72, 0.5, 0.4, 0.38, 0.36, 0.35, 0.36],
        pass_at_1=[0.61, 0.7, 0.8, 0.82, 0.83, 0.83, 0.83],
    )
    assert diagnose(lines) == []


COLLAPSE = dict(
    distinct_correct_at_8=[3.0, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4],
    distinct_correct_at_32=[3.8, 3.2, 2.2, 1.8, 1.5, 1.3, 1.1],
    pass_at_1=[0.60, 0.7, 0.8, 0.82, 0.83, 0.83, 0.83],
)


def test_a_collapse_of_strategies_at_the_largest_k():
    (finding,) = diagnose(history(STEPS, **COLLAPSE))
    assert (finding.event, finding.step) == ("collapse_of_strategies", 200)
    assert (
        "distinct_correct@32 fell from 3.80 to 2.20 while pass@1 rose from 0.600 to 0.800" in finding.message
    )


def test_a_collapse_with_a_falling_pass_at_1_is_another_failure():
    assert diagnose(history(STEPS, **COLLAPSE | {"pass_at_1": [0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.1]})) == []


def test_the_final_evaluation_may_have_more_samples():
    # Only k = 32 is in both: distinct_correct@64 of the end must not be held against it.
    lines = history((0, 300), distinct_correct_at_32=[3.8, 2.0], pass_at_1=[0.6, 0.8])
    lines[1]["metrics"]["distinct_correct@64"] = 3.7
    assert events(lines) == [("collapse_of_strategies", 300)]


def test_other_splits_and_plain_numbers():
    lines = history(STEPS, **RUNAWAY)
    sharp = {"teacher_accuracy": 0.99, "teacher_entropy": 0.01, "token_entropy": 0.01, "pass@1": 0.99}
    harder = [{"step": s, "split": "harder", "metrics": sharp} for s in STEPS]
    mixed = [line for pair in zip(lines, harder) for line in pair]
    plain = [
        line | {"metrics": {n: e["value"] if isinstance(e, dict) else e for n, e in line["metrics"].items()}}
        for line in mixed
    ]
    assert diagnose(plain) == diagnose(mixed) == diagnose(lines) != []


def test_a_measured_runaway_is_warned_of_before_pass_at_1_has_fallen():
    """SDPO on the concept graph task, one seed, an evaluation every 50 steps (docs/runaway.md)."""
    columns = {
        "pass@1": [0.550, 0.804, 0.841, 0.845, 0.846, 0.842, 0.809, 0.762, 0.692, 0.582, 0.535],
        "teacher_accuracy": [0.955, 0.966, 0.971, 0.979, 0.998, 0.987, 0.962, 0.946, 0.859, 0.853, 0.801],
        "teacher_entropy": [0.154, 0.088, 0.043, 0.033, 0.023, 0.023, 0.028, 0.038, 0.058, 0.064, 0.087],
        "token_entropy": [0.847, 0.268, 0.130, 0.082, 0.062, 0.050, 0.060, 0.066, 0.069, 0.082, 0.090],
    }
    found = events(history([50 * i for i in range(11)], **columns))
    assert found == [("teacher_drift", 300), ("runaway", 350)]
