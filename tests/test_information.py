"""log pi(y_a | x, y_b) against a plain forward pass for each pair, unshared and padded on the other side."""

import jax
import numpy as np
import pytest

from sdd import information
from sdd.testing import tiny_mesh, tiny_model, tiny_task

B, M = 3, 4


def batch(seed=0):
    """Examples of the tiny task with responses of all lengths: an empty one, a full one, right and wrong."""
    task = tiny_task()
    rng = np.random.default_rng(seed)
    examples = [task.source("train")[i] for i in range(B)]
    V, T = task.tokenizer.vocab_size, task.response_length
    rows = [task.supervised(example, rng, M)[0][1] for example in examples]
    rows[0][1] = np.zeros(0, np.int32)
    rows[1][2] = rng.integers(8, V, T)
    mask_NxT = np.arange(T) < np.array([len(row) for group in rows for row in group])[:, None]
    response_NxT = rng.integers(0, V, (B * M, T)).astype(np.int32)  # padding of any kind must not matter
    response_NxT[mask_NxT] = np.concatenate([row for group in rows for row in group])
    return task, examples, response_NxT, mask_NxT


def measure(mesh_shape=(1, 1, 1), contexts_per_call=4, **options):
    task, examples, response_NxT, mask_NxT = batch()
    mesh = tiny_mesh(*mesh_shape)
    with jax.set_mesh(mesh):
        model = tiny_model(task.tokenizer.vocab_size)
        params = model.init(jax.random.key(0))
        f = information.make(model, task, mesh, contexts_per_call=contexts_per_call, **options)
        return f(params, examples, response_NxT, mask_NxT)


@pytest.fixture(scope="module")
def expected() -> information.Information:
    """A context and a response at a time, padded on the right, through a forward pass without a cache."""
    task, examples, response_NxT, mask_NxT = batch()
    with jax.set_mesh(tiny_mesh()):
        model = tiny_model(task.tokenizer.vocab_size)
        params = model.init(jax.random.key(0))
        S = task.demonstration_context_length + task.response_length
        positions = np.arange(S, dtype=np.int32)[None]
        logits = jax.jit(lambda tokens: model.unembed(params, model.apply(params, tokens, positions)[0]))

        def logp(context, response) -> float:
            tokens = np.concatenate([context, response])
            logits_SxV = np.asarray(logits(np.pad(tokens, (0, S - len(tokens)))[None])[0], np.float64)
            total = 0.0
            for t, token in enumerate(response, start=len(context) - 1):
                total += logits_SxV[t, token] - np.log(np.exp(logits_SxV[t]).sum())
            return total

        rows = [response[mask] for response, mask in zip(response_NxT, mask_NxT)]
        groups = [rows[b * M : (b + 1) * M] for b in range(B)]
        given = lambda e, shown, scored: logp(task.demonstration_prompt(e, shown), scored)  # noqa: E731
        return information.Information(
            np.array([[[given(e, y_b, y_a) for y_b in g] for y_a in g] for e, g in zip(examples, groups)]),
            np.array([[logp(task.prompt(e), y_a) for y_a in g] for e, g in zip(examples, groups)]),
            np.array([[len(y) for y in g] for g in groups]),
        )


def check(got: information.Information, expected: information.Information):
    for name, value in got._asdict().items():
        assert isinstance(value, np.ndarray)
        np.testing.assert_allclose(value, getattr(expected, name), rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("contexts_per_call", "block_size"),
    [(4, 0), (1, 0), (40, 3)],  # 15 contexts: a last call that is not full, none shared, one call
)
def test_it_equals_a_forward_pass_for_each_pair(expected, contexts_per_call, block_size):
    got = measure(contexts_per_call=contexts_per_call, block_size=block_size)
    check(got, expected)
    assert got.conditional_logp_BxMxM.shape == (B, M, M) and got.num_tokens_BxM.dtype == np.int32
    # The response without a token: nothing to score, and to show it is to show nothing.
    assert not got.conditional_logp_BxMxM[0, 1].any() and got.num_tokens_BxM[0, 1] == 0
    np.testing.assert_allclose(got.conditional_logp_BxMxM[0, :, 1], got.logp_BxM[0], atol=1e-5)
    # What is shown matters, or the test would not see a or b confused.
    assert np.abs(got.conditional_logp_BxMxM - got.conditional_logp_BxMxM.swapaxes(1, 2)).max() > 0.1
    assert np.abs(got.conditional_logp_BxMxM - got.logp_BxM[:, :, None]).max() > 1e-2


def test_a_mesh_of_eight_devices_gives_what_one_gives(expected):
    check(measure((2, 2, 2), contexts_per_call=8), expected)


def test_calls_have_one_size_and_hold_each_context_once():
    seen = []
    for index_C, real in information.calls(15, 4):
        assert len(index_C) == 4 and (index_C < 15).all()
        assert index_C[: len(real)].tolist() == list(real)
        seen += real
    assert seen == list(range(15))


@pytest.mark.parametrize("contexts_per_call", [0, 6])
def test_a_number_of_contexts_that_the_mesh_does_not_divide_is_one_line(contexts_per_call):
    with pytest.raises(ValueError) as error:
        measure((2, 2, 2), contexts_per_call)
    expected = "valid: a positive multiple of mesh data x fsdp = 4"
    assert f"contexts_per_call={contexts_per_call}" in str(error.value) and expected in str(error.value)


@pytest.mark.parametrize(
    ("num_examples", "response", "mask"),
    [(2, (5, 7), (5, 7)), (2, (4, 7), (4, 6)), (0, (4, 7), (4, 7)), (2, (0, 7), (0, 7))],
)
def test_rows_that_are_not_whole_groups_are_one_line(num_examples, response, mask):
    with pytest.raises(ValueError) as error:
        information.group(num_examples, np.zeros(response), np.zeros(mask))
    assert "valid: the same shape NxT twice" in str(error.value) and "\n" not in str(error.value)
