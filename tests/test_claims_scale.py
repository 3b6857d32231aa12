"""The answer of a sweep, from folders whose rollouts have known counts."""

import json

import numpy as np
import pytest

from sdd.claims import scale

WAYS = "abcd"


def write_run(folder, step, rows, events=(), num_steps=None, layers=1, teacher=None):
    """rows: split -> a string a prompt: a letter for a right answer of that way, "." for a wrong one."""
    folder.mkdir(parents=True)
    model = {
        "num_layers": layers,
        "width": 8,
        "num_heads": 2,
        "num_kv_heads": 1,
        "head_dim": 4,
        "mlp_dim": 16,
    }
    config = {"seed": 0, "model": model, "train": {"num_steps": num_steps or step}}
    (folder / "config.json").write_text(json.dumps(config))
    metrics = {} if teacher is None else {"teacher_accuracy": {"value": teacher}}
    lines = [{"step": step, "split": split, "metrics": metrics} for split in rows]
    (folder / "evaluations.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "events.jsonl").write_text("".join(json.dumps({"event": e, "step": 1}) + "\n" for e in events))
    (folder / f"rollouts/step_{step:06d}").mkdir(parents=True)
    for split, prompts in rows.items():
        records = [
            {
                "prompt_id": f"{split}/{i}",
                "completion": list(prompt),
                "correct": [way != "." for way in prompt],
                "strategy": [None if way == "." else way for way in prompt],
                "token_entropy": [0.5] * len(prompt),
                "num_tokens": [2] * len(prompt),
            }
            for i, prompt in enumerate(prompts)
        ]
        path = folder / f"rollouts/step_{step:06d}/{split}.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in records))


def both(one, other=None):
    return {"id": one, "harder": other or one}


START = both(["abcd", "abc."] * 8)
WIDE = both(["abcd", "aabb"] * 8, ["ab..", "abab"] * 8)
NARROW = both(["aaaa", "aaaa"] * 8, ["....", "aaaa"] * 8)


def write_cell(folder, sdsd, seeds=(0,), layers=1, **changes):
    for seed in seeds:
        path = folder / f"seed_{seed}"
        write_run(path / "warm_start", 9, START, layers=layers)
        write_run(path / "grpo", 5, WIDE, layers=layers)
        write_run(path / "sdsd_k1", 5, sdsd, layers=layers, teacher=0.75, **changes)


def test_numbers_of_a_cell(tmp_path):
    write_cell(tmp_path / "t" / "small", NARROW, seeds=(0, 1), events=["runaway"])
    answer = scale.write(tmp_path)
    assert json.loads((tmp_path / "scale.json").read_text()) == answer
    (cell,) = answer["cells"]
    # By hand: two matrices of 8 x 8 and two of 8 x 4 for attention, three of 8 x 16.
    assert cell["parameters"] == 2 * 64 + 2 * 32 + 3 * 128
    assert (cell["seeds"], cell["k"], cell["num_prompts"]) == ([0, 1], 4, 16)
    assert cell["runaway"] == [0, 1] and cell["teacher"] == {"start": 0.75, "end": 0.75}
    found = {name: {q: v["value"] for q, v in m.items()} for name, m in cell["methods"].items()}
    assert found["warm_start"]["distinct"] == 3.5 and found["warm_start"]["pass@1"] == 0.875
    assert found["grpo"]["distinct"] == 3.0 and found["sdsd_k1"]["distinct"] == 1.0
    assert found["sdsd_k1"]["harder_pass"] == 0.5 and found["grpo"]["harder_pass"] == 1.0
    assert found["grpo"]["harder_pass@1"] == pytest.approx(0.75) and "grpo_diversity" not in found
    grpo, start = cell["against_grpo"], cell["against_start"]
    assert grpo["distinct"]["value"] == -2.0 and start["distinct"]["value"] == -2.5
    assert grpo["harder_pass"]["value"] == -0.5 and grpo["harder_pass"]["low"] < -0.5
    # Paired: 8 prompts lose 3 and 8 lose 1; the interval of their mean by the normal approximation.
    half = 1.96 * 1 / np.sqrt(16)
    assert grpo["distinct"]["low"] == pytest.approx(-2 - half, abs=0.25)
    assert answer["trends"] == []
    text = answer["paragraph"]
    assert text.startswith("1 cells of 1 task, 2 seeds each.") and text.endswith("ran away in t small.")
    assert "strategies self-distillation ends below GRPO in 1 of 1 cells, above it in 0, and in 0" in text
    assert "pass@4 on harder questions" in text and "t, SDSD minus GRPO: -2.00 [" in text


def test_sizes_are_paired_by_prompt_and_the_trend_is_named(tmp_path):
    write_cell(tmp_path / "t" / "big", WIDE, layers=4)
    write_cell(tmp_path / "t" / "tiny", NARROW)
    write_cell(tmp_path / "u" / "tiny", WIDE)
    answer = scale.compute(tmp_path)
    assert [(c["task"], c["size"]) for c in answer["cells"]] == [("t", "tiny"), ("t", "big"), ("u", "tiny")]
    (trend,) = answer["trends"]
    assert (trend["task"], trend["smallest"], trend["largest"]) == ("t", "tiny", "big")
    # At the largest size nothing was lost, at the smallest 2 of 3.
    assert trend["change"]["distinct"]["value"] == 2.0 and trend["change"]["distinct"]["low"] > 0
    text = answer["paragraph"]
    assert "from tiny to big the loss shrinks, by +2.00 [" in text and text.count("from tiny to big") == 2
    assert "u, SDSD minus GRPO: +0.00 [+0.00, +0.00] (tiny)." in text
    assert "below GRPO in 1 of 3 cells, above it in 0, and in 2 they cannot" in text
    write_cell(tmp_path / "u" / "big", NARROW, layers=4)
    assert "the loss grows, by -2.00 [" in scale.compute(tmp_path)["paragraph"]


def test_the_diversity_bonus_is_shown_where_it_is_there(tmp_path):
    write_cell(tmp_path / "t" / "small", NARROW)
    write_run(tmp_path / "t/small/seed_0/grpo_diversity", 5, START)
    (cell,) = scale.compute(tmp_path)["cells"]
    assert cell["methods"]["grpo_diversity"]["distinct"]["value"] == 3.5


def test_unfinished_runs_are_named_and_left_out(tmp_path):
    write_cell(tmp_path / "t" / "small", NARROW, num_steps=50)
    write_cell(tmp_path / "t" / "large", NARROW)
    (tmp_path / "t/large/seed_1/grpo").mkdir(parents=True)  # begun, not evaluated
    (tmp_path / "t/large/seed_1/grpo/config.json").write_text("{}")
    answer = scale.compute(tmp_path)
    assert [c["size"] for c in answer["cells"]] == ["large"]
    assert answer["unfinished"] == ["t, small: sdsd_k1 (seed 0): unfinished, last evaluation at step 5 of 50"]
    with pytest.raises(ValueError, match="no runs found"):
        scale.compute(tmp_path / "elsewhere")
