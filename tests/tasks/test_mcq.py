"""Multiple choice: the builders of tensorflow_datasets over small files in their makers' layout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sdd import config as configs
from sdd.tasks import mcq
from sdd.tasks._rows import RowError
from sdd.typed import ConfigError

tfds = pytest.importorskip("tensorflow_datasets")


def arc(name, stem, answer, labels="ABCD"):
    choices = [{"text": f"thing {i}", "label": label} for i, label in enumerate(labels)]
    return {"id": name, "question": {"stem": stem, "choices": choices}, "answerKey": answer}


def obqa(name, stem, answer):
    extra = {"fact1": "f", "humanScore": 1.0, "clarity": 2.0, "turkIdAnonymized": "t"}
    return arc(name, stem, answer) | extra


ARC, OBQA = "ARC-V1-Feb2018-2", "OpenBookQA-V1-Sep2018/Data/Additional"
FILES = {
    f"{ARC}/ARC-Easy/ARC-Easy-Train.jsonl": [
        arc("e1", "One?", "B"),
        arc("e2", "Two?", "3", "1234"),
    ],
    f"{ARC}/ARC-Easy/ARC-Easy-Dev.jsonl": [arc("e3", "Three?", "A")],
    f"{ARC}/ARC-Easy/ARC-Easy-Test.jsonl": [
        arc("e4", "Ünlike?", "E", "ABCDE"),
        arc("e5", "F?", "C", "ABC"),
    ],
    f"{ARC}/ARC-Challenge/ARC-Challenge-Train.jsonl": [arc("c1", "Hard?", "A")],
    f"{ARC}/ARC-Challenge/ARC-Challenge-Dev.jsonl": [arc("c2", "Hard?", "A")],
    f"{ARC}/ARC-Challenge/ARC-Challenge-Test.jsonl": [arc("c3", "Harder?", "D")],
    f"{OBQA}/train_complete.jsonl": [obqa("o1", "Open?", "D")],
    f"{OBQA}/dev_complete.jsonl": [obqa("o2", "Open?", "D")],
    f"{OBQA}/test_complete.jsonl": [obqa(f"o{i}", "Book?", "ABCD"[i % 4]) for i in range(50)],
}


@pytest.fixture
def downloads(jsonl, monkeypatch, tmp_path):
    """What would be downloaded, and a list of what was asked for."""
    for name, rows in FILES.items():
        jsonl(f"download/{name}", rows)
    asked = []

    def download_and_extract(self, url):
        asked.append(url)
        return tmp_path / "download"

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", download_and_extract)
    return asked


def task_of(chat, data_dir, **changes):
    config = mcq.Config(**{"tokenizer": chat, "embedder": "", "response_length": 100} | changes)
    return mcq.make(config, str(data_dir), 0)


def test_arc(chat, downloads, tmp_path):
    task = task_of(chat, tmp_path / "data")
    assert task.splits == ("test", "harder") and task.facts() == {} and downloads == []
    train, test, harder = (task.source(split) for split in ("train", *task.splits))
    train = sorted(train, key=lambda e: e["prompt_id"])  # the builder shuffles, always in the same way
    answers = {e["prompt_id"]: e["answer"] for e in train}
    assert answers == {"arc_easy/train/e1": "B", "arc_easy/train/e2": "C"}
    by_id = {e["prompt_id"]: e for e in test}
    assert by_id["arc_easy/test/e4"] == {
        "prompt_id": "arc_easy/test/e4",
        "question": "Ünlike?\n\nA: thing 0\nB: thing 1\nC: thing 2\nD: thing 3\nE: thing 4",
        "answer": "E",
    }
    assert train[1]["question"] == "Two?\n\nA: thing 0\nB: thing 1\nC: thing 2\nD: thing 3"
    assert [e["prompt_id"] for e in harder] == ["arc_challenge/test/c3"]
    facts = {"rows_train": 2, "rows_test": 2, "rows_harder": 1, "too_long_train": 0}
    assert task.facts().items() >= facts.items()
    assert not list(tmp_path.rglob("*.parquet")) and list(tmp_path.rglob("*.array_record*"))
    assert len(downloads) == 2
    rendered = task.tokenizer.decode(task.prompt(train[0]))
    assert "between <answer> and </answer>" in rendered and "One?\n\nA: thing 0" in rendered


def test_openbookqa_and_held_out_sets(chat, downloads, tmp_path):
    task = task_of(chat, tmp_path / "data", dataset="openbookqa", held_out=("arc_challenge",), num_test=7)
    assert task.splits == ("test", "arc_challenge")
    test = task.source("test")
    assert len(test) == 7 and len({e["prompt_id"] for e in test}) == 7
    assert len(task.source("train")) == 1 and task.source("train")[0]["answer"] == "D"
    assert test[0]["question"] == "Book?\n\nA: thing 0\nB: thing 1\nC: thing 2\nD: thing 3"
    whole = task_of(chat, tmp_path / "data", dataset="openbookqa").source("test")
    counts = {letter: sum(e["answer"] == letter for e in whole) for letter in "ABCD"}
    assert counts == {"A": 13, "B": 13, "C": 12, "D": 12}  # all 50 rows, none lost
    assert [e["prompt_id"] for e in task.source("arc_challenge")] == ["arc_challenge/test/c3"]
    again = task_of(chat, tmp_path / "data", dataset="openbookqa").source("test")
    assert [e["prompt_id"] for e in again] == [e["prompt_id"] for e in whole]
    assert len(downloads) == 2  # prepared once


def test_grades_by_a_table(chat, downloads, tmp_path):
    task = task_of(chat, tmp_path / "data")
    example = next(e for e in task.source("train") if e["answer"] == "B")
    for response, right in (
        ("<reasoning>so</reasoning><answer>B</answer>", True),
        ("<answer>\nB\n", True),
        ("<answer>A</answer>", False),
        ("<answer>thing 1</answer>", False),
        ("B", False),
    ):
        assert task.grade(example, task.tokenizer.encode(response)) == (right, float(right), -1, -1), response
    with pytest.raises(ConfigError, match=r"mcq has no reference solutions"):
        task.supervised(example, np.random.default_rng(0), 1)


def test_bad_rows_are_named(chat, downloads, jsonl, tmp_path):
    jsonl(f"download/{ARC}/ARC-Easy/ARC-Easy-Test.jsonl", [arc("e4", "Four?", "E", "ABC")])
    task = task_of(chat, tmp_path / "data")
    with pytest.raises(RowError, match=r"ARC-Easy test row 0: field 'answerKey' is 'E'; valid: A, B, C"):
        task.source("test")
    jsonl(f"download/{ARC}/ARC-Easy/ARC-Easy-Test.jsonl", [arc("e4", "Four?", "", "ABC")])
    with pytest.raises(ConfigError, match=r"dataset='arc_easy': .*cannot be read from .* or prepared there"):
        task_of(chat, tmp_path / "other").source("test")


def test_without_network_or_data(chat, tmp_path, monkeypatch):
    def no_network(self, url):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(tfds.download.DownloadManager, "download_and_extract", no_network)
    with pytest.raises(ConfigError, match=r"ARC-Easy cannot be read .*no route to host.*valid: ") as error:
        task_of(chat, tmp_path / "data").source("train")
    assert "\n" not in str(error.value)


def test_data_in_another_format_are_refused(chat, downloads, tmp_path):
    """Parquet loses rows on Python 3.11."""
    builder = tfds.builder("ai2_arc/ARC-Easy", data_dir=tmp_path / "data", file_format="array_record")
    builder.download_and_prepare()
    info = next((tmp_path / "data").rglob("dataset_info.json"))
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "parquet"}))
    with pytest.raises(ConfigError, match=r"already set to FileFormat.PARQUET"):
        task_of(chat, tmp_path / "data").source("train")


def test_bad_settings_are_refused(chat, tmp_path):
    with pytest.raises(ValueError, match=r"held_out has 'arc_chalenge' .nearest: arc_challenge"):
        mcq.Config(held_out=("arc_chalenge",))
    with pytest.raises(ValueError, match=r"held_out has 'arc_easy'.*valid: arc_challenge, openbookqa"):
        mcq.Config(held_out=("arc_easy",))
    c = configs.default(task="sdd.tasks.mcq", step="sdd.steps.grpo")
    c.task.tokenizer, c.task.dataset, c.task.held_out = chat, "openbookqa", ("arc_easy",)
    assert configs.resolve(c).task.options.held_out == ("arc_easy",)
    with pytest.raises(ValueError, match=r"mcq has no split 'tst'"):
        task_of(chat, tmp_path).source("tst")


def test_the_task_needs_no_tensorflow_and_imports_tfds_late():
    root = Path(__file__).parents[2]
    code = "import sys, sdd.tasks.mcq; sys.exit('tensorflow_datasets' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(root)}
    assert subprocess.run([sys.executable, "-c", code], env=env, timeout=120).returncode == 0
    code = "import sys, sdd.tasks._tfds; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=env, timeout=120).returncode == 0
