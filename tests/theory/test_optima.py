"""Closed forms against numerical optimisation and plain enumeration."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import minimize

from sdd.steps import grpo, sdsd
from sdd.theory import bandit, fixed_points, optima

START = np.array([0.4, 0.25, 0.25, 0.1])
REWARD = np.array([1.0, 0.3, 0.0, 1.0])
TAUGHT = np.array([[0.6, 0.2, 0.1, 0.1], [0.3, 0.45, 0.15, 0.1], [0.35, 0.2, 0.05, 0.4]])
WEIGHT = np.array([0.5, 0.2, 0.3])


def kl(p, q):
    return np.sum(p * (np.log(p) - np.log(q)))


def least(objective, size=4):
    """argmin over the simplex, by BFGS on logits."""
    at = lambda z: np.exp(z - z.max()) / np.exp(z - z.max()).sum()  # noqa: E731
    found = minimize(lambda z: objective(at(z)), np.zeros(size), method="BFGS", options={"gtol": 1e-9})
    return at(found.x)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_rl_optimum_is_the_best_policy_and_keeps_ratios(beta):
    got = optima.rl_optimum(START, REWARD, beta)
    np.testing.assert_allclose(got, least(lambda p: beta * kl(p, START) - p @ REWARD), atol=1e-6)
    np.testing.assert_allclose(got[0] / got[3], START[0] / START[3])
    with pytest.raises(ValueError, match="beta = 0; valid: above 0"):
        optima.rl_optimum(START, REWARD, 0)


@pytest.mark.parametrize("coefficient", [0.05, 1.0])
def test_the_inverse_tilt_is_the_best_policy_and_keeps_ratios(coefficient):
    got = optima.inverse_tilt(START, REWARD, coefficient)
    np.testing.assert_allclose(got, least(lambda p: coefficient * kl(START, p) - p @ REWARD), atol=1e-6)
    np.testing.assert_allclose(got[0] / got[3], START[0] / START[3])
    rows = optima.inverse_tilt(np.stack([START, START[::-1]]), np.stack([REWARD, REWARD[::-1]]), coefficient)
    np.testing.assert_allclose(rows, [got, got[::-1]])


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_the_sdsd_optimum_is_the_best_policy(beta):
    got = optima.sdsd_optimum(START, TAUGHT, WEIGHT, beta)
    objective = lambda p: WEIGHT @ [kl(p, t) for t in TAUGHT] + beta * kl(p, START)  # noqa: E731
    np.testing.assert_allclose(got, least(objective), atol=1e-6)
    information = np.log(TAUGHT) - np.log(START)
    wanted = START * np.exp(WEIGHT @ information / (1 + beta))
    np.testing.assert_allclose(got, wanted / wanted.sum())


def js(p, q, a):
    m = (1 - a) * p + a * q
    return (1 - a) * kl(p, m) + a * kl(q, m)


@pytest.mark.parametrize("kind, a", [("reverse", 0), ("forward", 0), ("js", 0.1), ("js", 0.5), ("js", 0.9)])
def test_what_matches_the_teachers_is_nearest_to_them(kind, a):
    distance = {"reverse": kl, "forward": lambda p, q: kl(q, p), "js": lambda p, q: js(p, q, a)}[kind]
    got = optima.matched(TAUGHT, WEIGHT, kind, a)
    np.testing.assert_allclose(got, least(lambda p: WEIGHT @ [distance(p, t) for t in TAUGHT]), atol=1e-6)


@pytest.mark.parametrize("a", [0.05, 0.5, 0.95])
def test_the_js_centre_balances_to_rounding(a):
    got = optima.matched(TAUGHT, WEIGHT, "js", a)
    slope = WEIGHT @ np.log((1 - a) + a * TAUGHT / got)
    assert np.ptp(slope) < 1e-12
    assert abs(got.sum() - 1) < 1e-12


def test_js_ends_are_the_two_divergences():
    for a, kind in ((0.0, "forward"), (1.0, "reverse")):
        np.testing.assert_array_equal(
            optima.matched(TAUGHT, WEIGHT, "js", a), optima.matched(TAUGHT, WEIGHT, kind)
        )
    near = optima.matched(TAUGHT, WEIGHT, "js", 1e-4), optima.matched(TAUGHT, WEIGHT, "js", 1 - 1e-4)
    np.testing.assert_allclose(near[0], optima.matched(TAUGHT, WEIGHT, "forward"), atol=1e-4)
    np.testing.assert_allclose(near[1], optima.matched(TAUGHT, WEIGHT, "reverse"), atol=1e-4)


def test_an_answer_that_no_teacher_gives_has_no_mass():
    taught = np.array([[0.7, 0.3, 0.0], [0.2, 0.8, 0.0]])
    for kind in ("reverse", "forward", "js"):
        got = optima.matched(taught, np.array([0.5, 0.5]), kind)
        assert got[2] == 0 and abs(got.sum() - 1) < 1e-12
    with pytest.raises(ValueError, match="divergence is 'up'; valid: reverse, forward, js"):
        optima.matched(taught, np.array([0.5, 0.5]), "up")


def test_mixtures_are_those_of_every_draw():
    share = [0.3, 0.1, 0.6]
    rows, weights = optima.mixtures(TAUGHT, WEIGHT, share)
    assert abs(weights.sum() - 1) < 1e-12
    value = lambda t: np.sum(t**2 * np.arange(4))  # noqa: E731  (any function that is not linear)
    wanted = sum(
        share[size - 1] * np.prod(WEIGHT[list(drawn)]) * value(TAUGHT[list(drawn)].mean(0))
        for size in (1, 2, 3)
        for drawn in product(range(3), repeat=size)
    )
    np.testing.assert_allclose(sum(w * value(r) for r, w in zip(rows, weights)), wanted)


@pytest.mark.parametrize("exclude_own", [True, False])
@pytest.mark.parametrize("denominator", ["active", "all"])
def test_shares_of_shown_demonstrations_are_those_of_every_pattern(exclude_own, denominator):
    right, size, most = 0.3, 4, 2
    wanted = np.zeros(most)
    for pattern in product([0, 1], repeat=size):
        chance = np.prod([right if x else 1 - right for x in pattern])
        seen = [sum(pattern) - (x if exclude_own else 0) for x in pattern]
        taught = [s for s in seen if s]
        for s in taught:
            wanted[min(s, most) - 1] += chance / (len(taught) if denominator == "active" else size)
    got = fixed_points.shown_shares(right, size, most, exclude_own, denominator)
    np.testing.assert_allclose(got, wanted / wanted.sum())


def test_conditionals_and_joint_are_one():
    joint = np.random.default_rng(0).dirichlet(np.ones(27)).reshape(3, 3, 3)
    conditional_T = fixed_points.conditionals(joint)
    assert [c.shape for c in conditional_T] == [(3,), (3, 3), (3, 3, 3)]
    np.testing.assert_allclose(conditional_T[1].sum(-1), 1)
    np.testing.assert_allclose(fixed_points.joined(conditional_T), joint)


def test_plain_grpo_has_a_closed_form():
    """pi = b ref / (b + E R - R) with b = c G / (G - 1), checked by putting it in."""
    group, correct = 4, np.array([True, False, False, True])
    reward = fixed_points.bonus_reward(correct, np.zeros(4), 0.0)
    got = fixed_points.grpo(grpo.Config(kl_coefficient=0.15), group, reward, START)
    b = 0.15 * group / (group - 1)
    np.testing.assert_allclose(got, b * START / (b + got @ correct - correct), rtol=1e-6)


def test_the_number_of_demonstrations_matters_to_the_mixture_only():
    correct, ends = np.array([True, True, False, True]), {}
    for combine, num_demos in product(("loss_mean", "mixture"), (1, 3)):
        config = sdsd.Config(combine=combine, num_demos=num_demos)
        ends[combine, num_demos] = fixed_points.sdsd(config, 4, TAUGHT, correct, START)
    np.testing.assert_allclose(ends["loss_mean", 3], ends["loss_mean", 1], atol=1e-12)
    np.testing.assert_allclose(ends["mixture", 1], ends["loss_mean", 1], atol=1e-12)
    assert optima.total_variation(ends["mixture", 3], ends["mixture", 1]) > 1e-3


def test_a_calibrated_reader_lets_forward_keep_ratios_and_reverse_sharpen_them():
    """Where the teachers' mean is the start among right answers, KL(T||S) ends there."""
    found = bandit.optima_of(follow=0.8)
    right = lambda p: p[bandit.CORRECT] / p[bandit.CORRECT].sum()  # noqa: E731
    np.testing.assert_allclose(right(found["SDSD, own, forward KL"]), right(bandit.START), atol=1e-9)
    for name in ("RL optimum", "GRPO, k3 penalty"):
        np.testing.assert_allclose(right(found[name]), right(bandit.START), atol=1e-6)
    for name in ("SDSD, the start's demos", "SDSD, own, mean of losses"):
        assert right(found[name])[0] > right(bandit.START)[0] + 0.05


