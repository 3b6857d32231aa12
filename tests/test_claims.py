import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from sdd import claims
from sdd.claims.compare import below, draws, entropy_correlation
from sdd.claims.runs import load_study

_spec = importlib.util.spec_from_file_location("study_maker", Path(__file__).parent / "report/study_maker.py")
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)

PAPER = ("C1", "C2", "C3", "C4", "C5", "C7")
KEYS = {"statement", "value", "low", "high", "holds", "seeds", "splits", "details"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return maker.write_study(tmp_path_factory.mktemp("study"), seeds=(0, 1))


@pytest.fixture(scope="module")
def found(study):
    return claims.compute(load_study(study))


def naive_mean(study, seed, method, split, quantity, step=None, prompts=None):
    """Mean over prompts, straight from the JSON lines."""
    folder = study / f"seed_{seed}" / method / "rollouts"
    folder = sorted(folder.iterdir())[-1] if step is None else folder / f"step_{step:06d}"
    rows = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
    return np.mean([quantity(row) for row in rows if prompts is None or row["prompt_id"] in prompts])


def naive(study, quantity, a, b, split="id"):
    """Mean over seeds of the difference of means; equal prompts on both sides."""
    differences = [
        naive_mean(study, s, a, split, quantity) - naive_mean(study, s, b, split, quantity) for s in (0, 1)
    ]
    return np.mean(differences)


def pass_at(k):
    return lambda row: maker.at_k(len(row["correct"]), [sum(row["correct"])], k)


def rise(row):
    return pass_at(32)(row) - pass_at(1)(row)


def distinct(k):
    return lambda row: maker.at_k(len(row["correct"]), maker.correct_counts(row), k)


def test_values_agree_with_a_direct_calculation(study, found):
    expected = {
        "C1": naive(study, pass_at(1), "sdsd_k1", "grpo"),
        "C2": naive(study, rise, "sdsd_k1", "grpo"),
        "C3": naive(study, pass_at(32), "sdsd_k1", "grpo", "harder"),
        "C4": naive(study, distinct(32), "sdsd_k1", "warm_start"),
        "C5": naive(study, distinct(32), "sdsd_k3", "grpo"),
    }
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected, abs=1e-9)
    details = {
        ("C2", "against_start"): naive(
            study, lambda r: pass_at(32)(r) - pass_at(1)(r), "sdsd_k1", "warm_start"
        ),
        ("C3", "against_diversity"): naive(study, pass_at(32), "sdsd_k1", "grpo_diversity", "harder"),
        ("C4", "distinct_against_grpo"): naive(study, distinct(32), "sdsd_k1", "grpo"),
        ("C4", "pass_against_start"): naive(study, pass_at(32), "sdsd_k1", "warm_start"),
        ("C4", "pass_harder_against_start"): naive(study, pass_at(32), "sdsd_k1", "warm_start", "harder"),
        ("C5", "pass_harder_against_grpo"): naive(study, pass_at(32), "sdsd_k3", "grpo", "harder"),
    }
    for (name, key), value in details.items():
        assert found[name]["details"][key]["value"] == pytest.approx(value, abs=1e-9), (name, key)


def test_c7_window_value_and_strategies(study, found):
    shared = {f"id-{i}" for i in range(16)}  # the evaluations before the last have these
    entropy = lambda row: np.mean(row["token_entropy"])  # noqa: E731 (all rollouts have equal lengths)
    changes = {
        key: np.mean(
            [
                naive_mean(study, s, "sdsd_k1", "id", quantity, 300, shared)
                - naive_mean(study, s, "sdsd_k1", "id", quantity, 200, shared)
                for s in (0, 1)
            ]
        )
        for key, quantity in (("token_entropy", entropy), ("distinct", distinct(32)))
    }
    c7 = found["C7"]
    assert c7["details"]["windows"] == {"0": [200, 300], "1": [200, 300]}
    assert c7["value"] == pytest.approx(changes["token_entropy"])
    assert c7["details"]["distinct"]["value"] == pytest.approx(changes["distinct"])
    assert c7["details"]["num_prompts"] == {"0": 16, "1": 16}
    assert c7["holds"] is True


def test_interval_is_the_paired_bootstrap(tmp_path):
    study = maker.write_study(tmp_path, final=40)
    c3 = claims.compute(load_study(study))["C3"]
    difference_B = []
    for method in ("sdsd_k1", "grpo"):
        path = study / f"seed_0/{method}/rollouts/step_000300/harder.jsonl"
        difference_B.append([pass_at(32)(json.loads(line)) for line in path.read_text().splitlines()])
    difference_B = np.subtract(*difference_B)
    error = difference_B.std(ddof=1) / math.sqrt(len(difference_B))
    assert c3["low"] == pytest.approx(difference_B.mean() - 1.96 * error, abs=0.3 * error)
    assert c3["high"] == pytest.approx(difference_B.mean() + 1.96 * error, abs=0.3 * error)


def test_the_papers_pattern_holds_and_its_absence_does_not(found, tmp_path):
    assert {name: found[name]["holds"] for name in PAPER} == dict.fromkeys(PAPER, True)
    study = maker.write_study(tmp_path, counts=maker.NO_LOSS, entropies=(0.7, 0.6, 0.5, 0.4))
    holds = {
        name: claim["holds"] for name, claim in claims.compute(load_study(study)).items() if name in PAPER
    }
    # C2 holds still: pass@1 rose, and pass@32 was at its ceiling.
    assert holds == {"C1": True, "C2": True, **dict.fromkeys(("C3", "C4", "C5", "C7"), False)}


