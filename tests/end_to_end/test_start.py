"""What lies in memory when a run starts: nothing beside the parameters that it reads."""

import gc
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from sdd import build, checkpoint, initial, loop, weights
from sdd.config import OptimizerConfig
from sdd.model import lora
from sdd.steps import grpo, sdsd
from sdd.steps.base import init_state
from sdd.testing import tiny_mesh, tiny_model


def held():
    """Bytes of all arrays that are alive."""
    gc.collect()
    return sum(x.nbytes for x in jax.live_arrays())


class EnoughError(Exception):
    pass


@pytest.mark.parametrize("rank", [0, 2])
def test_nothing_else_is_drawn(small, quiet_run, tmp_path, monkeypatch, rank):
    """Neither when parameters come from elsewhere, nor when a run goes on."""
    config = small(train_init_from="elsewhere", model_lora_rank=rank)
    parts = loop.make_parts(config, None)
    with jax.set_mesh(parts.mesh):
        whole = sum(x.nbytes for x in jax.tree.leaves(parts.model.init(jax.random.key(0))))
    before, seen = held(), []

    def restore_newest(manager, template):
        seen.append(held() - before)

    def load_params(path, model, mesh):
        seen.append(held() - before)
        raise EnoughError

    monkeypatch.setattr(checkpoint, "restore_newest", restore_newest)
    monkeypatch.setattr(weights, "load_params", load_params)
    with pytest.raises(EnoughError):
        quiet_run(config, tmp_path)
    assert len(seen) == 2 and max(seen) < whole / 20


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)])
@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize(
    "step", [sdsd.make(sdsd.Config(teacher="ema", trust_region=0.1)), grpo.make(grpo.Config())]
)
def test_the_abstract_state_is_that_of_the_arrays(sizes, rank, step):
    """Or a restored state would have other types than a new one, and the step would be compiled again."""
    model = tiny_model(lora_rank=rank)
    optimizer, _ = build.make_optimizer(OptimizerConfig(), 10)
    with jax.set_mesh(tiny_mesh(*sizes)):
        arrays = init_state(step, optimizer, model.init(jax.random.key(0)))
        shapes = initial.abstract_state(SimpleNamespace(step=step, optimizer=optimizer, model=model))
    assert jax.tree.structure(shapes) == jax.tree.structure(arrays)
    for x, wanted in zip(jax.tree.leaves(shapes), jax.tree.leaves(arrays), strict=True):
        assert isinstance(x, jax.ShapeDtypeStruct)
        assert (x.shape, x.dtype, x.sharding) == (wanted.shape, wanted.dtype, wanted.sharding)


def test_adapters_are_those_of_the_seed(small, monkeypatch):
    """Drawn alone, they have the bits that they have when all parameters are drawn."""
    config = small(train_init_from="elsewhere", model_lora_rank=2)
    parts = loop.make_parts(config, None)
    monkeypatch.setattr(weights, "load_params", lambda path, model, mesh: model.init(jax.random.key(99)))
    with jax.set_mesh(parts.mesh):
        drawn = initial.first_state(config, parts)
        state = initial.make(config, parts, initial.abstract_state(parts))
        again = initial.make(config, parts, drawn)  # what it looks like may have numbers
    adapters = [x.params["layers"]["lora"] for x in (state, again, drawn)]
    jax.tree.map(np.testing.assert_array_equal, *adapters[:2])
    jax.tree.map(np.testing.assert_array_equal, *adapters[1:])
    assert any(np.abs(x).max() > 0 for x in jax.tree.leaves(adapters[0]["adapters"]))
    embeddings = [x.params["shell"]["embed"]["embedding"] for x in (state, drawn)]
    assert not np.array_equal(*embeddings)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)])
def test_adapters_on_a_mesh(sizes):
    model = tiny_model(lora_rank=2)
    with jax.set_mesh(tiny_mesh(*sizes)):
        drawn = model.init(jax.random.key(3))
        found = lora.adapted(tiny_model().init(jax.random.key(9)), model.init, jax.random.key(3))
    assert jax.tree.structure(found) == jax.tree.structure(drawn)
    for x, wanted in zip(*(jax.tree.leaves(p["layers"]["lora"]) for p in (found, drawn)), strict=True):
        np.testing.assert_array_equal(x, wanted)
        assert x.sharding == wanted.sharding
