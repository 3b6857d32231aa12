"""Tables trained by the methods themselves end where the theory says; and numbers of one group by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sdd.steps import grpo, grpo_diversity, sdsd, sft
from sdd.testing import tiny_mesh
from sdd.theory import expected, fixed_points, optima, tabular

G = 3
CORRECT = np.array([True, True, False, True])
STRATEGY = np.array([0, 1, 0, 0])
START = np.array([0.4, 0.25, 0.25, 0.1])
# What a reader of each right answer says; no rows alike, no zeros.
TAUGHT = np.array([[0.6, 0.2, 0.1, 0.1], [0.3, 0.45, 0.15, 0.1], [0.35, 0.2, 0.05, 0.4]])
STARTS = (START, np.array([0.05, 0.15, 0.6, 0.2]), np.array([0.1, 0.6, 0.1, 0.2]))
PAIR = (2, 2)  # answers of two tokens of two
PAIR_CORRECT = np.array([[True, False], [True, True]])
PAIR_STRATEGY = np.array([[0, 0], [1, 2]])
PAIR_START = np.array([[0.4, 0.2], [0.15, 0.25]])
PAIR_TAUGHT = np.array([[[0.5, 0.3], [0.1, 0.1]], [[0.2, 0.1], [0.6, 0.1]], [[0.1, 0.3], [0.15, 0.45]]])
PAIR_STARTS = (PAIR_START, np.array([[0.1, 0.5], [0.3, 0.1]]))


@pytest.fixture
def one_device():
    with jax.set_mesh(tiny_mesh()):
        yield


def ends(
    step, correct, strategy, starts, taught=(), reference=None, draws=False, updates=1500, optimizer=None
):
    """The distributions over answers that a table has in the end, from each start."""
    size, length = correct.shape[0], correct.ndim
    task = tabular.task(correct, strategy)
    every = tabular.answers(size, length)
    shown = list(zip(every[correct.reshape(-1)], map(fixed_points.conditionals, taught)))
    tables = [tabular.tables(task, size, fixed_points.conditionals(start), shown) for start in starts]
    if reference is not None:  # the policy at the start of the method, where training does not begin
        _, pulled_to = tabular.tables(task, size, fixed_points.conditionals(reference))
        step = step._replace(begin=lambda params: jax.tree.map(lambda x: x.copy(), pulled_to))
    batch, log_count = expected.every_group(step, task, every, G, draws)
    optimizer = optimizer or expected.falling_adam(0.05, updates)
    train = expected.trainer(step, tables[0][0], log_count, optimizer, updates)
    found = [tabular.policy(train(params, batch), size, length) for _, params in tables]
    return [fixed_points.joined(policy) for policy in found]


def assert_ends(name, got, want):
    distances = [optima.total_variation(*pair) for pair in zip(got, want, strict=True)]
    print(f"{name}: largest total variation {max(distances):.1e} from {len(got)} starts")
    assert max(distances) < 1e-5


@pytest.mark.parametrize("normalise", [False, True])
def test_grpo_with_a_penalty_ends_at_the_inverse_tilt(one_device, normalise):
    config = grpo.Config(kl_coefficient=0.2, normalise_advantages=normalise)
    want = fixed_points.grpo(config, G, fixed_points.bonus_reward(CORRECT, STRATEGY, 0.0), START)
    got = ends(grpo.make(config), CORRECT, STRATEGY, STARTS, reference=START)
    assert_ends(f"grpo, normalise={normalise}", got, [want] * len(STARTS))
    assert optima.total_variation(want, START) > 0.1
    if not normalise:
        assert optima.total_variation(want, optima.rl_optimum(START, CORRECT, 0.2 * G / (G - 1))) > 0.01


def test_grpo_with_a_bonus_for_rare_strategies_ends_at_its_fixed_point(one_device):
    config = grpo_diversity.Config(kl_coefficient=0.2, bonus=0.8)
    want = fixed_points.grpo(config, G, fixed_points.bonus_reward(CORRECT, STRATEGY, config.bonus), START)
    got = ends(grpo_diversity.make(config), CORRECT, STRATEGY, STARTS, reference=START)
    assert_ends("grpo_diversity", got, [want] * len(STARTS))
    plain = fixed_points.grpo(config, G, fixed_points.bonus_reward(CORRECT, STRATEGY, 0.0), START)
    assert want[1] > plain[1] + 0.02  # the rare way gains


def test_grpo_on_two_tokens_ends_where_each_prefix_balances(one_device):
    config = grpo.Config(kl_coefficient=0.2)
    reward = fixed_points.bonus_reward(PAIR_CORRECT, PAIR_STRATEGY, 0.0)
    want = fixed_points.grpo(config, G, reward, PAIR_START)
    got = ends(grpo.make(config), PAIR_CORRECT, PAIR_STRATEGY, PAIR_STARTS, reference=PAIR_START)
    assert_ends("grpo, two tokens", got, [want] * len(PAIR_STARTS))
    # Unlike the optimum over whole answers, it moves the ratio of right answers with different first tokens.
    ratio = lambda p: np.log(p[0, 0] / p[1, 0])  # noqa: E731
    assert abs(ratio(want) - ratio(PAIR_START)) > 0.03
    assert (
        abs(
            ratio(optima.rl_optimum(PAIR_START.ravel(), PAIR_CORRECT.ravel(), 0.3).reshape(PAIR))
            - ratio(PAIR_START)
        )
        < 1e-12
    )


def test_the_expected_gradient_of_grpo_is_that_of_the_stated_objective(one_device):
    """Away from the fixed point: - (G-1)/G grad E[R] + c grad KL(ref || pi), by softmax calculus."""
    config = grpo.Config(kl_coefficient=0.3)
    task, every, policy = tabular.task(CORRECT, STRATEGY), tabular.answers(4, 1), STARTS[1]
    model, params = tabular.tables(task, 4, [policy])
    _, reference = tabular.tables(task, 4, [START])
    batch, log_count = expected.every_group(grpo.make(config), task, every, G, draws=False)
    loss = lambda p: expected.expected(grpo.make(config), log_count).loss(model, p, reference, batch)[0].value  # noqa: E731
    got = jax.jit(jax.grad(loss))(params)["logits"][0]
    want = -(G - 1) / G * policy * (CORRECT - policy @ CORRECT) + 0.3 * (policy - START)
    np.testing.assert_allclose(got, want, atol=2e-6)


SDSD = {
    "exact reverse": {},
    "ema": {"teacher": "ema", "denominator": "all"},
    "own included": {"exclude_own": False},
    "K = 2": {"num_demos": 2},
    "mixture of 2": {"num_demos": 2, "combine": "mixture"},
    "mixture of 2, all": {"num_demos": 2, "combine": "mixture", "denominator": "all"},
    "mixture of 3, own included": {"num_demos": 3, "combine": "mixture", "exclude_own": False},
    "forward": {"divergence": "forward"},
    "forward mixture of 2": {"divergence": "forward", "num_demos": 2, "combine": "mixture"},
    "js": {"divergence": "js", "js_weight": 0.3},
    "js mixture of 2": {"divergence": "js", "js_weight": 0.7, "num_demos": 2, "combine": "mixture"},
    "top k of all": {"estimator": "top_k", "top_k": 4},
    "top k of all, renormalised": {"estimator": "top_k", "top_k": 4, "top_k_remainder": "renormalise"},
    "sampled": {"estimator": "sampled", "denominator": "all"},
}


@pytest.mark.parametrize("name", SDSD)
def test_sdsd_ends_at_the_fixed_point_of_its_own_demonstrations(one_device, name):
    config = sdsd.Config(**{"teacher": "live"} | SDSD[name])
    want = [fixed_points.sdsd(config, G, TAUGHT, CORRECT, start) for start in STARTS]
    got = ends(sdsd.make(config), CORRECT, STRATEGY, STARTS, TAUGHT, draws=True)
    assert_ends(name, got, want)
    assert optima.total_variation(want[0], START) > 0.1


PAIR_SDSD = {
    "a token": {},
    "forward": {"divergence": "forward"},
    "mixture of 2, all": {"num_demos": 2, "combine": "mixture", "denominator": "all"},
    "sampled": {"estimator": "sampled", "denominator": "all"},
    "whole answers": {"estimator": "sampled", "denominator": "all", "return_to_go": True},
}


@pytest.mark.parametrize("name", PAIR_SDSD)
def test_sdsd_on_two_tokens_matches_prefix_by_prefix(one_device, name):
    config = sdsd.Config(teacher="live", **PAIR_SDSD[name])
    want = [fixed_points.sdsd(config, G, PAIR_TAUGHT, PAIR_CORRECT, start) for start in PAIR_STARTS]
    got = ends(sdsd.make(config), PAIR_CORRECT, PAIR_STRATEGY, PAIR_STARTS, PAIR_TAUGHT, draws=True)
    assert_ends(f"two tokens, {name}", got, want)


def test_a_token_at_a_time_is_not_the_optimum_of_whole_answers():
    found = [
        fixed_points.sdsd(sdsd.Config(**PAIR_SDSD[name]), G, PAIR_TAUGHT, PAIR_CORRECT, PAIR_START)
        for name in ("a token", "whole answers")
    ]
    assert optima.total_variation(*found) > 0.01


def test_sft_ends_at_the_data(one_device):
    step = sft.make(sft.Config())
    task = tabular.task(CORRECT, STRATEGY)
    every = tabular.answers(4, 1)
    model, params = tabular.tables(task, 4, [STARTS[1]])
    batch, _ = expected.every_group(step, task, every, 1, draws=False)
    train = expected.trainer(step, model, np.log(START), expected.falling_adam(0.05, 1000), 1000)
    assert_ends("sft", [tabular.policy(train(params, batch), 4, 1)[0]], [START])


@pytest.mark.parametrize("strength", [1.5, 4.0])
def test_reverse_divergence_breaks_a_tie_between_answers_once_demonstrations_are_followed(
    one_device, strength
):
    """Two right answers, each taught by itself: u = L tanh(u / 2) has one root for L <= 2, three beyond."""
    follow = 1 / (1 + np.exp(-strength))
    taught = np.array([[follow, 1 - follow], [1 - follow, follow]])
    correct, strategy = np.array([True, True]), np.array([0, 1])
    for divergence in ("reverse", "forward"):
        config = sdsd.Config(teacher="live", divergence=divergence)
        starts = [np.array([p, 1 - p]) for p in (0.45, 0.55)]
        got = ends(sdsd.make(config), correct, strategy, starts, taught, draws=True, updates=3000)
        if divergence == "reverse" and strength > 2:
            u = 5.0
            for _ in range(200):
                u = strength * np.tanh(u / 2)
            want = 1 / (1 + np.exp(-u))
            np.testing.assert_allclose([got[0][1], got[1][0]], want, atol=1e-3)
            assert want > 0.95
        else:
            np.testing.assert_allclose(got, 0.5, atol=1e-3)


def test_without_a_penalty_the_likelier_of_two_right_answers_gains(one_device):
    """No fixed point: along the gradient of a softmax, d log(pi_a / pi_b) = (pi_a - pi_b) (1 - p) > 0."""
    config = grpo.Config()
    ratio = lambda p: np.log(p[0] / p[1])  # noqa: E731
    found = {}
    for name, optimizer in (("sgd", optax.sgd(1.0)), ("adam", expected.falling_adam(0.05, 1500))):
        (got,) = ends(grpo.make(config), CORRECT, STRATEGY, [START], optimizer=optimizer)
        assert got[2] < 0.01
        found[name] = ratio(got) - ratio(START)
    print(f"no penalty: change of log-ratio { {name: round(float(x), 4) for name, x in found.items()} }")
    assert found["sgd"] > 0.1
    assert abs(found["adam"]) < 1e-3  # steps of one size for both
    with pytest.raises(ValueError, match="kl_coefficient = 0; valid: above 0"):
        fixed_points.grpo(config, G, fixed_points.bonus_reward(CORRECT, STRATEGY, 0.0), START)


def test_options_with_other_fixed_points_are_refused():
    sampled = sdsd.Config(estimator="sampled", denominator="all")
    for wrong in (
        dataclasses.replace(sampled, exclude_own=False),
        dataclasses.replace(sampled, denominator="active"),
        sdsd.Config(demo_policy="first"),
        sdsd.Config(trust_region=0.5),
    ):
        with pytest.raises(ValueError, match=r"^theory.sdsd: .* has a fixed point that is not computed"):
            fixed_points.sdsd(wrong, G, TAUGHT, CORRECT, START)
    for options in ({"exclude_own": False}, {"combine": "mixture", "num_demos": 2}, {"estimator": "top_k"}):
        with pytest.raises(ValueError, match=r"^theory.sdsd: .* has a fixed point that is not computed"):
            fixed_points.sdsd(sdsd.Config(**options), G, PAIR_TAUGHT, PAIR_CORRECT, PAIR_START)


def test_sampled_tokens_with_the_own_rollout_shown_end_elsewhere(one_device):
    """A wrong rollout is then taught less often than a right one, so the sampled gradient is another."""
    config = sdsd.Config(teacher="live", estimator="sampled", denominator="all", exclude_own=False)
    unbiased = fixed_points.sdsd(dataclasses.replace(config, exclude_own=True), G, TAUGHT, CORRECT, START)
    (got,) = ends(sdsd.make(config), CORRECT, STRATEGY, [START], TAUGHT, draws=True)
    print(
        f"sampled, own included: total variation {optima.total_variation(got, unbiased):.3f} from the optimum"
    )
    assert optima.total_variation(got, unbiased) > 0.01


def test_a_teacher_that_moves_along_runs_away_and_a_frozen_one_does_not(one_device):
    """What a reader says is tied to the student here: T_d ~ pi exp(i(.; d)), where a network shares all."""
    task, every = tabular.task(CORRECT, STRATEGY), tabular.answers(4, 1)
    shown = list(zip(every[CORRECT], ([taught] for taught in TAUGHT)))
    model, params = tabular.tables(task, 4, [START], shown)
    information = jnp.asarray(np.log(TAUGHT) - np.log(START), jnp.float32)

    def unembed(params, hidden):
        plain = params["logits"][:1]
        return model.unembed({"logits": jnp.concatenate([plain, plain + information])}, hidden)

    found = {}
    for teacher in ("live", "ema", "frozen"):
        step = sdsd.make(sdsd.Config(teacher=teacher, ema_decay=0.9))
        batch, log_count = expected.every_group(step, task, every, G, draws=True)
        train = expected.trainer(
            step, model._replace(unembed=unembed), log_count, expected.falling_adam(0.05, 1500), 1500
        )
        found[teacher] = tabular.policy(train(params, batch), 4, 1)[0]
    want = fixed_points.sdsd(sdsd.Config(), G, TAUGHT, CORRECT, START)
    assert_ends("frozen", [found["frozen"]], [want])
    print(f"largest probability: { ({name: round(float(p.max()), 4) for name, p in found.items()}) }")
    assert found["live"].max() > 0.99 and found["ema"].max() > 0.99
