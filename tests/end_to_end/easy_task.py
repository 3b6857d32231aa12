"""Concept graphs whose verifier likes about half of all answers: a random model has something to learn.

The N-th verdict from now can be the moment at which the process gets a signal: the variables EASY_SIGNAL
(a number) and EASY_AT (N; counted down) say so. Everything a run does on the host passes here, so that
every moment can be hit, and the same one again.
"""

import os

from sdd.tasks import concept_graph
from sdd.tasks.base import Grade
from sdd.testing import tiny_task

Config = concept_graph.Config


def make(config, data_dir, seed):
    task = tiny_task(num_train=config.num_train, num_eval=config.num_eval)

    def grade(example, response):
        if left := int(os.environ.get("EASY_AT", 0)):
            os.environ["EASY_AT"] = str(left - 1)
            if left == 1:
                os.kill(os.getpid(), int(os.environ["EASY_SIGNAL"]))
        first = int(response[0]) if len(response) else 0
        correct = first % 2 == 0
        strategy = first // 2 % len(task.strategies) if correct else -1
        return Grade(correct, float(correct), strategy, len(response) if correct else 0)

    return task._replace(grade=grade)
