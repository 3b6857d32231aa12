"""Bootstraps: coverage by simulation, pairing, undefined prompts, determinism."""

import json

import numpy as np
import pytest

from sdd.metrics import (
    Estimate,
    bootstrap,
    bootstrap_over_seeds,
    paired_bootstrap,
    paired_bootstrap_over_seeds,
)


def width(estimate: Estimate) -> float:
    return estimate.high - estimate.low


def test_coverage_is_near_the_level():
    rng = np.random.default_rng(0)
    for level in (0.8, 0.95):
        inside = 0
        for i in range(400):
            e = bootstrap(rng.beta(2, 3, 80), seed=i, num_resamples=400, level=level)
            inside += e.low <= 0.4 <= e.high
        assert inside / 400 == pytest.approx(level, abs=0.05)


def test_the_interval_is_that_of_resampling_by_index():
    values = np.random.default_rng(1).exponential(size=60)
    e = bootstrap(values, seed=0, num_resamples=20_000)
    draws = np.random.default_rng(2).integers(60, size=(20_000, 60))
    low, high = np.quantile(values[draws].mean(1), [0.025, 0.975])
    assert e.value == pytest.approx(values.mean())
    assert (e.low, e.high) == pytest.approx((low, high), abs=0.01)


def test_a_seed_fixes_the_interval_and_a_dict_shares_resamples():
    values = np.random.default_rng(0).random(50)
    one = bootstrap(values, seed=3)
    assert one == bootstrap(values, seed=3) != bootstrap(values, seed=4)
    both = bootstrap({"a": values, "b": 1 - values}, seed=3)
    assert list(both) == ["a", "b"] and both["a"] == pytest.approx(one)
    assert (both["b"].low, both["b"].high) == pytest.approx((1 - one.high, 1 - one.low))


def test_undefined_prompts_are_left_out():
    values = np.random.default_rng(0).random(40)
    padded = np.concatenate([values, np.full(40, np.nan)])
    e = bootstrap(padded, seed=0, num_resamples=4000)
    assert e.value == pytest.approx(values.mean())
    assert width(e) == pytest.approx(width(bootstrap(values, seed=0, num_resamples=4000)), rel=0.15)


def test_nothing_defined_is_nan_without_warnings():
    with np.errstate(all="raise"):
        for values in (np.full(5, np.nan), np.zeros(0)):
            assert all(np.isnan(bootstrap(values, seed=0)))
        assert bootstrap({}, seed=0) == {}


def test_one_prompt_has_no_width_and_json_takes_it():
    e = bootstrap(np.array([0.5], np.float32), seed=0)
    assert json.loads(json.dumps(e._asdict())) == {"value": 0.5, "low": 0.5, "high": 0.5}


def test_paired_is_narrower_when_prompts_are_shared():
    rng = np.random.default_rng(0)
    difficulty = rng.random(100)
    a, b = difficulty + rng.normal(0.1, 0.05, 100), difficulty + rng.normal(0, 0.05, 100)
    paired = paired_bootstrap(a, b, seed=0)
    unpaired = np.hypot(width(bootstrap(a, seed=0)), width(bootstrap(b, seed=1)))
    assert paired.value == pytest.approx(a.mean() - b.mean())
    assert 0 < paired.low < paired.value < paired.high
    assert width(paired) < unpaired / 3


def test_paired_leaves_out_prompts_undefined_on_either_side_and_metrics_of_one_side():
    a = {"x": np.array([1.0, np.nan, 3.0]), "only_a": np.zeros(3)}
    b = {"x": np.array([0.0, 0.0, np.nan])}
    got = paired_bootstrap(a, b, seed=0)
    assert list(got) == ["x"] and got["x"].value == 1.0


def test_over_seeds_covers_the_spread_between_seeds():
    rng = np.random.default_rng(0)
    inside = narrow = 0
    for i in range(100):
        effects = rng.normal(0, 0.1, 8)
        seeds = [0.5 + effect + rng.normal(0, 0.3, 60) for effect in effects]
        e = bootstrap_over_seeds(seeds, seed=i, num_resamples=200)
        inside += e.low <= 0.5 <= e.high
        pooled = bootstrap(np.concatenate(seeds), seed=i, num_resamples=200)
        narrow += pooled.low <= 0.5 <= pooled.high
    assert inside / 100 > 0.88
    assert narrow / 100 < 0.75  # pooling the prompts forgets the seeds


def test_over_seeds_weighs_seeds_alike_and_leaves_out_undefined_ones():
    seeds = [np.full(2, 1.0), np.full(50, 3.0), np.full(4, np.nan)]
    e = bootstrap_over_seeds(seeds, seed=0)
    assert e.value == 2.0 and (e.low, e.high) == (1.0, 3.0)


def test_over_one_seed_is_the_bootstrap_over_prompts():
    values = np.random.default_rng(0).random(60)
    one = bootstrap_over_seeds([values], seed=0, num_resamples=20_000)
    assert one == pytest.approx(bootstrap(values, seed=1, num_resamples=20_000), abs=0.005)


def test_paired_over_seeds_cancels_what_seeds_share():
    rng = np.random.default_rng(0)
    shared = [rng.normal(effect, 0.3, 40) for effect in rng.normal(0, 0.3, 4)]
    a = [{"m": s + rng.normal(0.05, 0.02, 40)} for s in shared]
    b = [{"m": s} for s in shared]
    e = paired_bootstrap_over_seeds(a, b, seed=0)["m"]
    assert 0.03 < e.low < e.value < e.high < 0.07
    differences = [x["m"] - y["m"] for x, y in zip(a, b)]
    assert e == pytest.approx(bootstrap_over_seeds(differences, seed=0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap({"a": np.zeros(3), "b": np.zeros(2)}, seed=0), "one number a prompt"),
        (lambda: bootstrap(np.zeros((2, 2)), seed=0), "one number a prompt"),
        (lambda: bootstrap(np.zeros(2), seed=0, level=95), "level = 95"),
        (lambda: bootstrap(np.zeros(2), seed=0, num_resamples=0), "num_resamples = 0"),
        (lambda: paired_bootstrap(np.zeros(2), np.zeros(3), seed=0), "the same prompts on both sides"),
        (lambda: bootstrap_over_seeds([], seed=0), "no seeds"),
        (lambda: bootstrap_over_seeds([np.zeros(2), {"a": np.zeros(2)}], seed=0), "all alike"),
        (lambda: paired_bootstrap_over_seeds([np.zeros(2)], [], seed=0), "1 and 0 seeds"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
