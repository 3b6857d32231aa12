"""Adapters in a run: they start from another run, are trained alone, and are merged when it is converted."""

import jax
import numpy as np
import pytest

from sdd import checkpoint
from sdd.model import lora
from sdd.model import make as make_model
from sdd.testing import tiny_mesh
from sdd.weights import load_params
from sdd.weights.convert import architecture_of, convert


@pytest.fixture(scope="module")
def folder(small, quiet_run, undisturbed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora") / "run"
    quiet_run(small(train_num_steps=2, train_init_from=str(undisturbed), model_lora_rank=2), folder)
    return folder


def params_of(folder, model):
    """The parameters of the newest checkpoint of a run, adapters and all."""
    return checkpoint.restore_params(folder, model.init(jax.random.key(0)))


def test_only_adapters_move(folder, undisturbed):
    mesh = tiny_mesh()
    with jax.set_mesh(mesh):
        config, vocab_size, _ = architecture_of(folder)
        adapted = params_of(folder, make_model(config, vocab_size))
        start = load_params(undisturbed, make_model(lora.plain(config), vocab_size), mesh)
        frozen = {
            "shell": adapted["shell"],
            "layers": {k: v for k, v in adapted["layers"].items() if k != "lora"},
        }
        jax.tree.map(np.testing.assert_array_equal, frozen, start)
        assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(lora.split(adapted)[0]))


def test_the_converted_folder_holds_the_merged_parameters(folder, tmp_path):
    convert(folder, tmp_path / "hf")
    assert "lora" not in (tmp_path / "hf" / "config.json").read_text()
    mesh = tiny_mesh()
    with jax.set_mesh(mesh):
        config, vocab_size, _ = architecture_of(folder)
        merged = lora.merged(params_of(folder, make_model(config, vocab_size)))
        found = load_params(tmp_path / "hf", make_model(lora.plain(config), vocab_size), mesh)
        jax.tree.map(np.testing.assert_array_equal, found, merged)
