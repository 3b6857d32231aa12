"""Prepared data: round trip through TFDS, no collisions, killed and concurrent preparation."""

import os
import pathlib
import signal
import subprocess
import sys

import numpy as np
import pytest

from sdd.tasks.concept_graph import Config, decode, make
from sdd.tasks.concept_graph_config import SPLITS
from sdd.tasks.concept_graph_generate import generate

CONFIG = Config(num_train=60, num_eval=12)
ALL = ("train", *SPLITS)


def same(a, b):
    np.testing.assert_array_equal(a["edges"], b["edges"])
    return {k: v for k, v in a.items() if k != "edges"} == {k: v for k, v in b.items() if k != "edges"}


def whole(source, config, seed, split):
    expected = [decode(r) for r in generate(config, seed, split)]
    assert len(source) == len(expected)
    return all(same(source[i], e) for i, e in enumerate(expected))


def folders(data_dir):
    return sorted(p.parent.name for p in pathlib.Path(data_dir).glob("concept_graph/*/1.0.0"))


def test_round_trip(tmp_path, capfd):
    task = make(CONFIG, str(tmp_path), 7)
    for split in ALL:
        source = task.source(split)
        assert whole(source, CONFIG, 7, split)
        example = source[3]
        assert example["prompt_id"] == f"{split}/3" and type(example["prompt_id"]) is str
        assert type(example["start"]) is int and example["edges"].dtype == np.int32
        task.prompt(example)
    assert capfd.readouterr() == ("", "")  # TFDS stays silent
    assert not list(tmp_path.rglob("*.parquet")) and len(list(tmp_path.rglob("*.array_record*"))) == 4


def test_seeds_and_settings_never_collide(tmp_path):
    other = Config(num_train=60, num_eval=12, break_probability=0.3)
    for config, seed in ((CONFIG, 0), (CONFIG, 1), (other, 0), (CONFIG, 0)):
        assert whole(make(config, str(tmp_path), seed).source("id"), config, seed, "id")
    assert len(folders(tmp_path)) == 3


def test_prepared_data_are_read_and_not_made_again(tmp_path, monkeypatch):
    from sdd.tasks import concept_graph_builder

    task = make(CONFIG, str(tmp_path), 0)
    task.source("train")
    monkeypatch.setattr(concept_graph_builder, "generate", None)
    assert whole(task.source("larger"), CONFIG, 0, "larger")


def test_a_failed_preparation_leaves_nothing_that_is_read(tmp_path, monkeypatch):
    from sdd.tasks import concept_graph_builder

    def breaks(config, seed, split):
        yield from generate(config, seed, split)
        if split == "larger":
            raise OSError("disk full")

    task = make(CONFIG, str(tmp_path), 0)
    with monkeypatch.context() as patch:
        patch.setattr(concept_graph_builder, "generate", breaks)
        with pytest.raises(OSError, match="disk full"):
            task.source("train")
    assert folders(tmp_path) == []
    assert whole(task.source("train"), CONFIG, 0, "train")


def test_the_slower_of_two_concurrent_preparations_reads_the_faster_ones_data(tmp_path, monkeypatch):
    from sdd.tasks import concept_graph_builder

    calls = []

    def overtaken(config, seed, split):
        calls.append(split)
        if len(calls) == 1:  # another process starts later and finishes first
            make(CONFIG, str(tmp_path), 0).source("id")
        yield from generate(config, seed, split)

    monkeypatch.setattr(concept_graph_builder, "generate", overtaken)
    source = make(CONFIG, str(tmp_path), 0).source("train")
    assert len(calls) == 8
    assert whole(source, CONFIG, 0, "train")


KILLED = """
import os, signal, sys
from sdd.tasks import concept_graph, concept_graph_builder
real = concept_graph_builder.generate
def generate(config, seed, split):
    for i, record in enumerate(real(config, seed, split)):
        if (split, i) == ("larger", 5):
            os.kill(os.getpid(), signal.SIGKILL)
        yield record
concept_graph_builder.generate = generate
concept_graph.make(concept_graph.Config(num_train=60, num_eval=12), sys.argv[1], 0).source("train")
"""


def test_a_killed_preparation_leaves_nothing_that_is_read(tmp_path):
    root = pathlib.Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(root)}, cwd=tmp_path, capture_output=True, timeout=120,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert list(tmp_path.rglob("*incomplete*"))  # it was killed in the middle
    assert folders(tmp_path) == []
    task = make(CONFIG, str(tmp_path), 0)
    for split in ALL:
        assert whole(task.source(split), CONFIG, 0, split)


def test_importing_the_task_does_not_import_tfds():
    root = pathlib.Path(__file__).parents[2]
    code = "import sys, sdd.tasks.concept_graph; sys.exit('tensorflow_datasets' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": str(root)}
    assert subprocess.run([sys.executable, "-c", code], env=env, timeout=120).returncode == 0
