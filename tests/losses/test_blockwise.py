"""Blocks of tokens give the same numbers as all tokens at once, in less memory and with no product twice."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd.losses import blockwise, policy
from sdd.losses import divergence as dv


def _problem(N=2, T=7, E=4, V=11):
    rng = np.random.default_rng(0)
    student, teachers = rng.normal(size=(N, T, E)), rng.normal(size=(N, 3, T, E))
    return student, teachers, rng.integers(0, V, (N, T)), rng.normal(size=(E, V))


def _loss(params, student, teachers, token, block_size):
    """A realistic fn: K teachers whose T is on axis 2, integers beside floats, closed-over parameters."""

    def fn(student_NxTxE, teacher_NxKxTxE, token_NxT):
        logits = student_NxTxE @ params
        teacher = teacher_NxKxTxE @ jax.lax.stop_gradient(params)
        weights = np.ones(teacher.shape[:2])
        value = dv.divergence_to_teachers(logits, teacher, weights, combine="mixture", kind="js").value
        return {"value": value, "logp": dv.token_logp(logits, token_NxT), "logits": logits}

    return blockwise.map_blocks(fn, block_size, student, teachers, token, axes=(1, 2, 1))


@pytest.mark.parametrize("block_size", [1, 3, 100])
def test_values_and_gradients_equal_the_unblocked(block_size):
    student, teachers, token, params = _problem()

    def total(params, student, teachers, block_size):
        out = _loss(params, student, teachers, token, block_size)
        weight_NxT = np.arange(14.0).reshape(2, 7)  # not the same gradient for each token
        return jnp.sum(weight_NxT * (out["value"] - 0.1 * out["logp"])) + jnp.sum(out["logits"] ** 2), out

    run = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True), static_argnames=("block_size",))
    with jax.enable_x64(True):
        got = run(params, student, teachers, block_size=block_size)
        want = run(params, student, teachers, block_size=0)
    assert got[0][1]["logits"].shape == (2, 7, 11)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-9), got, want)


def test_blocks_see_their_own_tokens_in_order():
    seen = blockwise.map_blocks(lambda x: x + jnp.arange(x.shape[1]), 2, jnp.array([[10, 20, 30, 40, 50]]))
    np.testing.assert_array_equal(seen, [[10, 21, 30, 41, 50]])


def test_memory_holds_one_block_of_logits():
    N, T, E, V, block_size = 2, 256, 8, 8192, 16
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((E, V), (N, T, E), (N, T, E))]

    def loss(params, student, teacher, block_size):
        def fn(s_NxTxE, t_NxTxE):
            return dv.divergence(s_NxTxE @ params, jax.lax.stop_gradient(t_NxTxE @ params), "js")

        return blockwise.map_blocks(fn, block_size, student, teacher).sum()

    def temporary_bytes(block_size):
        grad = jax.jit(jax.grad(functools.partial(loss, block_size=block_size), argnums=(0, 1)))
        return grad.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    one_logits = N * T * V * 4
    assert temporary_bytes(0) > one_logits
    assert temporary_bytes(block_size) < one_logits / 2


WEIGHTS_NxK = np.array([[1.0, 3.0, 0.0], [0.5, 0.5, 1.0]])  # their shares are exact in float32


def _naive_divergence(student_NxTxV, teacher_NxTxV, kind, a=0.3):
    """From plain log-softmaxes, with plain automatic differentiation."""
    s, t = jax.nn.log_softmax(student_NxTxV), jax.nn.log_softmax(teacher_NxTxV)
    kl = lambda p, q: jnp.sum(jnp.exp(p) * (p - q), axis=-1)  # noqa: E731
    if kind == "js":
        m = jnp.log((1 - a) * jnp.exp(s) + a * jnp.exp(t))
        return (1 - a) * kl(s, m) + a * kl(t, m)
    return kl(s, t) if kind == "reverse" else kl(t, s)


def _naive_top_k(student, teacher, kind, k, remainder):
    s, t = jax.nn.log_softmax(student), jax.nn.log_softmax(teacher)
    order = jnp.argsort(-s, axis=-1)
    sort = lambda x: jnp.take_along_axis(x, order, axis=-1)  # noqa: E731
    inside = [sort(x)[..., :k] for x in (s, t)]
    if remainder == "tail":
        tails = [jax.nn.logsumexp(sort(x)[..., k:], axis=-1, keepdims=True) for x in (s, t)]
        inside = [jnp.concatenate(pair, axis=-1) for pair in zip(inside, tails, strict=True)]
    return _naive_divergence(*inside, kind)


def _to_teachers(kind, combine, student, teacher):
    weight_NxK = WEIGHTS_NxK / WEIGHTS_NxK.sum(axis=1, keepdims=True)
    if combine == "mixture":
        p = jnp.einsum("nk,nktv->ntv", weight_NxK, jax.nn.softmax(teacher))
        return _naive_divergence(student, jnp.log(p), kind)
    each = [_naive_divergence(student, teacher[:, k], kind) for k in range(3)]
    return sum(weight_NxK[:, k, None] * each[k] for k in range(3))


def _cases():
    """name: (what sdd computes, the naive formula), both of student NxTxV, teachers NxKxTxV, tokens NxT."""
    cases = {}
    for kind in ("reverse", "forward", "js"):
        options = {"kind": kind, "js_weight": 0.3}
        cases[kind] = (
            lambda s, t, y, o=options: dv.divergence(s, t[:, 0], **o),
            lambda s, t, y, kind=kind: _naive_divergence(s, t[:, 0], kind),
        )
        for combine in ("mixture", "loss_mean"):
            cases[f"{kind} {combine}"] = (
                lambda s, t, y, o=options, c=combine: (
                    dv.divergence_to_teachers(s, t, WEIGHTS_NxK, combine=c, **o).value
                ),
                lambda s, t, y, kind=kind, c=combine: _to_teachers(kind, c, s, t),
            )
    for remainder in ("tail", "renormalise"):
        cases[remainder] = (
            lambda s, t, y, r=remainder: dv.top_k_divergence(s, t[:, 0], 4, "student", r, "reverse").value,
            lambda s, t, y, r=remainder: _naive_top_k(s, t[:, 0], "reverse", 4, r),
        )
    pick = lambda s, y: jnp.take_along_axis(jax.nn.log_softmax(s), y[..., None], axis=-1)[..., 0]  # noqa: E731
    old = np.log(1 / 11)
    cases["log-probability"] = (lambda s, t, y: dv.token_logp(s, y), lambda s, t, y: pick(s, y))
    cases["clipped surrogate and k3"] = (
        lambda s, t, y: (
            policy.clipped_surrogate(
                dv.token_logp(s, y), jnp.full(y.shape, old), np.array([1.0, -2]), 0.1, 0.2
            )[0]
            + 0.3 * policy.kl_k3(dv.token_logp(s, y), jnp.full(y.shape, old))
        ),
        lambda s, t, y: (
            -jnp.minimum(
                jnp.exp(pick(s, y) - old) * np.array([[1.0], [-2]]),
                jnp.clip(jnp.exp(pick(s, y) - old), 0.9, 1.2) * np.array([[1.0], [-2]]),
            )
            + 0.3 * (jnp.exp(old - pick(s, y)) - (old - pick(s, y)) - 1)
        ),
    )
    return cases


CASES = _cases()


@pytest.mark.parametrize("name", CASES)
def test_sum_and_gradient_equal_the_naive_formula(name):
    """Three blocks of seven tokens; the teacher is differentiated too, wherever it is read."""
    ours, naive = CASES[name]
    student, teachers, token, params = _problem()
    weight_NxT = np.arange(14.0).reshape(2, 7)

    def fused(params, student, teachers):
        def fn(s_NxTxE, t_NxKxTxE, token_NxT):
            loss_NxT = ours(s_NxTxE @ params, t_NxKxTxE @ params, token_NxT)
            return loss_NxT, {"loss": loss_NxT, "token": token_NxT + offset_Nx1}

        return blockwise.sum_blocks(fn, 3, weight_NxT, student, teachers, token, axes=(1, 2, 1))

    def plain(params, student, teachers):
        return jnp.sum(weight_NxT * naive(student @ params, teachers @ params, token))

    with jax.enable_x64(True):
        offset_Nx1 = jnp.array([[0], [100]])
        inputs = (params, student, teachers)
        (got, seen), got_grads = jax.jit(jax.value_and_grad(fused, (0, 1, 2), has_aux=True))(*inputs)
        want, want_grads = jax.jit(jax.value_and_grad(plain, (0, 1, 2)))(*inputs)
    np.testing.assert_allclose(got, want, rtol=1e-9)
    np.testing.assert_allclose(np.sum(weight_NxT * np.asarray(seen["loss"])), want, rtol=1e-9)
    np.testing.assert_array_equal(seen["token"], token + np.asarray(offset_Nx1))
    for x, y in zip(got_grads, want_grads, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-10)


def _products(differentiated, block_size=2):
    """How many matrix products the value and the gradient of a distillation loss are made of."""

    def loss(params, hidden, tutor):
        def fn(h):
            return dv.divergence(h @ params, jax.lax.stop_gradient(h @ tutor), "reverse"), ()

        return blockwise.sum_blocks(fn, block_size, jnp.ones((2, 4)), hidden)[0]

    run = jax.value_and_grad(loss, differentiated) if differentiated else loss
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((3, 5), (2, 4, 3), (3, 5))]
    return str(jax.make_jaxpr(jax.jit(run))(*shapes)).count("dot_general")


def test_only_what_is_asked_for_is_computed_and_only_once():
    assert _products(()) == 2  # the student's logits and the teacher's
    assert _products((0, 1)) == 4
    assert _products((1,)) == 3  # frozen parameters: as with adapters
    assert _products((0,)) == 3
    assert _products((0, 1, 2)) == 4  # the teacher is cut off: zeros, without a product


def test_gradient_nests_in_jit_scan_and_a_factor():
    student, _, token, params = _problem()
    weight_NxT = np.ones((2, 7))

    def total(params, factor):
        inner = jax.jit(
            lambda p: blockwise.sum_blocks(
                lambda h, y: (dv.token_logp(h @ p, y), ()), 2, weight_NxT, student, token
            )[0]
        )
        step = lambda sum_, x: (sum_ + factor * inner(x * params) ** 2, None)  # noqa: E731
        return jax.lax.scan(step, 0.0, jnp.array([1.0, 2.0]))[0]

    def plain(params, factor):
        inner = lambda p: jnp.sum(dv.token_logp(student @ p, token))  # noqa: E731
        return factor * (inner(params) ** 2 + inner(2 * params) ** 2)

    got, want = (jax.grad(f)(params.astype(np.float32), 0.3) for f in (total, plain))
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize("block_size", [0, 2])
def test_tokens_without_weight_do_not_count(block_size):
    x = jnp.array([[1.0, jnp.nan, 3.0]])
    run = lambda x: blockwise.sum_blocks(  # noqa: E731
        lambda x: (2 * x, x), block_size, jnp.array([[1.0, 0.0, 0.5]]), x
    )
    (total, seen), grad = jax.value_and_grad(run, has_aux=True)(x)
    assert float(total) == 5.0
    np.testing.assert_array_equal(grad, [[2, 0, 1]])
    np.testing.assert_array_equal(seen, x)
    assert not jax.grad(lambda x: run(x)[1].sum())(x).any()  # what is only looked at has no gradient


def test_half_precision_parameters_have_a_gradient_that_was_added_up_in_float32():
    params = jnp.zeros(1, jnp.bfloat16)
    ones = jnp.ones((1, 512))
    grad = jax.grad(lambda p: blockwise.sum_blocks(lambda x: (x * p, ()), 1, ones, ones)[0])(params)
    assert grad.dtype == jnp.bfloat16
    np.testing.assert_array_equal(grad, [512])  # 256 + 1 is 256 in bfloat16


def test_memory_of_the_gradient_holds_one_block_of_logits():
    N, T, E, V, block_size = 2, 256, 8, 8192, 16
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((E, V), (N, T, E), (N, T, E))]

    def loss(params, student, teacher):
        fn = lambda s, t: (dv.divergence(s @ params, jax.lax.stop_gradient(t @ params), "js"), ())  # noqa: E731
        return blockwise.sum_blocks(fn, block_size, jnp.ones((N, T)), student, teacher)[0]

    compiled = jax.jit(jax.value_and_grad(loss, argnums=(0, 1))).lower(*shapes).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < N * T * V * 4 / 2


def test_errors():
    x = np.zeros((2, 4))
    with pytest.raises(ValueError, match="block_size is -1"):
        blockwise.sum_blocks(lambda x: (x, ()), -1, x, x)
    with pytest.raises(ValueError, match="sum_blocks got 0 arrays"):
        blockwise.sum_blocks(lambda x: (x, ()), 1, x)
    with pytest.raises(ValueError, match="block_size is -1"):
        blockwise.map_blocks(lambda x: x, -1, x)
    with pytest.raises(ValueError, match="got 1 arrays and 2 axes"):
        blockwise.map_blocks(lambda x: x, 1, x, axes=(1, 1))
    with pytest.raises(AssertionError):
        blockwise.map_blocks(lambda x, y: x, 2, x, np.zeros((2, 5)))
