"""C8 and C9: the claims that are not about the paper's runs alone."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from sdd import claims
from sdd.claims.fits import Predicted, fits
from sdd.claims.runs import load_study

_spec = importlib.util.spec_from_file_location("study_maker", Path(__file__).parent / "report/study_maker.py")
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)


def pairs(seed, strength, prompts=60, size=4, noise=0.5):
    """Pairs whose measured change is ``strength`` times the prediction plus the start's ratio and noise."""
    rng = np.random.default_rng(seed)
    start_X, extra_X = rng.normal(size=(2, prompts * size))
    given_X = 0.7 * start_X + extra_X
    measured_X = strength * given_X + start_X + noise * rng.normal(size=prompts * size)
    return Predicted(np.repeat(np.arange(prompts), size), given_X, measured_X, start_X)


def write_theory(study, seed, runs):
    columns = {
        name: {
            "prompt": p.prompt_X.tolist(),
            "given": p.predicted_X.tolist(),
            "measured": p.measured_X.tolist(),
            "start": p.held_X.tolist(),
        }
        for name, p in runs.items()
    }
    (study / f"seed_{seed}" / "theory.json").write_text(json.dumps({"pairs": columns}))


def test_partial_correlation_is_that_of_the_residuals():
    columns = [pairs(0, 0.3), pairs(1, 0.3)]
    x, y, z = (np.concatenate([c[i] for c in columns]) for i in (1, 2, 3))
    left = [v - z * (v @ z) / (z @ z) for v in (x, y)]
    expected = left[0] @ left[1] / np.sqrt((left[0] @ left[0]) * (left[1] @ left[1]))
    found = fits(columns)
    assert found["partial"].value == pytest.approx(expected)
    assert found["slope"].value == pytest.approx(x @ y / (x @ x))
    assert found["partial"].low < expected < found["partial"].high


def test_an_interval_over_seeds_holds_what_differs_between_them():
    alike, apart = [pairs(s, 0.5) for s in range(4)], [pairs(s, v) for s, v in enumerate((0, 0.3, 0.9, 2))]
    width = lambda estimate: estimate.high - estimate.low  # noqa: E731
    assert width(fits(apart)["slope"]) > 3 * width(fits(alike)["slope"])


def test_c8_needs_the_prediction_to_hold_under_sdsd_and_not_under_rl(tmp_path):
    study = maker.write_study(tmp_path, seeds=(0, 1))
    assert claims.compute(load_study(study))["C8"]["holds"] is None
    for seed in (0, 1):
        write_theory(study, seed, {"sdsd_k1": pairs(seed, 0.8), "grpo_anchored": pairs(seed + 5, 0.0)})
    c8 = claims.compute(load_study(study))["C8"]
    assert c8["holds"] is True and c8["seeds"] == [0, 1]
    assert c8["details"]["runs"]["grpo_anchored"]["partial"]["low"] < 0
    assert c8["details"]["runs"]["sdsd_k1"]["pairs"] == 480
    for seed in (0, 1):
        write_theory(study, seed, {"sdsd_k1": pairs(seed, 0.8), "grpo_anchored": pairs(seed + 5, 0.8)})
    assert claims.compute(load_study(study))["C8"]["holds"] is False


def test_a_seed_without_predictions_is_named_and_a_broken_file_too(tmp_path):
    study = maker.write_study(tmp_path, seeds=(0, 1))
    write_theory(study, 0, {"sdsd_k1": pairs(0, 0.8), "grpo_anchored": pairs(1, 0.0)})
    c8 = claims.compute(load_study(study))["C8"]
    assert c8["seeds"] == [0]
    assert c8["details"]["missing"] == ["theory.json (seed 1): lacks sdsd_k1, grpo_anchored"]
    (study / "seed_1" / "theory.json").write_text('{"pairs": ')
    with pytest.raises(ValueError, match=r"seed_1/theory.json: not a theory.json .*") as error:
        claims.compute(load_study(study))
    assert "\n" not in str(error.value)


CURED = {"id": (20, 16, 12, 8, 6), "larger": (18, 14, 11, 8, 6), "harder": (0, 16, 14, 10, 8)}


@pytest.mark.parametrize(
    "changed, holds",
    [
        ({}, True),
        ({"id": (12, 10, 8, 6, 4)}, False),
        ({"larger": (10, 8, 6, 4, 2)}, False),
        ({"harder": (0, 16, 0, 0, 0)}, False),
    ],
)
def test_c9_needs_pass_at_1_of_the_one_and_strategies_of_the_other(tmp_path, changed, holds):
    counts = {**maker.COUNTS, "csd": CURED | changed}
    c9 = claims.compute(load_study(maker.write_study(tmp_path, counts=counts, seeds=(0, 1), final=60)))["C9"]
    assert c9["holds"] is holds
    assert c9["value"] == c9["details"]["pass@1"]["value"]


def test_the_plane_names_who_is_dominated(tmp_path):
    counts = {**maker.COUNTS, "csd": CURED}
    study = maker.write_study(tmp_path, counts=counts, final=60)
    plane = claims.compute(load_study(study))["C9"]["details"]["plane"]
    assert set(plane) == set(counts)
    point = {n: (e["pass@1"]["value"], e["distinct_correct"]["value"]) for n, e in plane.items()}
    for name, each in plane.items():
        better = {o for o, p in point.items() if all(np.greater_equal(p, point[name])) and p != point[name]}
        assert set(each["dominated_by"]) == better
    assert plane["csd"]["dominated_by"] == []
    assert "csd" in plane["grpo_diversity"]["dominated_by"]
