"""Claim C6 on studies whose rollouts have known counts."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest

from sdd.claims import external
from sdd.claims.runs import load_study
from sdd.report import external as figure

_spec = importlib.util.spec_from_file_location("study_maker", Path(__file__).parent / "report/study_maker.py")
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)

WIDE = maker.COUNTS["grpo_diversity"]
WRITERS = {"warm_start": maker.COUNTS["warm_start"], "grpo": maker.COUNTS["grpo"], "bonus": WIDE}
NARROW = maker.COUNTS["sdsd_k1"]
STUDENTS = {f"sdft_{writer}": NARROW for writer in WRITERS}


def write(path, students, seeds=(0, 1)):
    """A study with what C6 needs; sets have 8 rollouts of 12 prompts each."""
    counts = {**{name: maker.COUNTS[name] for name in ("warm_start", "grpo", "sdsd_k1")}, "bonus": WIDE}
    maker.write_study(path, counts=counts | students, seeds=seeds)
    for seed in seeds:
        for w, (writer, by_split) in enumerate(WRITERS.items()):
            folder = path / f"seed_{seed}"
            set_path = folder / "demonstrations" / f"{writer}.jsonl"
            records = maker.records("train", np.array(by_split["id"]), 12, 8, 0.5, seed=70 + 10 * seed + w)
            maker.write_lines(set_path, records)
            config = json.loads((folder / f"sdft_{writer}" / "config.json").read_text())
            config["step"] = {"name": "sdd.steps.sdft", "demonstrations": f"/somewhere/else/{writer}.jsonl"}
            (folder / f"sdft_{writer}" / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write(tmp_path_factory.mktemp("study"), STUDENTS)


def rows(study, seed, run, split="id"):
    path = sorted((study / f"seed_{seed}" / run / "rollouts").iterdir())[-1] / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def distinct(row, k):
    return maker.at_k(len(row["correct"]), maker.correct_counts(row), k)


def naive(study, run, k=32):
    return [np.mean([distinct(row, k) for row in rows(study, seed, run)]) for seed in (0, 1)]


def shown(study, seed, writer):
    path = study / f"seed_{seed}" / "demonstrations" / f"{writer}.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    rights = [[s for s, right in zip(r["strategy"], r["correct"]) if right] for r in records]
    entropies = [-sum(p * math.log(p) for p in (x.count(s) / len(x) for s in set(x))) for x in rights if x]
    return np.mean([len(set(x)) for x in rights]), np.mean(entropies)


def test_the_value_is_that_of_the_most_diverse_set(study):
    claim = external.compute(load_study(study))
    assert set(claim) == {"statement", "value", "low", "high", "holds", "seeds", "splits", "details"}
    means = {w: np.mean([shown(study, seed, w)[0] for seed in (0, 1)]) for w in WRITERS}
    most = max(means, key=means.get)
    assert claim["details"]["most_diverse"] == most == "bonus"
    want = np.mean(np.subtract(naive(study, "sdft_bonus"), naive(study, "bonus")))
    assert claim["value"] == pytest.approx(want) and claim["low"] < want < claim["high"] < 0
    assert claim["holds"] is True and claim["seeds"] == [0, 1] and claim["splits"] == ["id", "harder"]
    sets = claim["details"]["sets"]
    for writer in WRITERS:
        for name, other in (("writer", writer), ("start", "warm_start"), ("sdsd", "sdsd_k1")):
            want = np.mean(np.subtract(naive(study, f"sdft_{writer}"), naive(study, other)))
            assert sets[writer][f"against_{name}"]["value"] == pytest.approx(want, abs=1e-9)
        assert sets[writer]["shown"] == pytest.approx(means[writer])


def test_the_slope_is_least_squares_of_each_seed(study):
    found = external.table(load_study(study))
    slopes = []
    for seed in (0, 1):
        x = [shown(study, seed, writer)[0] for writer in WRITERS]
        y = [naive(study, f"sdft_{writer}")[seed] for writer in WRITERS]
        slopes.append(np.polyfit(x, y, 1)[0])
    assert found["slope"]["value"] == pytest.approx(np.mean(slopes))
    for writer, each in found["sets"].items():
        entropy = np.mean([shown(study, seed, writer)[1] for seed in (0, 1)])
        assert each["shown_entropy"] == pytest.approx(entropy)
        assert each["shown_right"] < each["covered"] <= 1


def test_a_student_that_keeps_what_it_is_shown_is_seen(tmp_path):
    path = write(tmp_path, {f"sdft_{writer}": counts for writer, counts in WRITERS.items()})
    claim = external.compute(load_study(path))
    assert claim["holds"] is False
    assert claim["details"]["slope"]["low"] > 0
    narrow = external.compute(load_study(write(tmp_path / "narrow", STUDENTS)))["details"]["slope"]
    assert abs(narrow["value"]) < 0.3 * claim["details"]["slope"]["value"]


def test_what_is_missing_is_named_and_its_seed_left_out(tmp_path):
    path = write(tmp_path, STUDENTS)
    (path / "seed_1" / "demonstrations" / "grpo.jsonl").unlink()
    claim = external.compute(load_study(path))
    assert claim["seeds"] == [0]
    assert claim["details"]["missing"] == ["demonstrations of grpo (seed 1): not written"]
    plain = external.compute(load_study(maker.write_study(tmp_path / "plain")))
    assert plain["value"] is plain["holds"] is None and plain["seeds"] == [0]


def test_the_figure_is_drawn(study):
    assert figure.draw(external.table(load_study(study))).startswith(b"\x89PNG")
