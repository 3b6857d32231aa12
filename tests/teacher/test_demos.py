"""Which demonstrations: counted over many draws, and the rules row by row."""

import collections

import numpy as np
import pytest

from sdd.teacher.demos import choose_demonstrations, demonstration_metrics
from sdd.testing import generators
from sdd.types import Grades

#                  group 0: four right, one wrong   group 1: one right      group 2: none right
CORRECT = np.array([1, 1, 0, 1, 1] + [0, 1, 0, 0, 0] + [0] * 5, bool)
STRATEGY = np.array([0, 0, 1, 1, 2] + [0, 1, 2, 3, 4] + [0] * 5, np.int32)
LENGTH = np.array([5, 4, 1, 3, 3] + [2] * 10)
GRADES = Grades(CORRECT, CORRECT.astype(np.float32), STRATEGY, np.zeros(15, np.int32))


def choose(seed=0, **options):
    return choose_demonstrations(GRADES, LENGTH, generators(seed, 3), group_size=5, **options)


@pytest.mark.parametrize("policy", ["random", "first", "shortest", "other_strategy"])
@pytest.mark.parametrize("per", ["rollout", "group"])
@pytest.mark.parametrize("num_demos", [1, 3])
def test_demonstrations_are_right_others_of_the_group(policy, per, num_demos):
    for seed in range(20):
        index, weight = choose(seed, policy=policy, per=per, num_demos=num_demos)
        for row in range(15):
            chosen = index[row][index[row] >= 0]
            assert len(set(chosen.tolist())) == len(chosen)
            assert all(CORRECT[i] and i != row and i // 5 == row // 5 for i in chosen)
            if policy == "other_strategy":
                assert all(STRATEGY[i] != STRATEGY[row] for i in chosen)
            else:
                others = CORRECT[row // 5 * 5 : row // 5 * 5 + 5].sum() - CORRECT[row]
                assert len(chosen) == min(num_demos, others)
            np.testing.assert_allclose(weight[row].sum(), float(len(chosen) > 0))


def test_random_is_uniform_over_the_candidates():
    counts = collections.Counter(int(choose(seed).index_NxK[0, 0]) for seed in range(3000))
    assert set(counts) == {1, 3, 4}
    assert all(abs(c - 1000) < 4 * np.sqrt(3000 * 2 / 9) for c in counts.values())


def test_first_and_shortest():
    assert choose(policy="first").index_NxK[:5, 0].tolist() == [1, 0, 0, 0, 0]
    assert choose(policy="shortest").index_NxK[:5, 0].tolist() == [3, 3, 3, 4, 3]


def test_own_rollout_when_it_is_not_excluded():
    assert choose(policy="first", exclude_own=False).index_NxK[5:10, 0].tolist() == [6] * 5
    assert choose().index_NxK[6, 0] == -1  # the only right one has no other to learn from


def test_one_draw_a_group():
    for seed in range(20):
        index = choose(seed, per="group", exclude_own=False).index_NxK[:5, 0]
        assert len(set(index.tolist())) == 1
    spread = {tuple(choose(seed, exclude_own=False).index_NxK[:5, 0].tolist()) for seed in range(20)}
    assert any(len(set(s)) > 1 for s in spread)


def test_metrics_count_what_was_chosen():
    metrics = demonstration_metrics(choose(policy="first"), GRADES)
    assert metrics["demo_rows"].value == pytest.approx(9 / 15)  # 5 of group 0, 4 of group 1, none of group 2
    assert metrics["demo_same_strategy"].value == pytest.approx(2 / 9)
