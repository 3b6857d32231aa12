"""The task of docs/add_a_task.md and the metric of docs/add_a_metric.md, as they stand there."""

import importlib

import numpy as np
import pytest

from sdd import config, experiment
from sdd.metrics import Samples, rollout_metrics
from sdd.tasks.base import TRAIN


@pytest.fixture
def task(written):
    module = importlib.import_module("my_package.my_task")
    return module.make(module.Config(), "", 3)


def test_the_task_keeps_its_promises(task):
    rng = np.random.default_rng(0)
    seen = set()
    for split in (TRAIN, *task.splits):
        source = task.source(split)
        assert len(source) >= 8
        for i in range(len(source)):
            example = source[i]
            assert example["prompt_id"] not in seen
            seen.add(example["prompt_id"])
            prompt = task.prompt(example)
            assert prompt.dtype == np.int32 and len(prompt) <= task.context_length
            np.testing.assert_array_equal(task.demonstration_prompt(example, prompt[:0]), prompt)
            for context, answers in task.supervised(example, rng, 3):
                assert len(answers) == 3 and len(context) <= task.demonstration_context_length
                for answer in answers:
                    verdict = task.grade(example, answer)
                    assert verdict.correct and verdict.right_prefix == len(answer) <= task.response_length
                    assert example["n"] % int(task.strategies[verdict.strategy]) == 0


def test_its_verdicts(task):
    def verdict(split, n, banned, text):
        example = next(e for e in task.source(split) if (e["n"], e["banned"]) == (n, banned))
        grade = task.grade(example, task.tokenizer.encode(text))
        return grade.correct, grade.strategy, grade.right_prefix

    assert verdict("harder", 6, 1, "3 <eos>") == (True, 2, 2)
    assert verdict("harder", 6, 1, "1 <eos>") == (False, 0, 0)  # forbidden, and still a strategy
    assert verdict("harder", 6, 1, "4 <eos>") == (False, 3, 0)
    assert verdict("harder", 6, 1, "3 3") == (False, 2, 1)
    assert verdict("harder", 6, 1, "<eos>") == (False, -1, 0)


def test_its_experiment_resolves(written):
    module = experiment.load(written / "my_package" / "divisors.py")
    run = config.resolve(experiment.get_config(module))
    assert run.task.name == "my_package.my_task" and run.eval.splits == ("id", "harder")


def test_task_and_metric_in_a_run(trained):
    assert set(trained.final) == {"id", "harder"}
    # 1 is right almost everywhere in training, and forbidden in "harder".
    assert trained.final["id"]["pass@1"] > trained.final["harder"]["pass@1"]
    measured = importlib.import_module("my_package.measure").measure(str(trained.workdir), "harder")
    for name in ("pass@8", "distinct_correct@8", "token_entropy"):
        assert measured[name].value == pytest.approx(trained.final["harder"][name], rel=1e-5)
    assert 1 <= measured["effective_strategies"].value <= 12


def test_the_metric_counts(written):
    metric = importlib.import_module("my_package.my_metrics").effective_strategies
    strategy = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [0, 1, 2, 3], [0, 1, 2, 3]])
    correct = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
    values = rollout_metrics(Samples(correct, strategy, 4), [metric])["effective_strategies"]
    np.testing.assert_allclose(values, [2, 1, 4, np.nan])
