"""Procedural questions: splits that share none, verdicts of the package, options, curricula."""

import functools
import json

import numpy as np
import pytest

from sdd import config as configs
from sdd.tasks import reasoning_gym
from sdd.tasks._reasoning_gym import _nearest_level
from sdd.typed import ConfigError

pytest.importorskip("reasoning_gym")


@functools.cache  # the tests share the processes of their verifiers: each takes a second to start
def task_of(chat, dataset="chain_sum", seed=0, **changes):
    changes = {"num_train": 40, "num_test": 12, "prompt_length": 600, "response_length": 300} | changes
    return reasoning_gym.make(reasoning_gym.Config(tokenizer=chat, dataset=dataset, **changes), "", seed)


def grade(task, example, answer):
    return task.grade(example, task.tokenizer.encode(f"Hm. <answer>{answer}</answer><|im_end|>"))


def questions(task, split):
    source = task.source(split)
    return [source[i]["question"] for i in range(len(source))]


def test_questions_are_functions_of_seed_and_index(chat):
    task, again, other = task_of(chat), task_of.__wrapped__(chat), task_of(chat, seed=1)
    assert questions(task, "train") == questions(again, "train") != questions(other, "train")
    source = task.source("train")
    assert len(source) == 40 and source[7] == again.source("train")[7]
    ids = [source[i]["prompt_id"] for i in range(40)]
    assert len(set(ids)) == 40 and all(i.startswith("chain_sum/train/") for i in ids)
    for index in (-1, 40):
        with pytest.raises(IndexError, match=r"valid: 0 to 39"):
            source[index]
    assert task.name == "reasoning_gym.chain_sum" and task.splits == ("test", "harder")


def test_an_id_is_one_question_whatever_the_size(chat):
    small, large = task_of(chat, num_test=5).source("test"), task_of(chat, num_test=40).source("test")
    by_id = [{s[i]["prompt_id"]: s[i]["question"] for i in range(len(s))} for s in (small, large)]
    shared = by_id[0].keys() & by_id[1].keys()
    assert len(shared) > 1 and all(by_id[0][i] == by_id[1][i] for i in shared)


