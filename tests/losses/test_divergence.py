"""Divergences against naive numpy formulas, finite differences and hand-computed numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd.losses import divergence as dv

# Compiled whole: op by op, each new shape costs a compilation an operation.
divergence = jax.jit(dv.divergence, static_argnums=(2, 3))
top_k_divergence = jax.jit(dv.top_k_divergence, static_argnums=(2, 3, 4, 5, 6))
entropy = jax.jit(dv.entropy)
token_logp = jax.jit(dv.token_logp)

KINDS = [("reverse", 0.5), ("forward", 0.5), ("js", 0.3)]


def _softmax(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def _kl(p, q):
    return np.sum(p * np.log(p / q), axis=-1)


def _naive(s, t, kind, a):
    if kind == "reverse":
        return _kl(s, t)
    if kind == "forward":
        return _kl(t, s)
    m = (1 - a) * s + a * t
    return (1 - a) * _kl(s, m) + a * _kl(t, m)


def _naive_top_k(student, teacher, k, support, remainder, kind, a):
    """One position, with loops and plain probabilities."""
    s, t = _softmax(student), _softmax(teacher)
    inside = np.argsort(-(student if support == "student" else teacher), kind="stable")[:k]
    if remainder == "tail":
        outside = np.setdiff1d(np.arange(len(s)), inside)
        s_in, t_in = np.append(s[inside], s[outside].sum()), np.append(t[inside], t[outside].sum())
        s_in, t_in = s_in[s_in > 0], t_in[t_in > 0]
    else:
        s_in, t_in = s[inside] / s[inside].sum(), t[inside] / t[inside].sum()
    return _naive(s_in, t_in, kind, a), t[inside].sum(), s[inside].sum()


def _finite_differences(f, x, eps=1e-5):
    grad = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[i] = eps
        grad[i] = (f(x + step) - f(x - step)) / (2 * eps)
    return grad


def _logits(*shape, seed=0, scale=2.0):
    return np.random.default_rng(seed).normal(size=shape) * scale


def test_direction_of_kl_by_hand():
    student, teacher = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    reverse = 0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1)  # 0.5108: E under the student
    forward = 0.9 * np.log(0.9 / 0.5) + 0.1 * np.log(0.1 / 0.5)  # 0.3681: E under the teacher
    assert reverse - forward > 0.1
    np.testing.assert_allclose(divergence(student, teacher, "reverse"), [reverse], rtol=1e-5)
    np.testing.assert_allclose(divergence(student, teacher, "forward"), [forward], rtol=1e-5)


def test_reverse_seeks_and_forward_covers_the_modes():
    teacher = np.log([0.495, 0.495, 0.01])
    one_mode, all_modes = np.log([0.98, 0.01, 0.01]), np.log([0.34, 0.33, 0.33])
    assert divergence(one_mode, teacher, "reverse") < divergence(all_modes, teacher, "reverse")
    assert divergence(one_mode, teacher, "forward") > divergence(all_modes, teacher, "forward")


@pytest.mark.parametrize(("kind", "a"), KINDS)
def test_exact_value_and_gradients(kind, a):
    student, teacher = _logits(3, 5), _logits(3, 5, seed=1)
    with jax.enable_x64(True):
        got = divergence(student, teacher, kind, a)
        grads = jax.jit(jax.grad(lambda s, t: divergence(s, t, kind, a).sum(), argnums=(0, 1)))(
            student, teacher
        )
    np.testing.assert_allclose(got, _naive(_softmax(student), _softmax(teacher), kind, a), rtol=1e-10)
    for_s = _finite_differences(lambda x: _naive(_softmax(x), _softmax(teacher), kind, a).sum(), student)
    for_t = _finite_differences(lambda x: _naive(_softmax(student), _softmax(x), kind, a).sum(), teacher)
    np.testing.assert_allclose(grads[0], for_s, atol=1e-8)
    np.testing.assert_allclose(grads[1], for_t, atol=1e-8)


@pytest.mark.parametrize(("kind", "a"), KINDS)
@pytest.mark.parametrize("remainder", ["tail", "renormalise"])
@pytest.mark.parametrize("support", ["student", "teacher"])
def test_top_k_value_masses_and_gradient(support, remainder, kind, a):
    student, teacher, k = _logits(7), _logits(7, seed=1), 3
    args = (k, support, remainder, kind, a)
    with jax.enable_x64(True):
        got = top_k_divergence(student, teacher, *args)
        grad = jax.grad(lambda s: top_k_divergence(s, teacher, *args).value)(student)
    np.testing.assert_allclose(got, _naive_top_k(student, teacher, *args), rtol=1e-10)
    want = _finite_differences(lambda s: _naive_top_k(s, teacher, *args)[0], student)
    np.testing.assert_allclose(grad, want, atol=1e-8)


@pytest.mark.parametrize("remainder", ["tail", "renormalise"])
@pytest.mark.parametrize(("kind", "a"), KINDS)
def test_top_k_of_all_tokens_is_exact(kind, a, remainder):
    student, teacher = _logits(4, 6), _logits(4, 6, seed=1)
    got = top_k_divergence(student, teacher, 6, "student", remainder, kind, a)
    np.testing.assert_allclose(got.value, divergence(student, teacher, kind, a), rtol=1e-6)
    np.testing.assert_allclose(got.teacher_mass, 1)


def test_tail_is_a_lower_bound_that_tightens():
    student, teacher = _logits(16, 8), _logits(16, 8, seed=1)
    args = ("student", "tail", "reverse", 0.5)
    values = [top_k_divergence(student, teacher, k, *args).value for k in (1, 3, 7, 8)]
    assert np.all(np.diff(np.stack(values), axis=0) > -1e-6)
    assert np.all(values[-1] - values[0] > 1e-3)


@pytest.mark.parametrize("remainder", ["tail", "renormalise"])
def test_top_k_cuts_ties_at_k(remainder):
    student = np.array([0.0, 1.0, 0.0, 0.0, 2.0])
    args = (3, "student", remainder, "reverse", 0.5)
    got = top_k_divergence(student, _logits(5), *args)
    np.testing.assert_allclose(got, _naive_top_k(student, _logits(5), *args), rtol=1e-5)


def test_tail_stays_exact_when_the_support_holds_nearly_everything():
    # 1 - sum would be 0 in float32: the tails are 2e-13 for the student and 2e-9 for the teacher.
    student, teacher = np.array([0.0, -1.0, -30.0, -29.0]), np.array([0.0, -1.0, -20.0, -21.0])
    args = (2, "student", "tail", "forward", 0.5)
    got = jax.grad(lambda s: top_k_divergence(s, teacher, *args).value)(student.astype(np.float32))
    want = _finite_differences(lambda s: _naive_top_k(s, teacher, *args)[0], student, eps=1e-3)
    np.testing.assert_allclose(np.asarray(got)[2:], want[2:], rtol=1e-2)


def test_js_endpoints_are_the_kls_and_the_normalised_limits():
    student, teacher = _logits(6), _logits(6, seed=1)
    reverse, forward = (divergence(student, teacher, kind) for kind in ("reverse", "forward"))
    np.testing.assert_array_equal(divergence(student, teacher, "js", 0.0), forward)
    np.testing.assert_array_equal(divergence(student, teacher, "js", 1.0), reverse)
    with jax.enable_x64(True):
        np.testing.assert_allclose(divergence(student, teacher, "js", 1e-6) / 1e-6, forward, rtol=1e-3)
        np.testing.assert_allclose(divergence(student, teacher, "js", 1 - 1e-6) / 1e-6, reverse, rtol=1e-3)


@pytest.mark.parametrize(("kind", "a"), KINDS)
def test_never_negative_and_zero_at_equality(kind, a):
    student, teacher = _logits(256, 6, scale=5.0), _logits(256, 6, seed=1, scale=5.0)
    assert np.all(divergence(student, teacher, kind, a) > 1e-4)
    value, grad = jax.value_and_grad(lambda s: divergence(s, student, kind, a).sum())(student)
    np.testing.assert_allclose(value, 0, atol=1e-5)
    np.testing.assert_allclose(grad, 0, atol=1e-6)
    assert np.all(top_k_divergence(student, student + 1, 2, "teacher", "tail", kind, a).value > -1e-6)


_EXTREME = np.array(
    [[1e4, -1e4, 0, 1], [-1e4, 1e4, 0, 1], [-1e9, 0, 1, -1e9], [0, -1e9, 1, -1e9], [-np.inf, 0, 1, -np.inf]],
    np.float32,
)


@pytest.mark.parametrize(("kind", "a"), KINDS)
@pytest.mark.parametrize(("support", "remainder"), [("student", "tail"), ("teacher", "renormalise")])
def test_extreme_logits_are_finite_in_value_and_gradient(support, remainder, kind, a):
    pairs = np.array(list(itertools.product(_EXTREME, repeat=2)))

    def loss(student, teacher):
        results = [
            dv.top_k_divergence(student, teacher, k, support, remainder, kind, a) for k in (1, 2, 3, 4)
        ]
        return sum(result.value.sum() for result in results), results

    grads, results = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(pairs[:, 0], pairs[:, 1])
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((grads, results)))
    if kind == "js":  # bounded by log 2, whatever the logits
        exact = results[-1].value
        assert np.all((exact > -1e-6) & (exact < np.log(2) + 1e-6))
    np.testing.assert_allclose(divergence(_EXTREME, _EXTREME, kind, a), 0, atol=1e-6)


def test_extreme_values_by_hand():
    np.testing.assert_allclose(divergence(_EXTREME[0], _EXTREME[1], "reverse"), 2e4, rtol=1e-6)
    np.testing.assert_allclose(token_logp(_EXTREME[0], np.int32(1)), -2e4)
    np.testing.assert_allclose(entropy(_EXTREME[:2]), 0, atol=1e-6)
    np.testing.assert_allclose(entropy(_EXTREME[2:]), entropy(np.array([0.0, 1.0])), rtol=1e-6)


def test_token_logp_and_entropy():
    logits, token = _logits(2, 3, 5), np.random.default_rng(0).integers(0, 5, (2, 3))
    p = _softmax(logits)
    want = np.log(np.take_along_axis(p, token[..., None], -1))[..., 0]
    np.testing.assert_allclose(token_logp(logits, token), want, rtol=1e-5)
    np.testing.assert_allclose(entropy(logits), -np.sum(p * np.log(p), -1), rtol=1e-5)
    np.testing.assert_allclose(entropy(np.zeros(8)), np.log(8), rtol=1e-6)
    grad = jax.grad(lambda x: token_logp(x, token).sum())(logits)
    np.testing.assert_allclose(grad, np.eye(5)[token] - p, atol=1e-6)


def test_bfloat16_logits_are_computed_in_float32():
    student, teacher = (jnp.asarray(_logits(4, 64, seed=s), jnp.bfloat16) for s in (0, 1))
    got = divergence(student, teacher, "reverse")
    assert got.dtype == jnp.float32
    p, q = (_softmax(np.asarray(x, np.float64)) for x in (student, teacher))
    np.testing.assert_allclose(got, _kl(p, q), rtol=1e-5)
    assert token_logp(student, np.zeros(4, np.int32)).dtype == jnp.float32
    assert top_k_divergence(student, teacher, 3, "student", "tail", "js").value.dtype == jnp.float32


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "kl"}, "kind is 'kl'; valid: reverse, forward, js"),
        ({"js_weight": 1.5}, "js_weight is 1.5"),
        ({"k": 0}, "top-k is 0; valid: 1 to 4"),
        ({"k": 5}, "top-k is 5"),
        ({"support": "both"}, "support is 'both'"),
        ({"remainder": "drop"}, "remainder is 'drop'"),
    ],
)
def test_errors_name_what_is_valid(changed, message):
    args = {"k": 2, "support": "student", "remainder": "tail", "kind": "js", "js_weight": 0.5} | changed
    with pytest.raises(ValueError, match=message):
        dv.top_k_divergence(np.zeros(4), np.zeros(4), **args)


def test_shapes_are_checked():
    with pytest.raises(AssertionError):
        dv.divergence(np.zeros((2, 4)), np.zeros((2, 5)), "reverse")
    with pytest.raises(AssertionError):
        dv.token_logp(np.zeros((2, 4)), np.zeros(3, np.int32))
