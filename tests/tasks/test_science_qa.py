"""Science questions: rows, overlap, answers by a table, strategies; real files where they are at hand."""

import os
from pathlib import Path

import numpy as np
import pytest

from sdd import config as configs
from sdd.tasks import science_qa
from sdd.tasks._rows import RowError
from sdd.typed import ConfigError

SYSTEM = "\nAnswer in <answer> tags.\n"


def row(idx, stem, answer="A", options="ABCD"):
    lines = "\n".join(f"{letter}: thing {i}" for i, letter in enumerate(options))
    prompt = f"{stem}\n\n{lines}\nPlease reason step by step."
    return {"idx": idx, "answer": answer, "prompt": prompt, "system": SYSTEM, "kind": "mcq"}


@pytest.fixture
def folder(jsonl):
    jsonl("biology/train.jsonl", [row(1, "Which cell?", "B"), row(2, "Which gene?", "C"), row(3, "Why?")])
    jsonl(
        "biology/test.jsonl", [row(7, "Which cell? ", "D"), row(8, "How many?", "A"), row(9, "Which gene?")]
    )
    jsonl("physics/train.jsonl", [row(1, "How many?")])
    return jsonl("physics/test.jsonl", [row(2, "How fast?", options="AB")]).parents[1]


def task_of(chat, folder, **changes):
    changes = {"subjects": ("biology",), "embedder": "", "response_length": 100} | changes
    return science_qa.make(science_qa.Config(tokenizer=chat, path=str(folder), **changes), "", 0)


def ids(task, split):
    return [e["prompt_id"] for e in task.source(split)]


def test_examples(chat, folder):
    task = task_of(chat, folder)
    first = task.source("train")[0]
    assert (
        first["prompt_id"] == "biology/train/1" and first["answer"] == "B" and first["stem"] == "Which cell?"
    )
    assert first["question"] == row(1, "Which cell?")["prompt"] and first["system"] == SYSTEM
    rendered = task.tokenizer.decode(task.prompt(first))
    assert rendered.index("Answer in <answer> tags.") < rendered.index(
        "Which cell?\n\nA: thing 0\nB: thing 1"
    )
    assert task.splits == ("test", "test_unseen") and task.strategies == () and task.cluster is None
    assert task.source("test") is task.source("test")
    with pytest.raises(ValueError, match=r"science_qa has no split 'id'.*valid: train, test, test_unseen"):
        task.source("id")


def test_overlap_is_counted_and_left_out(chat, folder):
    """By hand: cell (but for a blank) and gene are in both files."""
    task = task_of(chat, folder)
    assert ids(task, "test") == ["biology/test/7", "biology/test/8", "biology/test/9"]
    assert ids(task, "test_unseen") == ["biology/test/8"]
    assert task.facts() == {
        **{"overlap": 2, "rows_train": 3, "rows_test": 3, "rows_test_unseen": 1},
        **{"too_long_train": 0, "too_long_test": 0, "too_long_test_unseen": 0},
    }
    task = task_of(chat, folder, drop_overlap="test")
    assert (
        ids(task, "test") == ids(task, "test_unseen") == ["biology/test/8"] and len(ids(task, "train")) == 3
    )
    task = task_of(chat, folder, drop_overlap="train")
    assert ids(task, "train") == ["biology/train/3"] and len(ids(task, "test")) == 3
    assert ids(task, "test_unseen") == ids(task, "test") and task.facts()["overlap"] == 2
    # Over all subjects: a question of physics is in biology's test file.
    task = task_of(chat, folder, subjects=("biology", "physics"))
    assert ids(task, "test_unseen") == ["physics/test/2"] and task.facts()["overlap"] == 3


def test_limits_and_long_rows(chat, folder):
    task = task_of(chat, folder, num_train=2, num_test=1)
    assert [len(ids(task, s)) for s in ("train", "test", "test_unseen")] == [2, 1, 1]
    length = len(task.prompt(task.source("train")[2 - 1]))
    assert length == max(len(task.prompt(e)) for e in task.source("train"))
    tight = task_of(chat, folder, prompt_length=length - 1)
    # "Which cell?" and "Which gene?" are a byte too long, "Why?" fits.
    assert ids(tight, "train") == ["biology/train/3"] and tight.facts()["too_long_train"] == 2


@pytest.mark.parametrize(
    "bad, message",
    [
        ({"answer": None}, "field 'answer' is None; valid: of type str"),
        ({"answer": "E"}, "field 'answer' is 'E'; valid: A, B, C, D"),
        ({"answer": ""}, "field 'answer' is ''; valid: A, B, C, D"),
        ({"prompt": "Why?"}, "field 'prompt' has no option lines"),
        ({"idx": "8"}, "field 'idx' is '8'; valid: of type int"),
        ({"idx": 7}, r"field 'idx': 'biology/test/7' occurs twice, first in .*test.jsonl:1"),
    ],
)
def test_bad_rows_are_named(chat, folder, jsonl, bad, message):
    jsonl("biology/test.jsonl", [row(7, "One?"), row(8, "Two?") | bad])
    with pytest.raises(RowError, match=r"biology/test.jsonl:2: " + message) as error:
        task_of(chat, folder).source("train")
    assert "\n" not in str(error.value)


