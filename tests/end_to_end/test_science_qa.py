"""The science question experiment from its file to a report, at a width that a test can train."""

import json
import runpy
from pathlib import Path

import pytest

from sdd import config, experiment, loop, overrides, report

ROOT = Path(__file__).parents[2]
SMALL = (
    *(
        "model.num_layers=2",
        "model.width=32",
        "model.num_heads=4",
        "model.num_kv_heads=2",
        "model.head_dim=8",
    ),
    *("model.mlp_dim=64", "model.compute_dtype=float32", "mesh.data=-1", "mesh.fsdp=1", "task.vocab_size=0"),
    *("task.subjects=biology", "task.prompt_length=256", "task.response_length=16", "task.embedder="),
    *(
        "optimizer.warmup_steps=1",
        "train.num_steps=2",
        "train.prompts_per_step=8",
        "train.group_size=2",
        "step.block_size=8",
    ),
    *("eval.every=0", "eval.num_prompts=8", "eval.num_samples=2", "eval.final_num_prompts=8"),
    *("eval.final_num_samples=2", "eval.bootstrap=20"),
)


def rows(first, count):
    for i in range(first, first + count):
        prompt = f"Question {i}?\nA: yes\nB: no\nPlease reason step by step."
        yield {"idx": i, "answer": "AB"[i % 2], "prompt": prompt, "system": "Answer within <answer> tags."}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_8b_sdsd", "olmo3_7b_grpo"])
def test_two_steps_and_a_report(name, tmp_path):
    write_chat = runpy.run_path(str(ROOT / "tests" / "tasks" / "conftest.py"))["write_chat"]
    for split, (first, count) in {"train": (0, 16), "test": (100, 8)}.items():
        file = tmp_path / "questions" / "biology" / f"{split}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(first, count)))
    raw = experiment.get_config(experiment.load(ROOT / "experiments" / "science_qa" / f"{name}.py"))
    changes = [f"--config.{change}" for change in SMALL]
    changes += [f"--config.task.path={tmp_path / 'questions'}"]
    changes += [f"--config.task.tokenizer={write_chat(tmp_path / 'chat')}"]
    if name.startswith("olmo"):
        changes += ["--config.model.windows=8,0"]
    final = loop.run(config.resolve(overrides.apply(raw, changes)), tmp_path / "run")
    assert 0 <= final["test"]["pass@1"] <= 1 and final["test"]["response_length"] > 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    page = report.write_run_report(tmp_path / "run").read_text()
    assert "Question 100?" in page
