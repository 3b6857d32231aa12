"""The sampler: agrees with a training forward pass, stops, and a rollout depends on itself alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd import sampling
from sdd.config import SamplingConfig
from sdd.embedders import policy as embedders_policy
from sdd.losses.divergence import entropy, token_logp
from sdd.sampling import score
from sdd.sampling.draw import choose
from sdd.sampling.score import response_hidden, unshared_response_hidden
from sdd.testing import tiny_mesh, tiny_model

B, P, G, T = 4, 12, 3, 7
STOP = (2, 5, 7, 9, 11)


@pytest.fixture
def model():
    with jax.set_mesh(tiny_mesh()):
        model = tiny_model(vocab_size=16)
        yield model, model.init(jax.random.key(0))


def contexts(seed=0):
    rng = np.random.default_rng(seed)
    length = np.array([P, 3, 8, 1], np.int32)
    tokens = rng.integers(1, 16, (B, P)).astype(np.int32)
    tokens[np.arange(P) < P - length[:, None]] = 0
    return tokens, length


PLAIN = SamplingConfig()


def draw(model, params, config=PLAIN, key=1, rows=None, stop=STOP):
    sampler = sampling.make(model, config, group_size=G, max_tokens=T, stop_ids=stop)
    tokens, length = contexts()
    rows = np.arange(B * G, dtype=np.int32) if rows is None else rows
    return sampler(params, tokens, length, rows, jax.random.key(key))


@pytest.mark.parametrize("config", [SamplingConfig(), SamplingConfig(0.7, top_k=6, top_p=0.9, min_p=0.01)])
def test_log_probabilities_equal_a_training_forward_pass(model, config):
    model, params = model
    r = draw(model, params, config)
    hidden = unshared_response_hidden(
        model,
        params,
        np.repeat(np.asarray(r.context_BxP), G, 0),
        np.repeat(np.asarray(r.context_length_B), G),
        r.response_NxT,
    )
    logits = model.unembed(params, hidden)
    expected_logp, expected_entropy = map(np.asarray, (token_logp(logits, r.response_NxT), entropy(logits)))
    r = jax.tree.map(np.asarray, r)
    filtered = sampling.filter_logits(np.asarray(logits).reshape(-1, 16), config).reshape(logits.shape)
    close = {"rtol": 0, "atol": 2e-5}
    np.testing.assert_allclose(expected_logp[r.mask_NxT], r.model_logp_NxT[r.mask_NxT], **close)
    np.testing.assert_allclose(expected_entropy[r.mask_NxT], r.entropy_NxT[r.mask_NxT], **close)
    drawn = np.take_along_axis(np.asarray(jax.nn.log_softmax(filtered)), r.response_NxT[..., None], -1)[
        ..., 0
    ]
    np.testing.assert_allclose(drawn[r.mask_NxT], r.sampling_logp_NxT[r.mask_NxT], **close)


def test_rows_end_at_their_first_stop_token(model):
    r = jax.tree.map(np.asarray, draw(*model))
    ends = np.isin(r.response_NxT, STOP) & r.mask_NxT
    assert ends.any() and not ends.all(axis=1).any()
    for row, mask, end in zip(r.response_NxT, r.mask_NxT, ends, strict=True):
        length = mask.sum()
        assert mask[:length].all() and (row[length:] == 0).all()
        assert end.sum() == (1 if length < T else end[T - 1]) and (
            not end.any() or end.argmax() == length - 1
        )


def test_the_loop_ends_when_all_rows_have_ended(model):
    r = jax.tree.map(np.asarray, draw(*model, stop=tuple(range(16))))
    assert (r.mask_NxT.sum(axis=1) == 1).all()


def test_a_rollout_depends_on_its_context_row_and_key_alone(model):
    model, params = model
    a = jax.tree.map(np.asarray, draw(model, params))
    sampler = sampling.make(model, SamplingConfig(), group_size=G, max_tokens=T, stop_ids=STOP)
    tokens, length = contexts()
    order = np.array([2, 0, 3, 1])
    rows = np.arange(B * G, dtype=np.int32).reshape(B, G)[order].ravel()
    b = sampler(params, tokens[order], length[order], rows, jax.random.key(1))
    back = np.argsort(rows)
    np.testing.assert_array_equal(a.response_NxT, np.asarray(b.response_NxT)[back])
    other = draw(model, params, key=2)
    assert (np.asarray(other.response_NxT) != a.response_NxT).any()


def test_first_tokens_follow_the_models_distribution(model):
    model, params = model
    n = 4000
    sampler = sampling.make(model, SamplingConfig(), group_size=n, max_tokens=1, stop_ids=STOP)
    tokens, length = contexts()
    r = sampler(params, tokens[:1], length[:1], np.arange(n, dtype=np.int32), jax.random.key(0))
    hidden = response_hidden(model, params, tokens[:1], length[:1], r.response_NxT[:1])
    p = np.asarray(jax.nn.softmax(model.unembed(params, hidden)))[0, 0]
    counts = np.bincount(np.asarray(r.response_NxT)[:, 0], minlength=16)
    chi2 = ((counts - n * p) ** 2 / (n * p)).sum()
    assert chi2 < 37.7  # 15 degrees of freedom, p = 0.001


def test_shared_contexts_equal_unshared_in_value_and_gradient(model):
    model, params = model
    r = draw(model, params)
    repeated = (np.repeat(np.asarray(r.context_BxP), G, 0), np.repeat(np.asarray(r.context_length_B), G))

    def loss(params, hidden_of, *context):
        hidden = hidden_of(model, params, *context, r.response_NxT)
        return jnp.sum(token_logp(model.unembed(params, hidden), r.response_NxT) * r.mask_NxT)

    shared = jax.value_and_grad(loss)(params, response_hidden, r.context_BxP, r.context_length_B)
    plain = jax.value_and_grad(loss)(params, unshared_response_hidden, *repeated)
    for a, b in zip(jax.tree.leaves(shared), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("filters", [PLAIN, SamplingConfig(0.7, top_k=6, top_p=0.9, min_p=0.01)])
def test_a_mesh_of_eight_devices_draws_what_one_device_draws(filters):
    """Rows over data x fsdp, parameters over fsdp, heads and vocabulary over tensor."""
    drawn = {}
    for shape in ((1, 1, 1), (2, 2, 2)):
        with jax.set_mesh(tiny_mesh(*shape)):
            model = tiny_model(vocab_size=16)
            drawn[shape] = jax.tree.map(np.asarray, draw(model, model.init(jax.random.key(0)), filters))
    one, many = drawn.values()
    np.testing.assert_array_equal(one.response_NxT, many.response_NxT)
    np.testing.assert_array_equal(one.mask_NxT, many.mask_NxT)
    for name in ("sampling_logp_NxT", "model_logp_NxT", "entropy_NxT", "embedding_NxE"):
        np.testing.assert_allclose(getattr(one, name), getattr(many, name), rtol=0, atol=2e-5)


def test_embeddings_are_the_mean_hidden_states_of_a_plain_forward_pass(model):
    model, params = model
    r = draw(model, params)
    assert not np.asarray(r.mask_NxT).all()
    expected = embedders_policy.make(model)(params, r._replace(embedding_NxE=None))
    np.testing.assert_allclose(r.embedding_NxE, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("vocab_size", [2, 78, 1000])
def test_tokens_are_chosen_by_their_probability_and_never_with_none(vocab_size):
    n, rng = 20_000, np.random.default_rng(0)
    p_V = rng.dirichlet(np.full(vocab_size, 0.3)) * (rng.random(vocab_size) < 0.6)
    p_V[[0, -1]] = 0.0, max(p_V[-1], 0.1)
    p_V = (p_V / p_V.sum()).astype(np.float32)
    with jax.set_mesh(tiny_mesh()):
        key_N = jax.random.split(jax.random.key(0), n)
        token_N = np.asarray(jax.jit(choose)(np.tile(p_V, (n, 1)), key_N))
    counts = np.bincount(token_N, minlength=vocab_size)
    assert counts.shape == (vocab_size,) and not counts[p_V == 0].any()
    common = n * p_V >= 5
    chi2 = ((counts - n * p_V) ** 2 / np.where(common, n * p_V, 1))[common].sum()
    degrees = common.sum() - 1
    assert chi2 <= degrees + 4 * np.sqrt(2 * degrees) + 1e-6


@pytest.mark.parametrize("groups", [1, 3])
def test_responses_of_whole_tiles_are_read_with_their_last_token(model, monkeypatch, groups):
    """What long responses are read as gives the same hidden states and gradients, and the last token none."""
    model, params = model
    tokens, length = contexts()
    response = np.random.default_rng(5).integers(1, 16, (B * groups, 16)).astype(np.int32)

    def total(params):
        hidden = response_hidden(model, params, tokens, length, response)
        return jnp.sum(jnp.sin(hidden)), hidden

    (plain, hidden), gradient = jax.value_and_grad(total, has_aux=True)(params)
    monkeypatch.setattr(score, "TILED", 16)
    assert score.tokens_read(16) == 16 and score.tokens_read(15) == 14 and score.tokens_read(20) == 19
    (tiled, whole), again = jax.value_and_grad(total, has_aux=True)(params)
    assert hidden.shape == whole.shape == (B * groups, 16, hidden.shape[2])
    np.testing.assert_allclose(hidden, whole, rtol=0, atol=1e-5)
    np.testing.assert_allclose(plain, tiled, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-4), gradient, again)
