"""Tests of my_name: what every task has to keep to, and its verdicts: pytest test_my_name.py"""

from pathlib import Path

import numpy as np
import pytest

from sdd import config, experiment, lookup, loop
from sdd.tasks.base import TRAIN

EXPERIMENT = Path(__file__).with_name("my_name_config.py")


@pytest.fixture
def settings():
    return experiment.get_config(experiment.load(EXPERIMENT))


@pytest.fixture
def task(settings):
    section = config.resolve(settings).task
    return lookup.resolve(section.name).make(section.options, "", 3)


def test_the_task_keeps_its_promises(task):
    rng, seen = np.random.default_rng(0), set()
    for split in (TRAIN, *task.splits):
        source = task.source(split)
        assert len(source) >= 8
        for example in (source[i] for i in range(len(source))):
            assert example["prompt_id"] not in seen
            seen.add(example["prompt_id"])
            prompt = task.prompt(example)
            assert prompt.dtype == np.int32 and len(prompt) <= task.context_length
            np.testing.assert_array_equal(task.demonstration_prompt(example, prompt[:0]), prompt)
            for context, answers in task.supervised(example, rng, 3):
                assert len(context) <= task.demonstration_context_length
                for answer in answers:  # the task's own answers are right
                    verdict = task.grade(example, answer)
                    assert verdict.correct and verdict.right_prefix == len(answer) <= task.response_length


def test_every_verdict_is_that_of_arithmetic(task):
    """All answers of one token to all prompts, against division itself."""
    for split in (TRAIN, *task.splits):
        for example in task.source(split):
            for divisor in range(1, 13):
                verdict = task.grade(example, task.tokenizer.encode(f"{divisor} <eos>"))
                right = example["n"] % divisor == 0 and divisor != example["banned"]
                assert (verdict.correct, task.strategies[verdict.strategy]) == (right, str(divisor))


def test_what_is_no_answer_has_no_strategy(task):
    example = task.source(TRAIN)[0]
    for text in ("<eos>", "<not> <eos>"):
        verdict = task.grade(example, task.tokenizer.encode(text))
        assert (verdict.correct, verdict.strategy) == (False, -1)


def test_it_trains(settings, tmp_path):
    settings.model.num_layers = 1  # seconds, most of them the compiler's
    settings.train.num_steps, settings.eval.every = 2, 0
    final = loop.run(config.resolve(settings), tmp_path)
    assert set(final) == {"id", "harder"}
