"""The decoder against a naive numpy decoder, with padding, caches and remat."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd.model import empty, fork
from sdd.sampling.loop import left_padded_positions
from sdd.testing import tiny_mesh, tiny_model

P, B = 11, 3


@pytest.fixture
def mesh():
    with jax.set_mesh(tiny_mesh()):
        yield


def inputs(seed=0, vocab=78):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(3, vocab, (B, P)).astype(np.int32)
    length = np.array([P, 4, 7], np.int32)
    for b in range(B):
        tokens[b, : P - length[b]] = 0
    return tokens, length


def naive_forward(params, config, tokens):
    """One unpadded sequence, loops over heads and positions, float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    shell, layers = p["shell"], p["layers"]

    def norm(x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps) * scale

    def turn(x, t):
        half = int(config.head_dim * config.rope_fraction) // 2
        angle = t * config.rope_theta ** (-np.arange(half) / half)
        a, b, rest = x[:half], x[half : 2 * half], x[2 * half :]
        return np.concatenate(
            [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle), rest]
        )

    emb = shell["embed"]["embedding"]
    x = emb[tokens].copy()
    if config.token_shift:
        x[1:] += emb[tokens[:-1]] @ shell["shift"]["kernel"]
    group = config.num_heads // config.num_kv_heads
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda w, i=i: w[i], layers)
        att = layer["attention"]
        y = norm(x, layer["attention_norm"]["scale"])
        q, k, v = (np.einsum("te,ehc->thc", y, att[n]["kernel"]) for n in "qkv")
        if config.qk_norm == "head":
            q, k = norm(q, att["q_norm"]["scale"]), norm(k, att["k_norm"]["scale"])
        out = np.zeros_like(q)
        for h in range(config.num_heads):
            keys = [turn(k[s, h // group], s) for s in range(len(tokens))]
            for t in range(len(tokens)):
                score = np.array([turn(q[t, h], t) @ keys[s] for s in range(t + 1)]) / np.sqrt(
                    config.head_dim
                )
                weight = np.exp(score - score.max())
                out[t, h] = (weight / weight.sum()) @ v[: t + 1, h // group]
        x = x + np.einsum("thc,hce->te", out, att["o"]["kernel"])
        y = norm(x, layer["mlp_norm"]["scale"])
        gate, up = y @ layer["mlp"]["gate"]["kernel"], y @ layer["mlp"]["up"]["kernel"]
        x = x + (gate / (1 + np.exp(-gate)) * up) @ layer["mlp"]["down"]["kernel"]
    return norm(x, shell["final_norm"]["scale"]) @ emb.T


@pytest.mark.parametrize("changes", [{}, {"qk_norm": "none", "token_shift": False, "rope_fraction": 1.0}])
def test_equals_naive_decoder_with_padding(mesh, changes):
    model = tiny_model(**changes)
    params = model.init(jax.random.key(0))
    tokens, length = inputs()
    hidden, _ = jax.jit(model.apply)(params, tokens, left_padded_positions(length, P, P))
    logits = model.unembed(params, hidden)
    for b in range(B):
        expected = naive_forward(params, model.config, tokens[b, P - length[b] :])
        np.testing.assert_allclose(logits[b, P - length[b] :], expected, atol=2e-4)


def test_cached_decode_equals_full_forward(mesh):
    model, G, T = tiny_model(), 2, 5
    params = model.init(jax.random.key(0))
    tokens, length = inputs()
    response = np.random.default_rng(1).integers(3, 78, (B * G, T)).astype(np.int32)
    hidden, cache = model.apply(
        params, tokens, left_padded_positions(length, P, P), empty(model.config, B, P)
    )
    cache = fork(cache, model.config, G, T)
    stepwise = [np.repeat(np.asarray(hidden[:, -1]), G, axis=0)]
    for t in range(T):
        position = np.repeat(length, G)[:, None] + t
        hidden, cache = model.apply(params, response[:, t : t + 1], position, cache)
        stepwise.append(hidden[:, 0])
    rows = np.concatenate([np.repeat(tokens, G, axis=0), response], axis=1)
    full, _ = model.apply(params, rows, left_padded_positions(np.repeat(length, G), P, P + T))
    np.testing.assert_allclose(np.stack(stepwise, 1), full[:, P - 1 :], atol=2e-5)


def test_a_cache_forks_once(mesh):
    model = tiny_model()
    cache = fork(empty(model.config, 2, 4), model.config, 2, 3)
    with pytest.raises(ValueError, match="prefix already"):
        fork(cache, model.config, 2, 3)


@pytest.mark.parametrize("remat", ["full", "dots", "dots_no_batch"])
def test_remat_changes_no_gradient(mesh, remat):
    tokens, length = inputs()
    positions = left_padded_positions(length, P, P)

    def gradient(model):
        params = model.init(jax.random.key(0))
        return jax.jit(jax.grad(lambda p: jnp.sum(model.apply(p, tokens, positions)[0] ** 2)))(params)

    for a, b in zip(
        jax.tree.leaves(gradient(tiny_model())),
        jax.tree.leaves(gradient(tiny_model(remat=remat))),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_untied_embeddings_and_bfloat16(mesh):
    tokens, length = inputs()
    positions = left_padded_positions(length, P, P)
    exact = tiny_model(tied_embeddings=False)
    params = exact.init(jax.random.key(0))
    assert params["shell"]["unembed"]["kernel"].shape == (32, 78)
    low = tiny_model(tied_embeddings=False, compute_dtype="bfloat16")
    a = exact.unembed(params, exact.apply(params, tokens, positions)[0])
    hidden = low.apply(params, tokens, positions)[0]
    b = low.unembed(params, hidden)
    assert hidden.dtype == jnp.bfloat16 and b.dtype == jnp.float32
    real = np.asarray(positions) >= 0
    assert 0 < np.abs(a - b)[real].max() < 0.2