def test_a_row_without_an_answer_is_named(chat, folder, jsonl):
    without = {k: v for k, v in row(8, "Two?").items() if k != "answer"}
    jsonl("biology/train.jsonl", [row(7, "One?"), "", without])
    with pytest.raises(RowError, match=r"biology/train.jsonl:3: no field 'answer'; it has idx, prompt"):
        task_of(chat, folder).source("train")


def test_bad_settings_are_refused(chat, folder):
    for changes, message in (
        ({"path": "/nowhere"}, "config.task.path='/nowhere': no such folder; valid: "),
        ({"path": ""}, "config.task.path='': no such folder"),
        (
            {"subjects": ("biolgy",)},
            r"subjects\[0\]='biolgy'.*nearest: biology.*valid: biology, physics",
        ),
        ({"subjects": ()}, r"config.task.subjects=\(\)"),
    ):
        config = science_qa.Config(
            **{"tokenizer": chat, "path": str(folder), "subjects": ("biology",)} | changes
        )
        with pytest.raises(ConfigError, match=message):
            science_qa.make(config, "", 0)


@pytest.mark.parametrize(
    "response, right",
    [
        ("<reasoning>\nso\n</reasoning>\n<answer>\nB\n</answer>", True),
        ("<answer>B</answer>", True),
        ("<answer> B ", True),
        ("<answer>A</answer> no, <answer>B</answer>", True),
        ("<answer>B</answer> no, <answer>A</answer>", False),
        ("<answer>B</answer> It is A.", True),
        ("<answer>b</answer>", False),
        ("<answer>B.</answer>", False),
        ("<answer>B: thing 1</answer>", False),
        ("<answer></answer>", False),
        ("B", False),
        ("The answer is B", False),
        ("", False),
        ("<answer>A<|im_end|>B</answer>", False),
        ("<answer>B</answer><|im_end|><answer>A</answer>", True),
    ],
)
def test_grades_by_a_table(chat, folder, response, right):
    task = task_of(chat, folder)
    grade = task.grade(task.source("train")[0], task.tokenizer.encode(response))
    assert grade == (right, float(right), -1, -1)


def test_strategies_are_clusters_of_the_reasoning(chat, folder):
    pytest.importorskip("wordllama")
    task = task_of(chat, folder, embedder="wordllama")
    texts = [
        "<reasoning>Mitochondria carry out oxidative phosphorylation, which makes most of the ATP. The "
        "question asks where most ATP is made, so the mitochondrion is right.</reasoning><answer>A</answer>",
        "<reasoning>Eliminate the others: the nucleus stores DNA, the ribosome makes proteins and the Golgi "
        "packs them. Only the mitochondrion is left.</reasoning><answer>A</answer>",
        "<answer>A</answer>",
        "<reasoning>ATP is produced mainly by oxidative phosphorylation in mitochondria, so we pick that "
        "organelle.</reasoning><answer>B",
        "<reasoning>By exclusion: DNA is in the nucleus, ribosomes translate, the Golgi sorts proteins. What "
        "remains is the mitochondrion.</reasoning><answer>C</answer>",
    ]
    found = task.cluster(task.source("train")[0], [task.tokenizer.encode(text) for text in texts])
    assert found == [0, 1, -1, 0, 1]


def test_it_is_named_in_a_config(chat, folder):
    c = configs.default(task="sdd.tasks.science_qa", step="sdd.steps.grpo")
    assert c.task.response_length == 8192 and c.task.prompt_length == 2048  # the paper's
    c.task.tokenizer, c.task.path, c.task.subjects = chat, str(folder), ("physics",)
    options = configs.resolve(c).task.options
    assert options.subjects == ("physics",) and options.drop_overlap == "none"
    c.task.drop_overlap = "tset"
    with pytest.raises(ConfigError, match=r"config.task.drop_overlap='tset': nearest: 'test'"):
        configs.resolve(c)
    assert configs.from_dict(
        configs.to_dict(
            configs.from_dict({**c.to_dict(), "task": {**c.task.to_dict(), "drop_overlap": "test"}})
        )
    )


# The published files, from a folder of the user's.

FILES = Path(os.environ.get("SDD_SCIKNOWEVAL", "/nonexistent"))
TABLE = {
    "biology": (450, 50, 19),
    "chemistry": (1890, 210, 0),
    "material": (841, 94, 3),
    "physics": (720, 80, 7),
}


@pytest.mark.skipif(not FILES.is_dir(), reason="SDD_SCIKNOWEVAL names no folder of SciKnowEval's subjects")
@pytest.mark.parametrize("subject", TABLE)
def test_the_published_files(chat, subject):
    """Rows and overlap as the data's description has them (material: 2, and one that differs by a blank)."""
    task = task_of(chat, FILES, subjects=(subject,), prompt_length=4096)
    facts, (train, test, overlap) = task.facts(), TABLE[subject]
    assert (facts["rows_train"], facts["rows_test"], facts["overlap"]) == (train, test, overlap)
    assert facts["rows_test_unseen"] == test - overlap and facts["too_long_train"] == 0
    for example in (*task.source("train"), *task.source("test")):
        right = task.tokenizer.encode(f"<answer>\n{example['answer']}\n</answer>")
        wrong = task.tokenizer.encode("<answer>\nE\n</answer>")
        assert task.grade(example, right).correct and not task.grade(example, wrong).correct
    assert len({e["prompt_id"] for s in ("train", "test") for e in task.source(s)}) == train + test
    assert np.all([len(task.prompt(e)) <= 4096 for e in task.source("test")])
