"""What a method says about its demonstrations, against what its teacher read."""

import importlib
import pkgutil
from types import SimpleNamespace

import numpy as np
import pytest

from sdd import steps, validation
from sdd.steps.base import Chosen
from sdd.tasks.base import TRAIN
from sdd.teacher.context import demonstration_contexts
from sdd.testing import generators, graded_batch, tiny_task
from sdd.types import Contexts

NAMES = [
    module.name
    for module in pkgutil.iter_modules(steps.__path__)
    if not module.name.startswith("_")
    and module.name != "sdft"  # its demonstrations are in a file, see test_sdft.py
    and hasattr(importlib.import_module(f"sdd.steps.{module.name}"), "make")
]
OWN = {"opsd"}  # the demonstrations of these are no rows of the batch


@pytest.fixture(scope="module")
def batch():
    task = tiny_task()
    examples = [task.source(TRAIN)[i] for i in range(4)]
    answers = []
    for i, example in enumerate(examples):
        rng = np.random.default_rng(i)
        right = task.supervised(example, rng, 2)[1][1]
        answers.append([*right, *task.supervised(example, rng, 2)[0][1]])
    return task, graded_batch(task, answers, examples)


@pytest.mark.parametrize("name", NAMES)
def test_demonstrations_are_those_that_the_teacher_reads(batch, name):
    task, graded = batch
    module = importlib.import_module(f"sdd.steps.{name}")
    step = module.make(module.Config())
    if step.source != "policy":
        return
    chosen = step.choose(task, graded, generators(0, 4))
    if name in OWN or chosen.contexts is None:
        assert chosen.demonstrations is None
        return
    assert (chosen.demonstrations >= 0).any()
    rebuilt = demonstration_contexts(task, graded.examples, graded.rollouts, chosen.demonstrations)
    np.testing.assert_array_equal(rebuilt.tokens_NxKxD, chosen.contexts.tokens_NxKxD)
    said = validation.taught_by(task, graded, chosen)
    rows = [row for record in said for row in record["demonstrations"]]
    assert rows == [[i for i in row if i >= 0] for row in chosen.demonstrations.tolist()]


def test_what_is_no_row_of_the_batch_is_kept_as_text(batch):
    task, graded = batch
    plain = [task.prompt(e) for e in graded.examples]
    width = max(map(len, plain)) + 3
    tokens = np.full((16, 2, width), task.tokenizer.pad_id, np.int32)
    length = np.zeros((16, 2), np.int32)
    truth = []
    for n in range(16):
        for k in range(2):
            context = plain[n // 4] if k == 0 else plain[n // 4][: 3 + n % 2]
            tokens[n, k, width - len(context) :], length[n, k] = context, len(context)
        truth.append([task.tokenizer.decode(tokens[n, k, width - length[n, k] :]) for k in range(2)])
    said = validation.taught_by(task, graded, Chosen((), Contexts(tokens, length), {}))
    found = [[r["teacher_contexts"][k] for k in ks] for r in said for ks in r["teacher_context"]]
    assert found == truth and all(len(r["teacher_contexts"]) == 3 for r in said)
    assert validation.taught_by(task, graded, Chosen((), None, {})) == [{}] * 4


def test_lines_keep_their_texts_on_the_way_between_processes():
    records = [{"text": "ψ 🙂 \ud800 \n", "n": i} for i in range(3)]
    job = SimpleNamespace(most=lambda number: number + 7)  # another process has a longer line
    assert validation.gather_lines(job, range(3), 3, records) == records
