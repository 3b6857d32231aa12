"""Everything under an Explicit (2, 2, 2) mesh of eight devices gives the numbers of one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from sdd.losses import blockwise, policy
from sdd.losses import divergence as dv

ROWS = ("data", "fsdp")


@pytest.fixture
def mesh():
    if len(jax.devices()) < 8:
        pytest.skip("needs eight devices")
    return jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Explicit,) * 3)


def _compare(mesh, fn, arrays, specs):
    """fn's numbers on one device equal those of arrays sharded over the mesh; returns the sharded results."""
    want = jax.jit(fn)(*arrays)
    with jax.set_mesh(mesh):
        sharded = [jax.device_put(x, jax.NamedSharding(mesh, spec)) for x, spec in zip(arrays, specs)]
        got = jax.jit(fn)(*sharded)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), got, want)
    return got


def _hidden(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("top_k", [0, 3])
@pytest.mark.parametrize("combine", ["loss_mean", "mixture"])
def test_blockwise_distillation(mesh, combine, top_k):
    def fn(params_ExV, student_NxTxE, teacher_NxKxTxE, weights_NxK, token_NxT):
        def loss(params_ExV, student_NxTxE):
            def block(s, t, token):
                logits = jnp.einsum("nte,ev->ntv", s, params_ExV)
                teacher = jax.lax.stop_gradient(jnp.einsum("nkte,ev->nktv", t, params_ExV))
                options = {"top_k": top_k, "support": "teacher", "kind": "js", "combine": combine}
                result = dv.divergence_to_teachers(logits, teacher, weights_NxK, **options)
                return result, dv.token_logp(logits, token), dv.entropy(logits)

            out = blockwise.map_blocks(block, 2, student_NxTxE, teacher_NxKxTxE, token_NxT, axes=(1, 2, 1))
            mask_NxT, weight_N = jnp.ones_like(token_NxT, bool), weights_NxK.sum(axis=1)
            loss_NxT = out[0].value + out[1] ** 2
            total = policy.reduce_loss(loss_NxT, mask_NxT, weight_N, "token", 0, "active").value
            return total, out

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params_ExV, student_NxTxE)

    weights = np.tile([[1.0, 2.0], [0.0, 0.0]], (4, 1)).astype(np.float32)
    token = np.random.default_rng(0).integers(0, 16, (8, 5))
    arrays = [_hidden(0, 4, 16), _hidden(1, 8, 5, 4), _hidden(2, 8, 2, 5, 4), weights, token]
    specs = [P(None, "tensor"), P(ROWS), P(ROWS), P(ROWS), P(ROWS)]
    _, grads = _compare(mesh, fn, arrays, specs)
    assert grads[0].sharding.spec == P(None, "tensor")


@pytest.mark.parametrize("kind", ["reverse", "forward", "js"])
def test_sum_of_blocks_with_its_gradient(mesh, kind):
    """The unembedding is split over fsdp and tensor and gathered in the block, as the model does it."""

    def fn(params_ExV, tutor_ExV, student_NxTxE, teacher_NxTxKxE, weights_NxK, mask_NxT):
        def loss(params_ExV, student_NxTxE):
            def block(s_NxTxE, t_NxTxKxE):
                spec = jax.typeof(params_ExV).sharding.spec
                split = any(spec)
                params, tutor = (
                    jax.sharding.reshard(x, P(None, "tensor")) if split else x
                    for x in (params_ExV, tutor_ExV)
                )
                teacher_NxKxTxV = jnp.einsum("ntke,ev->nktv", t_NxTxKxE, tutor)
                logits = jnp.einsum("nte,ev->ntv", s_NxTxE, params)
                options = {"kind": kind, "combine": "loss_mean"}
                value = dv.divergence_to_teachers(logits, teacher_NxKxTxV, weights_NxK, **options).value
                return value, {"value": value, "entropy": dv.entropy(logits)}

            weight_NxT, divisor = policy.token_weights(
                mask_NxT, weights_NxK.sum(axis=1), "sequence", 0, "active"
            )
            arrays = (student_NxTxE, teacher_NxTxKxE)
            total, tokens = blockwise.sum_blocks(block, 2, weight_NxT, *arrays)
            return total / divisor, tokens

        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params_ExV, student_NxTxE)

    weights = np.tile([[1.0, 2.0], [0.0, 0.0]], (4, 1)).astype(np.float32)
    mask = np.random.default_rng(0).random((8, 5)) < 0.7
    arrays = [
        _hidden(0, 4, 16),
        _hidden(3, 4, 16),
        _hidden(1, 8, 5, 4),
        _hidden(2, 8, 5, 2, 4),
        weights,
        mask,
    ]
    specs = [P("fsdp", "tensor")] * 2 + [P(ROWS)] * 4
    _, grads = _compare(mesh, fn, arrays, specs)
    assert grads[0].sharding.spec == P("fsdp", "tensor")
    assert grads[1].sharding.spec[0] == ROWS


def test_weights_of_no_sharding_fit_losses_of_one(mesh):
    def fn(hidden_NxTxE):
        run = lambda h: blockwise.sum_blocks(lambda x: ((x**2).sum(-1), x), 2, jnp.ones((8, 5)), h)[0]  # noqa: E731
        return jax.value_and_grad(run)(hidden_NxTxE)

    _compare(mesh, fn, [_hidden(0, 8, 5, 4)], [P(ROWS)])


@pytest.mark.parametrize("remainder", ["tail", "renormalise"])
@pytest.mark.parametrize("support", ["student", "teacher"])
def test_top_k_of_a_sharded_vocabulary(mesh, support, remainder):
    def fn(student, teacher):
        def loss(student):
            result = dv.top_k_divergence(student, teacher, 4, support, remainder, "reverse")
            return result.value.sum(), result

        return jax.value_and_grad(loss, has_aux=True)(student)

    logits = [_hidden(s, 8, 3, 16) for s in (0, 1)]
    _compare(mesh, fn, logits, [P(ROWS, None, "tensor")] * 2)


def test_policy_parts(mesh):
    def fn(logp_NxT, old_NxT, teacher_NxKxT, weights_NxK, mask_NxT, reward_N, strategy_N):
        reward_N = reward_N + policy.diversity_bonus(reward_N > 0, strategy_N, 4, 0.5)
        advantage_N = policy.group_advantages(reward_N, 4, normalise=True)
        loss, clipped = policy.clipped_surrogate(logp_NxT, old_NxT, advantage_N, 0.1, 0.2)
        token = dv.sampled_token_advantage(logp_NxT, teacher_NxKxT, weights_NxK, mask_NxT, "mixture", True)
        loss = loss + policy.kl_k3(logp_NxT, old_NxT)
        ones_N = jnp.ones_like(reward_N)
        total = [
            policy.reduce_loss(loss, mask_NxT, ones_N, how, 4) for how in ("sequence", "token", "constant")
        ]
        return advantage_N, token, clipped, total

    rng = np.random.default_rng(0)
    arrays = [_hidden(0, 8, 5), _hidden(1, 8, 5), _hidden(2, 8, 2, 5), np.ones((8, 2), np.float32)]
    arrays += [rng.random((8, 5)) < 0.7, _hidden(3, 8), rng.integers(0, 3, 8)]
    out = _compare(mesh, fn, arrays, [P(ROWS)] * len(arrays))
    assert out[0].sharding.spec == P(ROWS)
