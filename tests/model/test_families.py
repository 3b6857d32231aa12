"""What families ask of the decoder: windows, soft caps, norms, biases, single kv heads; on any mesh."""

import dataclasses
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd.config import ConfigError, ModelConfig
from sdd.mesh import BATCH, rows
from sdd.mesh import P as Spec
from sdd.model import empty, fork
from sdd.model import make as make_model
from sdd.model.attention import Keys, Scoring, attend, head_axis, per_head
from sdd.model.kinds import frequencies, layer_kinds, visible
from sdd.ranges import check_model
from sdd.sampling.loop import left_padded_positions
from sdd.sampling.score import response_hidden
from sdd.testing import tiny_mesh, tiny_model

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "models" / "make.py"))
CASES = MAKE["CASES"]
P, B, G, T = 9, 2, 2, 8


def inputs(num_rows=B, columns=P):
    rng = np.random.default_rng(3)
    return rng.integers(3, 40, (num_rows, columns)).astype(np.int32)


@pytest.mark.parametrize("name", ["smollm2", "olmo3", "gemma2", "gemma3"])
def test_decoding_behind_a_shared_prefix_equals_the_whole_row(name):
    """Windows of 5 lie over the fork for the first tokens, and leave the prefix behind for the last."""
    tokens, response = inputs(), inputs(B * G, T)
    length = np.array([P, 4], np.int32)
    with jax.set_mesh(tiny_mesh()):
        model, params = MAKE["build"](CASES[name])
        apply = jax.jit(model.apply)
        hidden, cache = apply(params, tokens, left_padded_positions(length, P, P), empty(model.config, B, P))
        stepwise, cache = [np.repeat(np.asarray(hidden[:, -1]), G, axis=0)], fork(cache, model.config, G, T)
        for t in range(T):
            position = np.repeat(length, G)[:, None] + np.int32(t)
            hidden, cache = apply(params, response[:, t : t + 1], position, cache)
            stepwise.append(hidden[:, 0])
        whole = np.concatenate([np.repeat(tokens, G, axis=0), response], axis=1)
        full, _ = apply(params, whole, left_padded_positions(np.repeat(length, G), P, P + T))
    np.testing.assert_allclose(np.stack(stepwise, 1), full[:, P - 1 :], atol=3e-5)


def test_a_window_hides_what_is_further_back_from_every_later_layer():
    """With windows of 3 in 2 layers, a token can depend on the 2 * 2 before it and on no other."""
    tokens = inputs(1, 12)
    with jax.set_mesh(tiny_mesh()):
        model = tiny_model(40, windows=(3,), token_shift=False)
        params = model.init(jax.random.key(0))
        positions = left_padded_positions(np.array([12], np.int32), 12, 12)
        before = model.apply(params, tokens, positions)[0]
        after = model.apply(params, np.where(np.arange(12) == 4, 39 - tokens % 30, tokens), positions)[0]
    changed = np.abs(np.asarray(after - before))[0].max(-1) > 1e-6
    assert list(np.flatnonzero(changed)) == [4, 5, 6, 7, 8]


def test_visible_counts_the_query_itself_and_skips_padding():
    positions = jnp.array([[-1, 0, 1, 2, 3]])
    seen = np.asarray(visible(positions, positions, jnp.int32(2)))[0]
    expected = [[q >= 0 and k >= 0 and q - 2 < k <= q for k in range(-1, 4)] for q in range(-1, 4)]
    np.testing.assert_array_equal(seen[1:], expected[1:])


def test_kinds_follow_the_pattern_and_local_layers_are_not_stretched():
    config = ModelConfig(
        num_layers=5,
        head_dim=8,
        windows=(7, 0),
        rope_theta=100.0,
        rope_local_theta=10.0,
        rope_scaling="yarn",
        rope_factor=4.0,
        rope_original_length=64,
    )
    kinds = layer_kinds(config)
    plain = {theta: theta ** (-np.arange(4) / 4) for theta in (10.0, 100.0)}
    assert [w if w < 100 else 0 for w in kinds.window] == [7, 0, 7, 0, 7]
    np.testing.assert_allclose(kinds.frequency_R[0], plain[10.0], rtol=1e-6)
    assert (kinds.frequency_R[1] <= plain[100.0] * (1 + 1e-6)).all()
    assert kinds.frequency_R[1, -1] < 0.9 * plain[100.0][-1]
    np.testing.assert_allclose(
        kinds.magnitude, [1, 0.1 * np.log(4) + 1, 1, 0.1 * np.log(4) + 1, 1], rtol=1e-6
    )
    same = layer_kinds(dataclasses.replace(config, windows=(), rope_local_theta=0.0))
    assert same.window is None
    np.testing.assert_array_equal(same.frequency_R, np.tile(kinds.frequency_R[1], (5, 1)))