def test_c1_fails_below_the_margin_and_c2_where_the_rise_is_the_starts(tmp_path):
    counts = {**maker.COUNTS, "sdsd_k1": maker.COUNTS["warm_start"], "grpo": maker.COUNTS["grpo_diversity"]}
    found = claims.compute(load_study(maker.write_study(tmp_path, counts=counts)))
    assert found["C1"]["value"] < -0.03 and found["C1"]["holds"] is False
    assert found["C2"]["value"] > 0 and found["C2"]["holds"] is False


def test_each_condition_of_c4_is_needed(tmp_path):
    # Fewer strategies than at the start, but not fewer than GRPO, which is as poor.
    counts = {**maker.COUNTS, "grpo": maker.COUNTS["sdsd_k1"]}
    c4 = claims.compute(load_study(maker.write_study(tmp_path, counts=counts)))["C4"]
    assert c4["high"] < 0 and c4["holds"] is False


def test_window_without_a_rise_is_empty(tmp_path):
    study = maker.write_study(tmp_path, entropies=(0.7, 0.6, 0.5, 0.4))
    c7 = claims.compute(load_study(study))["C7"]
    assert c7["details"]["windows"] == {"0": [300, 300]}
    assert c7["value"] == 0 and c7["holds"] is False


def test_missing_method_leaves_its_claims_open(tmp_path):
    counts = {name: by_split for name, by_split in maker.COUNTS.items() if name != "grpo_diversity"}
    found = claims.write(maker.write_study(tmp_path, counts=counts))
    assert found["C3"]["holds"] is None and found["C3"]["value"] is None
    assert found["C3"]["details"]["missing"] == ["grpo_diversity (seed 0): not run"]
    assert found["C1"]["holds"] is not None and "missing" not in found["C1"]["details"]
    assert json.loads((tmp_path / "claims.json").read_text()) == found
    assert all(claim.keys() == KEYS for claim in found.values())


def test_unfinished_run_is_not_compared(tmp_path):
    study = maker.write_study(tmp_path, seeds=(0, 1))
    config = study / "seed_1/sdsd_k1/config.json"
    config.write_text(config.read_text().replace('"num_steps": 300', '"num_steps": 600'))
    c1 = claims.compute(load_study(study))["C1"]
    assert c1["seeds"] == [0]
    assert c1["details"]["missing"] == ["sdsd_k1 (seed 1): unfinished, last evaluation at step 300 of 600"]


def test_deleted_rollouts_are_named(tmp_path):
    study = maker.write_study(tmp_path)
    (study / "seed_0/sdsd_k1/rollouts/step_000100/id.jsonl").unlink()
    found = claims.compute(load_study(study))
    assert found["C7"]["details"]["missing"] == ["sdsd_k1 (seed 0): no file rollouts/step_000100/id.jsonl"]
    assert found["C1"]["holds"] is not None


def test_prompts_are_joined_by_id_in_any_order(tmp_path):
    study = maker.write_study(tmp_path)
    before = claims.compute(load_study(study))
    path = study / "seed_0/grpo/rollouts/step_000300/id.jsonl"
    lines = path.read_text().splitlines()
    extra = json.dumps(maker.row("only-here", "id", (64, 0, 0, 0, 0), 0.1))
    path.write_text("\n".join([extra, *reversed(lines)]) + "\n")
    after = claims.compute(load_study(study))
    assert after["C1"] == before["C1"] and after["C2"] == before["C2"]


def test_a_task_without_strategies_leaves_strategy_claims_open(tmp_path):
    study = maker.write_study(tmp_path)
    for path in study.rglob("rollouts/*/*.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        maker.write_lines(path, [row | {"strategy": [None] * len(row["strategy"])} for row in rows])
    found = claims.compute(load_study(study))
    assert found["C4"]["value"] is None and found["C4"]["holds"] is None
    assert found["C3"]["holds"] is True


@pytest.mark.parametrize("n, averaged, k", [(64, True, 32), (32, True, 16), (64, False, 32), (24, False, 16)])
def test_number_of_draws(tmp_path, n, averaged, k):
    maker.write_lines(tmp_path / "r.jsonl", [maker.row("p", "id", (n, 0, 0, 0, 0), 0.1)])
    from sdd.claims.runs import read_rollouts

    assert draws([read_rollouts(tmp_path / "r.jsonl")], averaged) == k


def test_rounding_is_not_a_difference():
    assert not below({"value": -3e-16, "low": -4e-16, "high": -2e-16})
    assert below({"value": -0.2, "low": -0.3, "high": -0.1})


def test_rank_correlation_of_entropy_and_strategies(tmp_path):
    for step, (entropy, distinct_now) in enumerate([(0.1, 3.0), (0.2, 2.0), (0.3, 2.5), (0.4, 1.0)]):
        metrics = {"token_entropy": {"value": entropy}, "distinct_correct@8": {"value": distinct_now}}
        folder = tmp_path / "seed_0/grpo"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        with (folder / "evaluations.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "split": "id", "metrics": metrics}) + "\n")
    # Ranks 1 2 3 4 against 4 2 3 1: 1 - 6 * (9 + 0 + 0 + 9) / (4 * 15).
    assert entropy_correlation(load_study(tmp_path)) == {
        "value": pytest.approx(1 - 6 * 18 / 60),
        "num_points": 4,
        "k": 8,
    }
