"""Every family against transformers' logits, stored by tests/golden/models/make.py."""

import json
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

from sdd.model import empty, fork
from sdd.testing import tiny_mesh

MAKE = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "models" / "make.py"))
GOLDEN = json.loads(MAKE["GOLDEN"].read_text())
P, T, G = MAKE["P"], MAKE["T"], 2


def test_every_case_is_there():
    assert list(GOLDEN) == list(MAKE["CASES"])


@pytest.mark.parametrize("name", GOLDEN)
def test_prefill_and_decoding_equal_transformers(name):
    """The last logits of a prompt, and those after more tokens, which two rows read behind one prefix."""
    tokens, positions = MAKE["inputs"]()
    with jax.set_mesh(tiny_mesh()):
        model, params = MAKE["build"](MAKE["CASES"][name])
        hidden, cache = model.apply(
            params, tokens[:, :P], positions[:, :P], empty(model.config, len(tokens), P)
        )
        prefill = model.unembed(params, hidden[:, -1])
        cache = fork(cache, model.config, G, T)
        more = [np.repeat(x[:, P:], G, axis=0) for x in (tokens, positions)]
        hidden, _ = model.apply(params, *more, cache)
        last = model.unembed(params, hidden[:, -1])
    expected = np.array(GOLDEN[name], np.float32)
    assert np.abs(expected).max() > 1  # the comparison is of something
    np.testing.assert_allclose(prefill, expected[:, 0], atol=1e-4)
    np.testing.assert_allclose(last, np.repeat(expected[:, 1], G, axis=0), atol=1e-4)