def test_linear_scaling_divides_all_frequencies():
    config = ModelConfig(head_dim=8, rope_scaling="linear", rope_factor=8.0)
    plain = dataclasses.replace(config, rope_scaling="none")
    np.testing.assert_allclose(frequencies(config), frequencies(plain) / 8, rtol=1e-6)


# What each mesh tries: kv heads that it divides, one kv head, heads and kv heads that it does not divide.
MESHES = {
    "qwen2.5": (2, 2, 2),
    "olmo3": (2, 2, 2),
    "gemma2": (2, 2, 2),
    "smollm2": (2, 1, 2),
    "gemma2_one_kv_head": (1, 2, 4),
    "gemma2_on_more_devices_than_kv_heads": (1, 1, 4),
    "qwen2.5_on_more_devices_than_kv_heads": (1, 1, 4),
}


def mesh_case(name):
    values = dict(CASES[name.partition("_")[0]], num_hidden_layers=2)
    return dict(values, num_key_value_heads=1) if name.endswith("one_kv_head") else values


def sharded(values, mesh, f):
    """``f(model, params)`` under a mesh, jitted, with the parameters where `init` puts them."""
    with jax.set_mesh(mesh):
        model, params = MAKE["build"](values)
        specs = jax.tree.map(lambda x: x.sharding.spec, jax.eval_shape(model.init, jax.random.key(0)))
        params = jax.device_put(params, specs)
        return jax.tree.map(np.asarray, jax.jit(lambda params: f(model, params))(params))


@pytest.mark.parametrize("name", [name for name in MESHES if name not in ("qwen2.5", "gemma2")])
def test_a_mesh_changes_no_logit(name):
    tokens = inputs(4)
    positions = np.asarray(left_padded_positions(np.array([P, 4, 7, P], np.int32), P, P))

    def logits(model, params):
        return model.unembed(params, model.apply(params, tokens, positions)[0])

    found, expected = (sharded(mesh_case(name), tiny_mesh(*sizes), logits) for sizes in (MESHES[name], ()))
    np.testing.assert_allclose(found[positions >= 0], expected[positions >= 0], atol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MESHES)
