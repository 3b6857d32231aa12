"""Multiple choice of tensorflow_datasets, prepared without a network, from a config to a report."""

import json
import re
import runpy
from pathlib import Path

import pytest

from sdd import config, loop, overrides, report
from sdd.tasks import mcq

tfds = pytest.importorskip("tensorflow_datasets")

TASKS = Path(__file__).parents[1] / "tasks"
SMALL = (
    *("model.num_layers=2", "model.width=32", "model.num_heads=4", "model.num_kv_heads=2"),
    *("model.head_dim=8", "model.mlp_dim=64", "mesh.data=-1", "optimizer.warmup_steps=1"),
    *("task.prompt_length=384", "task.response_length=12"),
    *("train.num_steps=2", "train.prompts_per_step=8", "train.group_size=2", "step.block_size=8"),
    *("eval.every=0", "eval.num_prompts=8", "eval.num_samples=2", "eval.final_num_prompts=8"),
    *("eval.final_num_samples=2", "eval.bootstrap=20", "writers.progress=False"),
)


@pytest.fixture
def downloads(tmp_path, monkeypatch):
    """What tensorflow_datasets would download: files in their makers' layout."""
    maker = runpy.run_path(str(TASKS / "test_mcq.py"))
    arc, obqa, files = maker["arc"], maker["obqa"], dict(maker["FILES"])
    rows = lambda make, name, count: [make(f"{name}{i}", f"{name} {i}?", letter(i)) for i in range(count)]  # noqa: E731
    for name in files:
        make = arc if "ARC" in name else obqa
        files[name] = rows(make, Path(name).stem, 16 if "train" in name.lower() else 8)
    for name, found in files.items():
        file = tmp_path / "download" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in found))
    download = lambda self, url: tmp_path / "download"  # noqa: E731
    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", download)


def letter(i):
    return "ABCD"[i % 4]


def guess(text):
    """What a response is taken to have answered: a model that knows nothing hits no letter."""
    plain = re.sub(r"<\|\w+\|>", "", text)  # special tokens are shown in a rollout, and are no text
    return letter(sum(c.isascii() and c.isalpha() for c in plain))


@pytest.mark.parametrize(
    "step, changes, splits",
    [
        (
            *("sdd.steps.grpo", ("task.dataset=arc_easy", "task.embedder=")),
            {"test": "ARC-Easy-Test", "harder": "ARC-Challenge-Test"},
        ),
        (
            *("sdd.steps.sdsd", ("task.dataset=openbookqa", "task.held_out=arc_easy")),
            {"test": "test_complete", "arc_easy": "ARC-Easy-Test"},
        ),
    ],
)
def test_two_steps_and_a_report(downloads, tmp_path, monkeypatch, step, changes, splits):
    write_chat = runpy.run_path(str(TASKS / "conftest.py"))["write_chat"]
    monkeypatch.setattr(mcq, "tagged_answer", guess)
    raw = config.default("sdd.tasks.mcq", step)
    changes = (
        *SMALL,
        *changes,
        f"eval.splits={','.join(splits)}",
        f"task.tokenizer={write_chat(tmp_path / 'chat')}",
    )
    flags = [f"--config.{change}" for change in changes]
    final = loop.run(config.resolve(overrides.apply(raw, flags)), tmp_path / "run")

    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and lines[-1]["grad_norm"] > 0
    page = report.write_run_report(tmp_path / "run").read_text()
    for split, name in splits.items():
        [file] = (tmp_path / "run" / "rollouts").glob(f"*/{split}.jsonl")
        rollouts = [json.loads(line) for line in file.read_text().splitlines()]
        assert len(rollouts) == 8
        for row in rollouts:
            [number] = re.findall(rf"{name} (\d+)\?", row["prompt"])
            assert row["correct"] == [guess(text) == letter(int(number)) for text in row["completion"]]
        right = [x for row in rollouts for x in row["correct"]]
        assert final[split]["pass@1"] == pytest.approx(sum(right) / 16)
        assert 0 < sum(right) < 16 or split != "test"
    assert re.search(rf"{list(splits.values())[-1]} \d\?", page)  # a report shows rollouts of the last split
    assert ("distinct_correct@2" in final["test"]) == ("task.embedder=" not in changes)
