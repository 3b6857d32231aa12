import json

import numpy as np
import pytest

from sdd.claims.runs import load_run, load_study, read_rollouts


def one_line(error):
    text = str(error.value)
    assert "\n" not in text
    return text


def test_rollouts_become_arrays(tmp_path, maker):
    row = maker.row("a", "id", (2, 0, 1, 0, 0), 0.5, wrong=1)
    other = maker.row("b", "id", (1, 3, 0, 0, 0), 0.25)
    other["strategy"][0] = None
    maker.write_lines(tmp_path / "id.jsonl", [row, other])
    rollouts = read_rollouts(tmp_path / "id.jsonl")
    assert rollouts.prompt_ids == ("a", "b")
    assert rollouts.strategies == ("birds", "fruits", "tools")
    assert rollouts.strategy_BxN.tolist() == [[0, 0, 2, 0], [-1, 1, 1, 1]]
    assert rollouts.correct_BxN.tolist() == [[True, True, True, False], [True] * 4]
    assert rollouts.token_entropy_BxN.tolist() == [[0.5] * 4, [0.25] * 4]
    assert rollouts.take(["b"]).strategy_BxN.tolist() == [[-1, 1, 1, 1]]


def test_study_of_runs(tmp_path, maker):
    study = load_study(maker.write_study(tmp_path, seeds=(2, 10)))
    assert list(study.seeds) == [2, 10]  # by number, not by name
    assert study.methods == ("warm_start", "grpo", "grpo_diversity", "sdsd_k1", "sdsd_k3")
    assert study.splits == ("id", "larger", "harder")
    run = study.seeds[10]["sdsd_k1"]
    assert run.last_step == 300 and run.finished and run.steps("id") == (0, 100, 200, 300)
    assert run.rollouts("id").num_samples == 64 and run.rollouts("id", 0).num_samples == 32


def test_other_folders_are_no_runs(tmp_path, maker):
    study = maker.write_study(tmp_path, seeds=(0,))
    (study / "seed_0/data").mkdir()
    (study / "figures").mkdir()
    assert "data" not in load_study(study).methods


def test_torn_lines_and_missing_files_are_named(tmp_path, maker):
    study = maker.write_study(tmp_path, seeds=(0,))
    folder = study / "seed_0/grpo"
    path = folder / "rollouts/step_000300/id.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(ValueError, match="torn") as error:
        load_run(folder).rollouts("id")
    assert f"{path}:24:" in one_line(error)
    path.unlink()
    with pytest.raises(ValueError, match="file is missing") as error:
        load_run(folder).rollouts("id")
    assert str(path) in one_line(error)
    evaluations = folder / "evaluations.jsonl"
    evaluations.write_bytes('{"split": "é'.encode()[:-1])  # cut inside a character
    with pytest.raises(ValueError, match="not valid JSON") as error:
        load_study(study)
    assert f"{evaluations}:1:" in one_line(error)
    evaluations.unlink()
    with pytest.raises(ValueError, match="file is missing") as error:
        load_run(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"missing|not valid JSON") as error:
        load_run(folder)
    one_line(error)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda rows: rows[1].update(prompt_id="a"), "occurs twice"),
        (lambda rows: rows[1].update(correct=[True]), "expected 3 samples"),
        (lambda rows: rows[1].pop("strategy"), "lacks strategy"),
        (lambda rows: rows.clear(), "holds no rollouts"),
    ],
)
def test_bad_rollouts(tmp_path, maker, change, message):
    rows = [maker.row(name, "id", (3, 0, 0, 0, 0), 0.5) for name in "ab"]
    change(rows)
    maker.write_lines(tmp_path / "id.jsonl", rows)
    with pytest.raises(ValueError, match=message) as error:
        read_rollouts(tmp_path / "id.jsonl")
    assert "id.jsonl" in one_line(error)


def test_no_study_there(tmp_path):
    with pytest.raises(ValueError, match="no runs found") as error:
        load_study(tmp_path / "nowhere")
    one_line(error)


def test_repeated_evaluation_counts_once(tmp_path, maker):
    maker.write_run(tmp_path / "grpo", {0: {"id": [maker.row("a", "id", (40, 0, 0, 0, 0), 0.5)]}})
    path = tmp_path / "grpo/evaluations.jsonl"
    again = json.loads(path.read_text()) | {"num_prompts": 77}
    path.write_text(path.read_text() + json.dumps(again) + "\n")
    assert [e["num_prompts"] for e in load_run(tmp_path / "grpo").evaluations] == [77]


def test_undefined_entropy_is_nan(tmp_path, maker):
    row = maker.row("a", "id", (2, 0, 0, 0, 0), 0.5) | {"token_entropy": [None, 0.5]}
    maker.write_lines(tmp_path / "id.jsonl", [row])
    assert np.isnan(read_rollouts(tmp_path / "id.jsonl").token_entropy_BxN).tolist() == [[True, False]]