def test_no_question_is_trained_on_and_tested(chat):
    """Sums of two digits: 100 questions for 900 draws, so seeds alone would not keep them apart."""
    options = json.dumps({"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1})
    task = task_of(chat, options=options, harder=options, num_train=600, num_test=100)
    train, test, harder = (set(questions(task, split)) for split in ("train", "test", "harder"))
    assert len(train) > 100 and len(test) > 30 and not train & (test | harder)


def test_prompts_that_do_not_fit_are_passed_over(chat):
    longest = max(len(q) for q in questions(task_of(chat), "train"))
    tight = task_of(chat, prompt_length=len(task_of(chat).prompt(task_of(chat).source("train")[0])))
    fits = [tight.source("train")[i] for i in range(40)]
    assert max(len(tight.prompt(e)) for e in fits) <= tight.context_length
    assert max(len(e["question"]) for e in fits) < longest
    with pytest.raises(
        ValueError, match=r"none of 64 questions is new and fits config.task.prompt_length=50"
    ):
        task_of(chat, prompt_length=50).source("train")[0]


# Right and wrong answers by hand, of questions with one and with many right answers.


def test_sums(chat):
    task = task_of(chat)
    for i in range(12):
        example = task.source("test")[i]
        expression = example["question"].split(": ")[1].removesuffix(" =")
        value = sum(int(term) for term in expression.replace("- ", "-").replace("+ ", "").split())
        for answer, right in (
            (value, True),
            (f"{value}.0", True),
            (f"+{value}" if value >= 0 else value, True),
        ):
            assert grade(task, example, answer).correct is right, (expression, answer)
        for answer in (value + 1, "", "x", f"{value} apples"):
            assert not grade(task, example, answer).correct, (expression, answer)
    # Partial credit is a score and not a right answer.
    partial = grade(task, example, f"{value} apples")
    assert 0 < partial.score < 1 and partial.right_prefix == -1
    assert task.grade(example, task.tokenizer.encode(str(value))) == (False, 0.0, -1, -1)
    assert task.facts()["verifier_errors"] == 0


def test_many_right_answers_are_strategies(chat):
    bounds = {"numbers": (3, 3), "value": (2, 9), "target": (4, 60)}
    options = {f"{m}_{k}": v[i] for k, v in bounds.items() for i, m in enumerate(("min", "max"))}
    task = task_of(chat, "countdown", options=json.dumps(options), num_test=40)
    for i in range(40):
        example = task.source("test")[i]
        a, b, c = example["entry"]["metadata"]["numbers"]
        if example["entry"]["metadata"]["target"] == a * b + c and len({a, b, c}) == 3:
            break
    else:
        pytest.fail("no such question")
    right = [grade(task, example, text) for text in (f"{a}*{b} + {c}", f"{c} + {b}*{a}", f"{a}*{b}  +  {c}")]
    assert all(g.correct for g in right) and right[0].strategy != right[1].strategy
    assert right[0].strategy == right[2].strategy >= 0
    assert not grade(task, example, f"{a}*{b}").correct and not grade(task, example, f"{a}+{b}+{c}").correct


def test_a_verifier_that_fails_or_hangs_means_wrong(chat):
    task = task_of(chat, "prime_factorization", verify_seconds=2.0)
    example = task.source("test")[0]
    assert grade(task, example, example["entry"]["answer"]).correct
    assert grade(task, example, "foo") == (False, 0.0, grade(task, example, "Foo").strategy, -1)
    assert task.facts()["verifier_errors"] == 2
    task = task_of(chat, "countdown", verify_seconds=1.0)
    example = task.source("test")[0]
    assert not grade(task, example, "9**9**9**9").correct
    assert grade(task, example, example["entry"]["metadata"]["expression"]).correct
    facts = task.facts()
    assert facts["verifier_timeouts"] + facts["verifier_crashes"] == 1


def test_what_an_answer_may_not_do(chat, tmp_path):
    """The package evaluates some answers as Python."""
    task = task_of(chat, "binary_matrix", options='{"min_n": 3, "max_n": 3}')
    example = task.source("test")[0]
    right = example["entry"]["answer"]
    as_list = [[int(x) for x in line.split()] for line in right.splitlines()]
    assert grade(task, example, right).correct
    file = tmp_path / "file"
    grade(task, example, f"[open({str(file)!r}, 'w').write('x'), {as_list}][1]")
    assert not file.exists()


def test_answers_that_the_package_does_not_know(chat):
    """Of rush_hour it gives no answer, only a verifier."""
    task = task_of(chat, "rush_hour", num_test=2, prompt_length=4000)
    example = task.source("test")[0]
    assert example["entry"]["answer"] is None
    assert not grade(task, example, "zzz").correct
    with pytest.raises(ConfigError, match=r"reasoning_gym.rush_hour has no reference solutions"):
        task.supervised(example, np.random.default_rng(0), 1)


def test_harder_is_harder(chat):
    task = task_of(chat, harder_levels=2)
    assert task.facts()["harder_levels"] == 2

    def terms(split):
        return [task.source(split)[i]["entry"]["metadata"]["num_terms"] for i in range(12)]

    assert max(terms("test")) <= 6 < min(terms("harder"))
    assert grade(task, task.source("harder")[0], task.source("harder")[0]["entry"]["answer"]).correct
    own = task_of(chat, harder='{"min_terms": 9, "max_terms": 9}')
    assert own.source("harder")[0]["entry"]["metadata"]["num_terms"] == 9


def test_without_a_curriculum_the_other_split_is_fresh(chat):
    task = task_of(chat, "list_functions", num_test=3, prompt_length=4000)
    assert task.splits == ("test", "fresh") and task.facts()["harder_levels"] == 0
    assert not set(questions(task, "test")) & set(questions(task, "fresh"))
    # Nor where the harder prompts do not fit.
    tight = task_of(chat, "binary_matrix", prompt_length=1200)
    assert tight.splits == ("test", "fresh")


def test_levels():
    assert [_nearest_level([10, 20, 40], value, 0) for value in (10, 19, 1000)] == [0, 1, 2]
    assert _nearest_level(["a", "b"], "b", 0) == 1 and _nearest_level(["a", "b"], "c", 1) == 1
    assert _nearest_level([10, 20], None, 1) == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        (
            {"dataset": "chain_sums"},
            r"config.task.dataset='chain_sums': .*nearest: chain_sum.*valid: .*",
        ),
        ({"dataset": "composite"}, r"config.task.dataset='composite'"),
        ({"options": "{"}, r"config.task.options='\{': not JSON"),
        ({"options": "[1]"}, r"config.task.options='\[1\]': valid: a JSON object"),
        (
            {"options": '{"max_term": 3}'},
            r"options: 'max_term' is no option of it .nearest: max_terms",
        ),
        ({"options": '{"seed": 3}'}, r"config.task.options: 'seed' is set by the task"),
        (
            {"harder": '{"min_terms": 0}'},
            r"config.task.harder=.*refuses that .AssertionError: min_terms",
        ),
    ],
)
def test_bad_settings_are_refused(chat, changes, message):
    with pytest.raises(ConfigError, match=message) as error:
        task_of(chat, **changes)
    assert "\n" not in str(error.value)


def test_it_is_named_in_a_config(chat):
    c = configs.default(task="sdd.tasks.reasoning_gym", step="sdd.steps.grpo")
    c.task.tokenizer, c.task.dataset, c.task.options = chat, "countdown", '{"max_numbers": 4}'
    assert configs.resolve(c).task.options.dataset == "countdown"
    c.task.num_train = 0
    with pytest.raises(ConfigError, match=r"config.task: num_train is 0; valid: 1 or more"):
        configs.resolve(c)


@pytest.mark.slow
def test_every_data_set(chat):
    """Each makes questions in all splits, and its own answer is right where it gives one."""
    from reasoning_gym.factory import DATASETS

    names = sorted(set(DATASETS) - {"composite"})
    assert len(names) >= 100
    wrong = []
    for name in names:
        task = task_of(chat, name, num_train=8, num_test=4, prompt_length=8192, verify_seconds=30.0)
        for split in ("train", *task.splits):
            example = task.source(split)[3]
            answer = example["entry"]["answer"]
            if isinstance(answer, str) and answer and "<answer>" not in answer:
                wrong += [] if grade(task, example, answer).correct else [(name, split, answer)]
            assert not grade(task, example, "").correct
        wrong += [(name, k, v) for k, v in task.facts().items() if k.startswith("verifier_") and v]
    assert not wrong
