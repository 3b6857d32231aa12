"""The listed answers against what the task draws, and the predictions against the general fixed points."""

from collections import Counter

import numpy as np
import pytest

from sdd.steps import sdsd
from sdd.tasks.base import TRAIN
from sdd.tasks.concept_graph_config import DEMO, EOS, Config
from sdd.testing import tiny_task
from sdd.theory import fixed_points, graphs

SMALL = {
    "num_concepts": 4,
    "entities_per_concept": 3,
    "num_branches": 4,
    "max_interior": 2,
    "larger_min_interior": 1,
    "larger_max_interior": 2,
}
CONFIG = Config(**{"num_train": 64, "num_eval": 16} | SMALL)
DRAWS = 20_000


@pytest.fixture(scope="module")
def drawn():
    """A graph with a broken chain and three valid ones; and answers that the task drew for it."""
    task = tiny_task(**SMALL)
    broken = lambda e: sum(c[-1] != e["goal"] for c in e["chains"]) == 1  # noqa: E731
    example = next(e for e in task.source(TRAIN) if broken(e))
    return task, example, task.supervised(example, np.random.default_rng(0), DRAWS)


def frequencies(tokens, rows):
    count = Counter(tuple(row.tolist()) for row in rows)
    assert set(count) <= set(tokens)
    return np.array([count[answer] for answer in tokens]) / len(rows)


def test_the_closed_form_is_what_the_task_draws(drawn):
    task, example, rows = drawn
    listed = graphs.answers(CONFIG, example)
    assert abs(listed.start_Y.sum() - 1) < 1e-12
    np.testing.assert_allclose(listed.taught_CxY.sum(1), 1)
    grades = [task.grade(example, np.array(answer)) for answer in listed.tokens]
    assert listed.correct_Y.tolist() == [g.correct for g in grades] and listed.correct_Y.sum() == 3
    assert listed.concept_Y.tolist() == [
        g.strategy if g.strategy >= 0 else c for g, c in zip(grades, listed.concept_Y)
    ]
    (_, plain), (prompt, taught) = rows
    assert np.abs(frequencies(listed.tokens, plain) - listed.start_Y).sum() / 2 < 0.02
    shown = (*prompt[prompt.tolist().index(DEMO) + 1 : -3].tolist(), EOS)
    which = [t for t, right in zip(listed.tokens, listed.correct_Y) if right].index(shown)
    assert np.abs(frequencies(listed.tokens, taught) - listed.taught_CxY[which]).sum() / 2 < 0.02


def test_predicted_changes_are_those_of_the_fixed_points(drawn):
    _, example, _ = drawn
    listed = graphs.answers(CONFIG, example)
    right, changes = listed.correct_Y, graphs.predicted_changes(listed)
    np.testing.assert_allclose(changes.rl_CxC, 0, atol=1e-12)
    own = fixed_points.sdsd(sdsd.Config(), 4, listed.taught_CxY, right, listed.start_Y)
    weight = listed.start_Y[right] / listed.start_Y[right].sum()
    given = fixed_points.sdsd_given(sdsd.Config(), 4, listed.taught_CxY, weight, 0.5, listed.start_Y)
    for policy, got in ((given, changes.given_CxC), (own, changes.own_CxC)):
        gain = np.log(policy[right]) - np.log(listed.start_Y[right])
        np.testing.assert_allclose(got, gain[:, None] - gain[None], atol=1e-6)
        assert np.abs(got).max() > 0.1
    assert policy[~right].max() == 0


def test_the_report_has_a_row_for_each_pair(drawn):
    _, example, _ = drawn
    rows = graphs.report(CONFIG, [example, example])
    assert len(rows) == 2 * 3
    assert set(rows[0]) == {"prompt_id", "a", "b", "rl", "sdsd", "sdsd_own"}
    assert {row["a"] for row in rows} < set(CONFIG.strategies)


def test_a_graph_with_too_many_answers_is_refused():
    config = Config(num_train=8, entities_per_concept=60)
    task = tiny_task(num_train=8, entities_per_concept=60)
    example = next(e for e in task.source(TRAIN) if max(map(len, e["chains"])) == 4)
    with pytest.raises(ValueError, match=r"answers to train/\d+; valid: at most 100000"):
        graphs.answers(config, example)
