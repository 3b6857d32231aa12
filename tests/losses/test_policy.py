"""Advantages, surrogate, k3 and loss means against hand-computed numbers and enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd.losses import policy


@pytest.mark.parametrize("xp", [np, jnp])
def test_group_advantages(xp):
    reward = xp.asarray([1, 0, 0, 1, 1, 1, 1, 1], dtype=xp.float32)
    got = policy.group_advantages(reward, 4, normalise=False)
    np.testing.assert_allclose(got, [0.5, -0.5, -0.5, 0.5, 0, 0, 0, 0], atol=1e-6)
    got = policy.group_advantages(reward[:4] * 3, 4, normalise=True, eps=0.0)
    np.testing.assert_allclose(got, [1, -1, -1, 1], rtol=1e-5)
    # A group without variance has no signal rather than 0/0.
    np.testing.assert_array_equal(policy.group_advantages(reward[4:], 4, normalise=True), 0)
    assert isinstance(got, np.ndarray if xp is np else jax.Array)
    assert got.dtype == np.float32


def test_group_advantages_do_not_mix_groups_and_check_the_size():
    got = policy.group_advantages(np.array([0.0, 2.0, 100.0, 104.0]), 2, normalise=False)
    np.testing.assert_allclose(got, [-1, 1, -2, 2])
    with pytest.raises(ValueError, match="group size is 3 for 4 rows"):
        policy.group_advantages(np.zeros(4), 3, normalise=False)


@pytest.mark.parametrize("xp", [np, jnp])
def test_diversity_bonus(xp):
    correct = xp.asarray([True, True, True, True, False, True, True, True])
    strategy = xp.asarray([0, 0, 0, 1, 2, 2, -1, -1])
    got = policy.diversity_bonus(correct, strategy, 4, bonus=0.3)
    # First group: two of the three others share strategy 0; nobody shares strategy 1.
    # Second: a wrong rollout counts as a user of strategy 2, earns nothing; unknown strategies: no bonus.
    np.testing.assert_allclose(got, [1.1, 1.1, 1.1, 1.3, 0, 1.2, 1, 1], rtol=1e-6)
    assert got.dtype == np.float32
    np.testing.assert_allclose(policy.diversity_bonus(correct, strategy, 4, 0.0), correct)


def test_clipped_surrogate_value_gradient_and_indicator():
    ratio = np.array([[0.5, 1.0, 1.25, 2.0], [0.5, 1.0, 1.25, 2.0]])
    logp, advantage = np.log(ratio), np.array([2.0, -1.0])
    loss, clipped = policy.clipped_surrogate(logp, np.zeros_like(logp), advantage, 0.2, 0.28)
    np.testing.assert_allclose(loss, [[-1.0, -2.0, -2.5, -2.56], [0.8, 1.0, 1.25, 2.0]], rtol=1e-5)
    np.testing.assert_array_equal(clipped, [[0, 0, 0, 1], [1, 0, 0, 0]])
    grad = jax.grad(lambda x: policy.clipped_surrogate(x, 0 * logp, advantage, 0.2, 0.28)[0].sum())(logp)
    np.testing.assert_allclose(grad, np.where(clipped, 0, -ratio * advantage[:, None]), rtol=1e-5)


def test_clipped_surrogate_on_policy_is_the_policy_gradient_and_takes_token_advantages():
    rng = np.random.default_rng(0)
    logp, advantage = -rng.exponential(size=(2, 3)), rng.normal(size=(2, 3))
    grad = jax.grad(lambda x: policy.clipped_surrogate(x, logp, advantage, 0.2, 0.2)[0].sum())(logp)
    np.testing.assert_allclose(grad, -advantage, rtol=1e-5)


@pytest.mark.parametrize("gap", [-1e4, -200.0, 200.0, 1e4])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_far_off_policy_tokens_stay_finite(gap, sign):
    logp, zero = np.full((1, 1), gap), np.zeros((1, 1))
    for f in (
        lambda x: policy.clipped_surrogate(x, zero, np.array([sign]), 0.2, 0.2)[0].sum(),
        lambda x: policy.kl_k3(x, zero).sum(),
    ):
        assert all(np.all(np.isfinite(x)) for x in jax.value_and_grad(f)(logp))


def test_clip_bounds_are_checked():
    with pytest.raises(ValueError, match=r"clip bounds are -0\.1 and 0\.2"):
        policy.clipped_surrogate(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1), -0.1, 0.2)


def test_k3_is_unbiased_and_never_negative():
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(6), size=2)
    k3 = policy.kl_k3(np.log(p)[None], np.log(q)[None])[0]
    assert np.all(k3 >= 0)
    np.testing.assert_allclose(np.sum(p * k3), np.sum(p * np.log(p / q)), rtol=1e-5)
    np.testing.assert_allclose(policy.kl_k3(np.log(p)[None], np.log(p)[None]), 0, atol=1e-7)


_LOSS = np.array([[1.0, 3.0, np.nan], [5.0, np.nan, np.nan], [2.0, 2.0, 2.0], [9.0, np.nan, np.nan]])
_MASK = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]], bool)


@pytest.mark.parametrize(
    ("how", "denominator", "weight", "want"),
    [
        ("sequence", "all", [1, 1, 0, 1], (2 + 5 + 0 + 0) / 4),
        ("sequence", "active", [1, 1, 0, 1], (2 + 5 + 0) / 3),
        ("sequence", "active", [1, 0.5, 0, 0], (2 + 2.5) / 2),
        ("token", "all", [1, 1, 0, 1], (4 + 5) / 6),
        ("token", "active", [1, 1, 0, 1], (4 + 5) / 3),
        ("constant", "all", [1, 1, 0, 1], (4 + 5) / (10 * 4)),
        ("constant", "active", [1, 1, 0, 0], (4 + 5) / (10 * 2)),
        ("sequence", "active", [0, 0, 0, 0], 0),
        ("token", "active", [0, 0, 0, 0], 0),
        ("constant", "active", [0, 0, 0, 0], 0),
    ],
)
def test_reduce_loss(how, denominator, weight, want):
    got = policy.reduce_loss(_LOSS, _MASK, np.array(weight), how, constant_length=10, denominator=denominator)
    got = got.value
    assert got.shape == ()
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_reduce_loss_names_what_is_valid():
    args = (np.zeros((1, 1)), np.ones((1, 1), bool), np.ones(1))
    with pytest.raises(ValueError, match="loss mean is 'mean'; valid: sequence, token, constant"):
        policy.reduce_loss(*args, "mean")
    with pytest.raises(ValueError, match="denominator is 'none'"):
        policy.reduce_loss(*args, "token", denominator="none")
    with pytest.raises(ValueError, match="constant_length is 0"):
        policy.reduce_loss(*args, "constant")


@pytest.mark.parametrize("how", ["sequence", "token", "constant"])
@pytest.mark.parametrize("denominator", ["all", "active"])
def test_token_weights_are_the_gradient_of_the_loss(how, denominator):
    row_weight = np.array([1.0, 0.5, 0.0, 2.0])
    args = (_MASK, row_weight, how, 10, denominator)
    weight_NxT, divisor = policy.token_weights(*args)
    loss = np.arange(12.0).reshape(4, 3)
    got, grad = jax.value_and_grad(lambda x: policy.reduce_loss(x, *args).value)(loss)
    np.testing.assert_allclose(grad, weight_NxT / divisor, rtol=1e-6)
    np.testing.assert_allclose(got, np.sum(loss * weight_NxT) / divisor, rtol=1e-6)
    assert not np.asarray(weight_NxT)[~_MASK].any()
