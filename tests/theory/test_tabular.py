"""The table as a model: every path through the cache, and a mesh, read the same rows."""

import jax
import numpy as np
import pytest

from sdd.sampling.score import response_hidden, unshared_response_hidden
from sdd.testing import tiny_mesh
from sdd.theory import tabular

CONTEXTS = ((9,), (8, 1, 0, 9))
V, T = 3, 3


def histories():
    prefixes = [[], *([a] for a in range(V)), *([a, b] for a in range(V) for b in range(V))]
    return [[*context, *prefix] for context in CONTEXTS for prefix in prefixes]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 1)])
def test_both_ways_of_reading_find_the_row_of_the_history(shape):
    model = tabular.make(histories(), V)
    context_BxP = np.array([[0, 0, 0, 9], [8, 1, 0, 9]], np.int32)
    length_B = np.array([1, 4], np.int32)
    response_NxT = np.array([[0, 1, 2], [2, 2, 0], [1, 0, 1], [0, 0, 0]], np.int32)
    with jax.set_mesh(tiny_mesh(*shape)):
        params = model.init(jax.random.key(0))
        read = lambda how: jax.jit(lambda *rows: model.unembed(params, how(model, params, *rows)))  # noqa: E731
        shared = np.asarray(read(response_hidden)(context_BxP, length_B, response_NxT))
        repeated = np.repeat(context_BxP, 2, axis=0), np.repeat(length_B, 2)
        unshared = np.asarray(read(unshared_response_hidden)(*repeated, response_NxT))
    rows = {tuple(h): np.asarray(params["logits"])[i] for i, h in enumerate(histories())}
    for n, t in np.ndindex(4, T):
        want = rows[(*CONTEXTS[n // 2], *response_NxT[n, :t].tolist())]
        np.testing.assert_array_equal(shared[n, t], want)
        np.testing.assert_array_equal(unshared[n, t], want)


def test_an_unknown_history_is_uniform_and_two_alike_are_refused():
    model = tabular.make([[9]], V)
    with jax.set_mesh(tiny_mesh()):
        params = model.init(jax.random.key(0))
        read = jax.jit(lambda *rows: model.unembed(params, model.apply(params, *rows)[0]))
        logits = np.asarray(read(np.array([[9, 1]]), np.array([[0, 1]])))
    np.testing.assert_array_equal(logits[0, 0], params["logits"][0])
    np.testing.assert_array_equal(logits[0, 1], 0)
    with pytest.raises(ValueError, match="two histories have the same number"):
        tabular.make([[9], [9]], V)
