"""The sentence says more or fewer only where the interval excludes 0."""

import pytest

from sdd.measure.words import verdict
from sdd.metrics import Estimate


def e(value, low=None, high=None):
    return Estimate(value, value if low is None else low, value if high is None else high)


AFTER = {"pass@1": e(0.8), "pass@32": e(0.7), "distinct_correct@32": e(1.4), "vendi[x]": e(2.0)}
BEFORE = {"pass@1": e(0.68), "pass@32": e(0.91), "distinct_correct@32": e(3.9), "vendi[x]": e(4.0)}


def test_what_rose_and_what_it_cost():
    change = {
        "pass@1": e(0.12, 0.08, 0.16),
        "pass@32": e(-0.21, -0.25, -0.17),
        "distinct_correct@32": e(-2.5, -2.7, -2.2),
        "vendi[x]": e(-2, -3, -1),
    }
    assert verdict(AFTER, BEFORE, change) == (
        "pass@1 +0.12 [0.08, 0.16]; pass@32 -0.21 [-0.25, -0.17]; distinct correct strategies "
        "(distinct_correct@32) 3.9 -> 1.4, change -2.50 [-2.70, -2.20]: more right answers, fewer problems "
        "within 32 tries, fewer ways"
    )


@pytest.mark.parametrize(
    ("low", "high", "word"), [(0.01, 0.2, "more"), (-0.2, -0.01, "fewer"), (-0.1, 0.1, "about as many")]
)
def test_a_change_within_noise_is_none(low, high, word):
    change = {"pass@1": e(0.05, low, high)}
    assert verdict(AFTER, BEFORE, change).endswith(f": {word} right answers")


def test_without_strategies_embeddings_speak_and_without_those_texts():
    vendi, text = (
        {"vendi[x]": e(-2, -3, -1)},
        {"distinct_text@4": e(1, 0.5, 2), "distinct_text@2": e(1, 0.5, 2)},
    )
    assert "effective number of responses (vendi[x])" in verdict(AFTER, BEFORE, vendi | text)
    found = verdict({"distinct_text@4": e(3)}, {"distinct_text@4": e(2)}, text)
    assert "(distinct_text@4) 2 -> 3" in found and found.endswith(": more ways")


def test_without_a_baseline_there_are_values():
    found = verdict(AFTER, {}, {})
    assert found.startswith("pass@1 0.8 [0.8, 0.8]; pass@32 0.7") and "change" not in found


def test_what_is_undefined_is_not_spoken_of():
    nan = float("nan")
    assert verdict({"pass@1": e(nan), "vendi[x]": e(2.0)}, {}, {}).startswith("effective number")
