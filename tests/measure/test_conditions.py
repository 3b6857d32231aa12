"""--fail-if: what it reads, what it refuses, and that nothing it cannot tell passes."""

import pytest

from sdd.measure.conditions import holds, parse
from sdd.measure.records import MeasureError
from sdd.metrics import Estimate

NAN = float("nan")
METRICS = {
    "distinct@8": Estimate(1.5, 1.2, 1.9),
    "vendi[a.b]": Estimate(3, 2, 4),
    "x": Estimate(NAN, NAN, NAN),
}
BASELINE = {"distinct@8": Estimate(2.0, 1.9, 2.1), "vendi[a.b]": Estimate(3, 2, 4), "x": Estimate(1, 1, 1)}
CHANGE = {"distinct@8": Estimate(-0.5, -0.7, -0.3), "vendi[a.b]": Estimate(0, -1, 1)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("distinct@8 < 0.8 * baseline", True),  # 1.5 < 1.6
        ("distinct@8 < 0.7 * baseline", False),
        ("distinct@8<1.5", False),
        ("distinct@8 <= 1.5", True),
        (" distinct@8.high < baseline ", True),
        ("distinct@8.low >= 1.2", True),
        ("distinct@8.change < 0", True),
        ("distinct@8.change.high < 0", True),
        ("distinct@8.change.high < -0.3", False),
        ("vendi[a.b] > baseline - (1 + 1) / 4", True),
        ("vendi[a.b].change < -1e-9", False),
    ],
)
def test_conditions(text, expected):
    assert holds(parse(text), METRICS, BASELINE, CHANGE) is expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "distinct@8", "distinct@8 = 3", "distinct@8 == 3", "a < b < c", "< 3", "distinct@8 <", "x < y"),
        *(
            "x < __import__('os')",
            "x < baseline.real",
            "x < True",
            "x < [1]",
            "x < 2 ** 99",
            "x < (",
            "x < 'a'",
        ),
        "x < " + "(" * 500 + "1" + ")" * 500,
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(text):
    with pytest.raises(MeasureError) as error:
        holds(parse(text), METRICS, BASELINE, CHANGE)
    assert "\n" not in str(error.value) and "--fail-if" in str(error.value)


@pytest.mark.parametrize(
    ("text", "baseline", "says"),
    [
        ("distinct@8 < baseline", {}, "there is no baseline"),
        ("distinct@8.change < 0", {}, "there is no baseline"),
        ("distinct@9 < 1", BASELINE, "no metric 'distinct@9' (nearest: distinct@8)"),
        ("x < 1", BASELINE, "undefined for every prompt"),
        ("distinct@8 < 1 / 0", BASELINE, "divides by zero"),
    ],
)
def test_what_cannot_be_told_never_passes(text, baseline, says):
    with pytest.raises(MeasureError) as error:
        holds(parse(text), METRICS, baseline, CHANGE if baseline else {})
    assert says in str(error.value)