def test_a_mesh_changes_no_gradient_through_a_shared_prefix(name):
    context, response = inputs(4, P), inputs(8, 4)
    length = np.array([P, 4, 7, P], np.int32)

    def gradient(model, params):
        def loss(params):
            hidden = response_hidden(model, params, context, length, response)
            return jnp.sum(jnp.sin(model.unembed(params, hidden)))

        return jax.grad(loss)(params)

    found, expected = (sharded(mesh_case(name), tiny_mesh(*sizes), gradient) for sizes in (MESHES[name], ()))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("num_rows", [1, 2])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_of_any_shape_equals_a_naive_one(kv_heads, num_rows, tensor):
    """Single rows, single tokens and single key/value heads, which reshapes of split arrays stumble over."""
    rng = np.random.default_rng(0)
    for length, block in ((1, 0), (3, 0), (3, 2), (4, 2)):
        q = rng.standard_normal((num_rows, length, 4, 6)).astype(np.float32)
        k, v = (rng.standard_normal((num_rows, kv_heads, 5, 6)).astype(np.float32) for _ in range(2))
        at_NxT = rng.integers(1, 6, (num_rows, length)).astype(np.int32)
        keys_at_NxS = np.tile(np.array([2, 0, -1, 4, 1], np.int32), (num_rows, 1))
        mask = (keys_at_NxS[:, None] >= 0) & (keys_at_NxS[:, None] <= at_NxT[:, :, None])
        wide_k, wide_v = (np.repeat(x, 4 // kv_heads, axis=1) for x in (k, v))
        score = np.where(mask[:, None], 0.3 * np.einsum("nthc,nhsc->nhts", q, wide_k), -np.inf)
        weight = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
        expected = np.einsum("nhts,nhsc->nthc", weight, wide_v)
        with jax.set_mesh(tiny_mesh(1, 1, tensor)):
            q = jax.device_put(q, per_head(head_axis(4)))
            heads = Spec(BATCH, head_axis(kv_heads), None, None)
            own = Keys(*(jax.device_put(x, heads) for x in (k, v)), jax.device_put(keys_at_NxS, rows(2)))
            found = jax.jit(
                lambda q, at, own, b=block: attend(q, at, own, None, None, Scoring(0.3, block=b))
            )(q, jax.device_put(at_NxT, rows(2)), own)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_shapes_without_values_have_the_shardings_of_init():
    with jax.set_mesh(tiny_mesh(2, 2, 2)):
        model = tiny_model(attention_bias=True, tied_embeddings=False)
        abstract = jax.eval_shape(model.init, jax.random.key(0))
        params = model.init(jax.random.key(0))
    describe = lambda x: (x.shape, x.dtype, x.sharding.spec)  # noqa: E731
    assert jax.tree.map(describe, abstract) == jax.tree.map(describe, params)
    assert params["layers"]["mlp"]["down"]["kernel"].sharding.spec == Spec(None, "tensor", "fsdp")


def test_parameters_of_biases_and_wide_norms_are_split_like_heads():
    with jax.set_mesh(tiny_mesh(1, 2, 2)):
        model = tiny_model(attention_bias=True, qk_norm="projection", norm_placement="both")
        layers = model.init(jax.random.key(0))["layers"]
    shapes = jax.tree.map(lambda x: x.shape, layers)
    assert shapes["attention"]["q"]["bias"] == (2, 4, 8) and shapes["attention"]["k"]["bias"] == (2, 2, 8)
    assert shapes["attention"]["q_norm"]["scale"] == (2, 4, 8)
    assert "bias" not in layers["attention"]["o"]
    for part in (layers["attention"]["q"]["bias"], layers["attention"]["k_norm"]["scale"]):
        assert part.sharding.spec[1] == "tensor"
    assert {"attention_norm", "mlp_norm", "attention_post_norm", "mlp_post_norm"} < set(layers)
    assert jax.tree.leaves(jax.tree.map(lambda x: float(x.min()), layers["mlp_post_norm"])) == [1.0]


def test_norms_are_computed_in_float32_and_scales_are_not_rounded():
    """A scale of 1 + 2**-10 is 1 in bfloat16; the logits of a wide tree must show it."""
    with jax.set_mesh(tiny_mesh()):
        model = tiny_model(40, qk_norm="projection", compute_dtype="bfloat16")
        params = model.init(jax.random.key(0))
        seen = []
        graph = jax.make_jaxpr(
            lambda p: model.apply(p, inputs(), np.tile(np.arange(P, dtype=np.int32), (B, 1)))
        )
        for line in str(graph(params)).splitlines():
            if "rsqrt" in line:
                seen.append("f32" in line and "bf16" not in line)
        scale = params["layers"]["attention"]["q_norm"]["scale"]
        from sdd.model.transformer import gather

        kept = gather(jax.tree.map(lambda x: x[0], params["layers"]), model.config)["attention"]
    assert seen and all(seen)
    assert scale.ndim == 3 and kept["q_norm"]["scale"].dtype == jnp.float32
    assert kept["q"]["kernel"].dtype == jnp.bfloat16


def test_gradients_stay_finite_where_a_window_leaves_the_prefix_behind():
    context, response = inputs(1, P), inputs(2, T)
    with jax.set_mesh(tiny_mesh()):
        model = make_model(dataclasses.replace(ModelConfig(), num_layers=2, windows=(2, 0)), 40)
        params = model.init(jax.random.key(0))
        f = lambda p: jnp.sum(response_hidden(model, p, context, np.array([P], np.int32), response) ** 2)  # noqa: E731
        grads = jax.jit(jax.grad(f))(params)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"windows": (-1,)}, "model.windows[0]=-1: valid: 1 or more tokens, or 0 (no window)"),
        ({"windows": (4, 4, 4, 0)}, "4 windows for model.num_layers=3; valid: a pattern of at most 3"),
        ({"rope_local_theta": 10.0}, "model.rope_local_theta=10.0: no layer has a window"),
        ({"rope_scaling": "yarn"}, "model.rope_original_length=0: model.rope_scaling='yarn' needs it"),
        (
            {"rope_scaling": "llama3", "rope_original_length": 8, "rope_low_freq_factor": 4.0},
            "model.rope_low_freq_factor=4.0: valid: less than model.rope_high_freq_factor=4.0",
        ),
        (
            {"rope_scaling": "yarn", "rope_original_length": 8, "rope_beta_slow": 64.0},
            "model.rope_beta_slow=64.0: valid: less than model.rope_beta_fast=32.0",
        ),
        ({"rope_factor": 0.5}, "model.rope_factor=0.5: valid: 1 or more"),
        ({"attention_softcap": -1.0}, "model.attention_softcap=-1.0: valid: 0 or more"),
    ],
)
def test_values_that_do_not_fit_are_refused(changes, said):
    with pytest.raises(ConfigError) as error:
        check_model(dataclasses.replace(ModelConfig(), **changes), "model")
    assert said in str(error.value) and "\n" not in str(error.value)
