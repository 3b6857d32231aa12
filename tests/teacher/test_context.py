"""The teacher reads the prompt with the chosen demonstration, then exactly the student's response."""

import numpy as np

from sdd.tasks.base import TRAIN
from sdd.teacher.context import demonstration_contexts
from sdd.testing import graded_batch, tiny_task


def test_rows_hold_the_prompt_and_the_chosen_demonstration():
    task = tiny_task()
    examples = task.source(TRAIN)[:2]
    rng = np.random.default_rng(0)
    answers = [[c for c in task.supervised(e, rng, 3)[0][1]] for e in examples]
    graded = graded_batch(task, answers, examples)
    index = np.array([[1, -1], [2, 0], [-1, -1], [4, 5], [3, -1], [-1, -1]], np.int32)
    contexts = demonstration_contexts(task, examples, graded.rollouts, index)
    flat = [a for group in answers for a in group]
    for row in range(6):
        for k in range(2):
            demo = flat[index[row, k]] if index[row, k] >= 0 else np.zeros(0, np.int32)
            expected = task.demonstration_prompt(examples[row // 3], demo)
            length = contexts.length_NxK[row, k]
            np.testing.assert_array_equal(contexts.tokens_NxKxD[row, k, -length:], expected)
            assert (contexts.tokens_NxKxD[row, k, :-length] == task.tokenizer.pad_id).all()
    plain = contexts.tokens_NxKxD[2, 0, -contexts.length_NxK[2, 0] :]
    np.testing.assert_array_equal(plain, task.prompt(examples[0]))
