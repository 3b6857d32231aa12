"""Values, changes and intervals of two stores against numbers worked out by hand or the plain way."""

import math

import numpy as np
import pytest

from sdd.measure.compare import compare
from sdd.measure.records import Completion, MeasureError
from sdd.measure.run import choose_ks
from sdd.measure.store import Store
from sdd.measure.values import draw_samples, measure_groups
from sdd.metrics import pass_at_k


def fill(store, prompts):
    """prompts: id -> [(text, correct, strategy), ...]."""
    for name, rows in prompts.items():
        store.add(Completion(name, "", text, correct, None, way, None, "") for text, correct, way in rows)
    return store


def rows(n, c, texts="abcdefgh"):
    return [(f"{texts[i % len(texts)]} word", i < c, f"way {i % 2}") for i in range(n)]


def apply(groups, ks=(1, 2)):
    return measure_groups(groups, ks, [])


def run(after, before=None):
    with Store() as a, Store() as b:
        fill(a, after)
        baseline = fill(b, before) if before else None
        values = [apply(s.groups()) for s in (a, baseline) if s is not None]
        values += [None] * (2 - len(values))
        return compare(values[0], values[1], (a, baseline), apply, seed=0, num_resamples=500)


def test_values_of_prompts_of_unequal_size_are_each_prompts_own():
    prompts = {"p": rows(4, 1), "q": rows(7, 3), "r": rows(1, 1)}
    with Store() as store:
        values = apply(fill(store, prompts).groups())
    by_hand = [pass_at_k(4, 1, 2), pass_at_k(7, 3, 2), math.nan]
    np.testing.assert_allclose(values.by_name["pass@2"], by_hand)
    np.testing.assert_allclose(values.by_name["pass@1"], [1 / 4, 3 / 7, 1])
    assert [key[1] for key in values.keys] == ["p", "q", "r"]


def test_chunks_do_not_change_a_value(monkeypatch):
    prompts = {str(i): rows(2 + i % 5, i % 3) for i in range(20)}
    with Store() as store:
        fill(store, prompts)
        whole = apply(store.groups())
        monkeypatch.setattr("sdd.measure.values.CHUNK", 6)
        parts = apply(store.groups())
    assert whole.keys == parts.keys and list(whole.by_name) == list(parts.by_name)
    for name, value_B in whole.by_name.items():
        np.testing.assert_allclose(value_B, parts.by_name[name], err_msg=name)


def test_processes_do_not_change_a_value():
    with Store() as store:
        fill(store, {str(i): rows(4, i % 3) for i in range(20)})
        one, two = (measure_groups(store.groups(), (1, 2), [], workers=n) for n in (0, 2))
    for name, value_B in one.by_name.items():
        np.testing.assert_array_equal(value_B, two.by_name[name], err_msg=name)


def test_the_change_is_over_shared_prompts_and_each_side_over_its_own():
    after = {"p": rows(4, 4), "q": rows(4, 2), "only after": rows(4, 0)}
    before = {"q": rows(4, 1), "only before": rows(4, 4), "p": rows(4, 1)}
    c = run(after, before)
    assert c.shared == 2
    assert c.metrics["pass@1"].value == pytest.approx((1 + 0.5 + 0) / 3)
    assert c.baseline["pass@1"].value == pytest.approx((0.25 + 1 + 0.25) / 3)
    assert c.change["pass@1"].value == pytest.approx((0.75 + 0.25) / 2)
    assert c.change["pass@1"][1:] == pytest.approx((0.25, 0.75))  # resamples with one prompt twice


def test_pairs_cancel_what_makes_a_prompt_hard():
    """Every prompt gains exactly one right answer of four: no uncertainty, whatever the prompts."""
    before = {str(i): rows(4, i % 4) for i in range(12)}
    after = {str(i): rows(4, i % 4 + 1) for i in range(12)}
    change = run(after, before).change["pass@1"]
    assert change == pytest.approx((0.25, 0.25, 0.25))


def test_a_file_against_itself_changes_nothing():
    prompts = {str(i): rows(5, i % 4) for i in range(6)}
    for name, change in run(prompts, prompts).change.items():
        assert change in ((0, 0, 0), pytest.approx((math.nan,) * 3, nan_ok=True)), name


def test_what_grows_with_the_number_of_samples_is_compared_on_equally_many():
    """The same model sampled 64 and 8 times: without care its n-gram diversity would seem to fall."""
    rng = np.random.default_rng(0)
    text = lambda: " ".join(rng.choice(list("abcdefghij"), 12))  # noqa: E731
    sample = lambda n: [(text(), True, None) for _ in range(n)]  # noqa: E731
    after = {str(i): sample(64) for i in range(30)}
    before = {str(i): sample(8) for i in range(30)}
    c = run(after, before)
    assert c.equalised == 30
    naive = c.metrics["ngram_diversity"].value - c.baseline["ngram_diversity"].value
    assert naive < -0.5
    change = c.change["ngram_diversity"]
    assert change.low < 0 < change.high and abs(change.value) < 0.1
    # What is unbiased for every size keeps all samples: its interval is narrower than that of 8 each.
    assert c.change["rouge_l"].low < 0 < c.change["rouge_l"].high


def test_draws_are_uniform_without_replacement_and_repeatable():
    with Store() as store:
        group = next(fill(store, {"p": rows(8, 4)}).groups())
    counts = np.zeros(8)
    for seed in range(2000):
        drawn = draw_samples(group, 3, seed)
        assert len(set(drawn.completions)) == len(drawn.completions) == 3
        assert [group.completions.index(t) < 4 for t in drawn.completions] == list(drawn.correct)
        counts[[group.completions.index(t) for t in drawn.completions]] += 1
    assert ((counts - 750) ** 2 / 750).sum() < 24  # 7 degrees of freedom, p = 0.001
    assert draw_samples(group, 3, 5).completions == draw_samples(group, 3, 5).completions


def test_ungraded_prompts_have_no_pass_at_k_and_keep_their_diversity():
    with Store() as store:
        values = apply(fill(store, {"p": [("a b", None, None), ("a c", None, None)]}).groups())
        fill(store, {"q": [("a b", True, None), ("a c", False, None)]})
        mixed = apply(store.groups())
    assert not [name for name in values.by_name if name.startswith(("pass", "distinct_correct"))]
    assert values.by_name["distinct_text@2"] == pytest.approx([2])
    np.testing.assert_array_equal(mixed.by_name["pass@1"], [math.nan, 0.5])


@pytest.mark.parametrize(
    ("asked", "sizes", "expected"),
    [
        ((), [[64] * 10], (1, 2, 4, 8, 16, 32, 64)),
        ((), [[6] * 10], (1, 2, 4)),
        ((), [[16] * 99 + [1]], (1, 2, 4, 8, 16)),  # one straggler does not cost the curve
        ((), [[16] * 10, [4] * 10], (1, 2, 4)),
        ((5, 1, 5), [[6] * 3], (1, 5)),
    ],
)
def test_the_ks(asked, sizes, expected):
    assert choose_ks(asked, [np.array(s) for s in sizes]) == expected


@pytest.mark.parametrize("k", [0, 9])
def test_a_k_without_samples_is_refused(k):
    with pytest.raises(MeasureError, match=f"--k {k}: the largest prompt has 8 samples; valid: 1 to 8"):
        choose_ks((k,), [np.array([8, 4])])
