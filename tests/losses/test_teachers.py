"""Several teachers, and the sampled-token estimator against full enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd.losses import divergence as dv

# Compiled whole: op by op, each new shape costs a compilation an operation.
divergence = jax.jit(dv.divergence, static_argnames=("kind", "js_weight"))
_STATIC = ("k", "kind", "js_weight", "support", "remainder", "combine", "top_k", "return_to_go")
top_k_divergence = jax.jit(dv.top_k_divergence, static_argnames=_STATIC[:5])
divergence_to_teachers = jax.jit(dv.divergence_to_teachers, static_argnames=_STATIC[1:7])
sampled_token_advantage = jax.jit(dv.sampled_token_advantage, static_argnames=("combine", "return_to_go"))

WEIGHTS = np.array([[1.0, 2.0, 1.0], [0.0, 1.0, 0.0], [0.5, 0.0, 1.5], [0.0, 0.0, 0.0]])


def _problem(V=6, T=2):
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, T, V)), rng.normal(size=(4, 3, T, V)) * 2


def _softmax(x):
    p = np.exp(x - x.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize("kind", ["reverse", "forward", "js"])
def test_loss_mean_is_the_weighted_mean_of_divergences(kind):
    student, teachers = _problem()
    got = divergence_to_teachers(student, teachers, WEIGHTS, combine="loss_mean", kind=kind, js_weight=0.3)
    each = np.stack([divergence(student, teachers[:, k], kind, 0.3) for k in range(3)], axis=1)
    want = np.einsum("nk,nkt->nt", WEIGHTS / np.maximum(WEIGHTS.sum(1, keepdims=True), 1e-9), each)
    np.testing.assert_allclose(got.value, want, rtol=1e-5)
    assert np.all(got.value[3] == 0)


@pytest.mark.parametrize("kind", ["reverse", "forward", "js"])
def test_mixture_is_one_divergence_to_the_arithmetic_mixture(kind):
    student, teachers = _problem()
    got = divergence_to_teachers(student, teachers, WEIGHTS, combine="mixture", kind=kind, js_weight=0.3)
    weights = WEIGHTS[:3] / WEIGHTS[:3].sum(1, keepdims=True)
    mixture = np.einsum("nk,nktv->ntv", weights, _softmax(teachers[:3]))
    np.testing.assert_allclose(got.value[:3], divergence(student[:3], np.log(mixture), kind, 0.3), rtol=1e-5)
    assert np.all(got.value[3] == 0)


@pytest.mark.parametrize("combine", ["loss_mean", "mixture"])
@pytest.mark.parametrize("support", ["student", "teacher"])
def test_top_k_to_one_present_teacher_is_the_single_teacher_divergence(combine, support):
    student, teachers = _problem()
    one = np.tile([0.0, 3.0, 0.0], (4, 1))
    args = {"support": support, "remainder": "tail", "kind": "js", "js_weight": 0.5}
    got = divergence_to_teachers(student, teachers, one, combine=combine, top_k=2, **args)
    want = top_k_divergence(student, teachers[:, 1], 2, **args)
    for x, y in zip(got, want):
        np.testing.assert_allclose(x, y, rtol=1e-5)


def test_loss_mean_of_reverse_kl_is_the_divergence_to_the_geometric_mean_plus_a_constant():
    student, teachers = _problem()
    weights = WEIGHTS[:3] / WEIGHTS[:3].sum(1, keepdims=True)
    geometric = np.einsum("nk,nktv->ntv", weights, np.log(_softmax(teachers[:3])))  # divergence normalises it

    def mean(s):
        return divergence_to_teachers(s, teachers[:3], WEIGHTS[:3], combine="loss_mean", kind="reverse").value

    def to_geometric_mean(s):
        return divergence(s, geometric, "reverse")

    gradients = [jax.jit(jax.grad(lambda s, f=f: f(s).sum()))(student[:3]) for f in (mean, to_geometric_mean)]
    np.testing.assert_allclose(*gradients, atol=1e-6)
    gaps = [mean(s) - to_geometric_mean(s) for s in (student[:3], student[:3] * 3 + 1)]
    np.testing.assert_allclose(*gaps, atol=1e-5)  # the constant: -log sum_v prod_k T_k^w_k
    np.testing.assert_allclose(gaps[0], -np.log(np.exp(geometric).sum(-1)), atol=1e-5)
    other = divergence_to_teachers(student, teachers, WEIGHTS, combine="mixture", kind="reverse").value
    assert np.max(np.abs(other[:3] - mean(student[:3]))) > 1e-2


def test_gradients_are_finite_where_no_teacher_is_present():
    student, teachers = _problem()

    def loss(s, combine):
        none = np.zeros((4, 3))
        return divergence_to_teachers(s, teachers, none, combine=combine, kind="reverse").value.sum()

    for combine in ("loss_mean", "mixture"):
        np.testing.assert_array_equal(jax.jit(jax.grad(lambda s, c=combine: loss(s, c)))(student), 0)


# Sequences of at most two tokens over {0, 1, 2}; token 0 stops, so a sequence is (0,) or (a, b).
_V = 3
_SEQUENCES = [(0,), *itertools.product((1, 2), range(_V))]


def _sequence_logps(logits):
    """log p(y_1), log p(y_2 | y_1) of every sequence; logits is (1 + V, V): step one, then a row a prefix."""
    logp = jax.nn.log_softmax(jnp.asarray(logits), axis=-1)
    first = np.array([y[0] for y in _SEQUENCES])
    second = np.array([y[1] if len(y) == 2 else 0 for y in _SEQUENCES])
    has_second = np.array([len(y) == 2 for y in _SEQUENCES])
    return jnp.stack([logp[0, first], jnp.where(has_second, logp[1 + first, second], 0.0)], axis=1)


def _estimated_gradient(student, teachers, weights, combine, return_to_go):
    """E over all sequences of -sum_t A_t grad log S(y_t), through the surrogate -A_t log S(y_t)."""
    mask = np.array([[True, len(y) == 2] for y in _SEQUENCES])

    def surrogate(logits):
        logp = _sequence_logps(logits)
        # What stands behind the end of a sequence must not matter.
        teacher = jnp.stack([jnp.where(mask, _sequence_logps(t), 7.0) for t in teachers], axis=1)
        weights_NxK = np.tile(weights, (len(_SEQUENCES), 1))
        advantage = sampled_token_advantage(logp, teacher, weights_NxK, mask, combine, return_to_go)
        probability = jax.lax.stop_gradient(jnp.exp(logp.sum(1)))
        return jnp.sum(probability * jnp.sum(-advantage * logp, axis=1)), advantage

    gradient, advantage = jax.jit(jax.grad(surrogate, has_aux=True))(student)
    np.testing.assert_array_equal(advantage[~mask], 0)
    return gradient


def _combined(teachers, weights, combine):
    """Logits of the combined teacher: unnormalised geometric mean, or the mixture of each step."""
    p = _softmax(np.stack(teachers))
    if combine == "mixture":
        return np.log(np.einsum("k,kpv->pv", weights, p))
    return np.einsum("k,kpv->pv", weights, np.log(p))


def _sequence_kl(student, target, prefix_student):
    """sum_t E_{prefix ~ prefix_student} sum_v S(v) (log S(v) - target(v)); the whole KL when both agree."""
    s = _softmax(student)
    per_prefix = np.sum(s * (np.log(s) - target), axis=-1)
    first = _softmax(prefix_student)[0]
    return per_prefix[0] + sum(first[a] * per_prefix[1 + a] for a in (1, 2))


@pytest.mark.parametrize("return_to_go", [True, False])
@pytest.mark.parametrize("combine", ["loss_mean", "mixture"])
def test_sampled_token_gradient_is_that_of_the_sequence_kl(combine, return_to_go):
    rng = np.random.default_rng(3)
    student, teachers = rng.normal(size=(1 + _V, _V)), list(rng.normal(size=(2, 1 + _V, _V)) * 2)
    weights = np.array([0.25, 0.75])
    target = _combined(teachers, weights, combine)
    with jax.enable_x64(True):
        got = _estimated_gradient(student, teachers, weights, combine, return_to_go)
    want, other = np.zeros_like(student), np.zeros_like(student)
    for i in np.ndindex(student.shape):
        step = np.zeros_like(student)
        step[i] = 1e-5
        through, held = (
            (_sequence_kl(student + step, target, p) - _sequence_kl(student - step, target, m)) / 2e-5
            for p, m in ((student + step, student - step), (student, student))
        )
        want[i], other[i] = (through, held) if return_to_go else (held, through)
    np.testing.assert_allclose(got, want, atol=1e-7)
    assert np.max(np.abs(want - other)) > 1e-2  # the two are not the same thing


def test_sampled_token_gradient_of_one_step_is_that_of_the_exact_reverse_kl():
    student, teacher = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)

    def surrogate(logits):
        logp = jnp.log(jax.nn.softmax(logits))[:, None]
        teacher_logp = jax.nn.log_softmax(teacher)[:, None, None]
        advantage = sampled_token_advantage(
            logp, teacher_logp, np.ones((4, 1)), np.ones((4, 1), bool), "loss_mean", True
        )
        return jnp.sum(jax.lax.stop_gradient(jnp.exp(logp)) * -advantage * logp)

    want = jax.grad(lambda s: divergence(s, teacher, "reverse"))(student)
    np.testing.assert_allclose(jax.grad(surrogate)(student), want, atol=1e-6)


def test_advantage_is_zero_without_a_teacher_and_carries_no_gradient():
    logp, teacher = -np.ones((2, 3), np.float32), -2 * np.ones((2, 2, 3), np.float32)
    weights, mask = np.array([[0.0, 0.0], [1.0, 0.0]]), np.ones((2, 3), bool)
    got = sampled_token_advantage(logp, teacher, weights, mask, "mixture", True)
    np.testing.assert_allclose(got, [[0, 0, 0], [-3, -2, -1]], rtol=1e-6)
    grad = jax.grad(lambda x: sampled_token_advantage(x, teacher, weights, mask, "loss_mean", False).sum())(
        logp
    )
    np.testing.assert_array_equal(grad, 0)
