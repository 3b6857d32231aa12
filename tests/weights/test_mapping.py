"""Names, shapes and layouts against transformers' list of tensors and the model's own parameters."""

import jax
import numpy as np
import pytest

from sdd.model import make
from sdd.model.presets import from_hf
from sdd.testing import tiny_mesh, tiny_model
from sdd.weights import mapping
from sdd.weights.assemble import abstract_params, path_name
from sdd.weights.errors import WeightsError

FAMILIES = ("llama", "smollm2", "mistral", "qwen2", "qwen3", "olmo2", "olmo3", "gemma2", "gemma3_text")


def architecture(tiny, family):
    return from_hf(tiny.CONFIGS[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tensors_are_those_of_transformers(tiny, family):
    config, vocab_size, name = architecture(tiny, family)
    ours = {e.name: e.stored_shape for e in mapping.entries(config, vocab_size, name)}
    assert ours == tiny.hf_shapes(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_parameters_are_those_of_the_model(tiny, family):
    config, vocab_size, _ = architecture(tiny, family)
    model, mesh = make(config, vocab_size), tiny_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        made = model.init(jax.random.key(0))
    expected = abstract_params(model, mesh)
    assert jax.tree.structure(made) == jax.tree.structure(expected)
    for x, y in zip(jax.tree.leaves(made), jax.tree.leaves(expected), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert x.sharding == y.sharding


def test_a_model_with_token_shift_has_parameters_and_no_names():
    model = tiny_model()
    with jax.set_mesh(tiny_mesh()):
        made = model.init(jax.random.key(0))
    shapes = {path_name(p): x.shape for p, x in jax.tree_util.tree_leaves_with_path(made)}
    assert mapping.shapes(model.config, model.vocab_size) == shapes
    with pytest.raises(WeightsError, match=r"^qwen3 has no tensor for the parameter shell/shift/kernel;"):
        list(mapping.entries(model.config, model.vocab_size, "qwen3"))


def test_an_unknown_family():
    model = tiny_model()
    with pytest.raises(WeightsError, match=r"^family 'qwem3': .*valid: llama, mistral, "):
        list(mapping.entries(model.config, model.vocab_size, "qwem3"))


def test_blocks_are_read_and_no_more():
    """Every block of a parameter equals that of the whole; a block of whole heads reads its rows alone."""
    rng = np.random.default_rng(0)
    for row, shape in (
        (mapping.COMMON["layers/attention/q/kernel"], (5, 4, 6)),
        (mapping.COMMON["layers/attention/o/kernel"], (4, 6, 5)),
        (mapping.PROJECTION_NORMS["layers/attention/q_norm/scale"], (4, 6)),
        (mapping.COMMON["layers/mlp/down/kernel"], (4, 5)),
        (mapping.COMMON["shell/embed/embedding"], (7, 5)),
    ):
        whole = rng.standard_normal(shape)
        entry = mapping.Entry("p", 0, "t", row, shape)
        stored = mapping.to_theirs(whole, row)
        assert stored.shape == entry.stored_shape
        for _ in range(20):
            cuts = [sorted(rng.integers(0, n + 1, 2)) for n in shape]
            index = tuple(slice(int(a), int(b)) for a, b in cuts)
            block = mapping.read_ours(stored.__getitem__, entry, index)
            np.testing.assert_array_equal(block, whole[index])
    seen = []
    row = mapping.COMMON["layers/attention/q/kernel"]
    entry = mapping.Entry("p", 0, "t", row, (5, 4, 6))
    index = (slice(1, 3), slice(2, 4), slice(None))
    mapping.read_ours(lambda i: seen.append(i) or np.zeros((24, 5))[i], entry, index)
    assert seen == [(slice(12, 24), slice(1, 3))]