def test_gains_in_log_space_are_those_of_the_optimum():
    start, taught = START[:3] / 2, TAUGHT[:, :3] * [[2.0], [1.0], [0.1]]
    given, own = optima.sdsd_gains(np.log(start), np.log(taught), beta=0.5)
    want = optima.sdsd_optimum(start, taught, start / start.sum(), 0.5)
    np.testing.assert_allclose(optima.differences(given), optima.log_ratio_change(want, start), atol=1e-9)
    policy = optima.softmax(np.log(start) + own)
    np.testing.assert_allclose(policy, optima.sdsd_optimum(start, taught, policy, 0.5), atol=1e-9)


@pytest.mark.parametrize("follow, number", [(0.6, 1), (0.97, 3)])
def test_where_own_demonstrations_end_depends_on_the_start_once_they_are_followed(follow, number):
    """From 30 starts drawn at random; the forward divergence ends in one place from all of them."""
    taught, starts = bandit.taught(follow), np.random.default_rng(0).dirichlet(np.ones(5), 30)
    ends = {}
    for divergence in ("reverse", "forward"):
        config = sdsd.Config(divergence=divergence)
        found = [fixed_points.sdsd(config, bandit.GROUP_SIZE, taught, bandit.CORRECT, p) for p in starts]
        ends[divergence] = {tuple(np.round(p, 6)) for p in found}
    print(f"follow {follow}: ends from 30 starts: { {name: len(each) for name, each in ends.items()} }")
    assert (len(ends["reverse"]), len(ends["forward"])) == (number, 1)
