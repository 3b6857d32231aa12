"""The whole state, bit for bit, on the mesh it was saved on and on another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sdd import build, checkpoint
from sdd import mesh as mesh_lib
from sdd.config import OptimizerConfig
from sdd.steps import sdsd
from sdd.steps.base import init_state
from sdd.testing import tiny_mesh, tiny_model


def state_on(mesh, seed):
    """A state with an averaged teacher and a reference, every array of it different."""
    step = sdsd.make(sdsd.Config(teacher="ema", trust_region=0.1))
    optimizer, _ = build.make_optimizer(OptimizerConfig(), 10)
    with jax.set_mesh(mesh):
        state = init_state(step, optimizer, tiny_model().init(jax.random.key(seed)))
        numbers = iter(range(10_000))
        change = lambda x: (x + (1 + next(numbers)) * 0.37).astype(x.dtype)  # noqa: E731
        return jax.tree.map(change, state)._replace(step=state.step + 3)


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for (path, x), (_, y) in zip(
        jax.tree_util.tree_leaves_with_path(ours), jax.tree_util.tree_leaves_with_path(theirs), strict=True
    ):
        assert x.dtype == y.dtype, path
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=jax.tree_util.keystr(path))


@pytest.mark.parametrize("target", [(2, 2, 2), (1, 1, 1)])
def test_round_trip(tmp_path, target):
    state = state_on(tiny_mesh(2, 2, 2), seed=0)
    template = state_on(tiny_mesh(*target), seed=1)
    with checkpoint.open_manager(tmp_path, 2) as manager:
        assert checkpoint.restore_newest(manager, template) is None
        checkpoint.save(manager, state, {"data": {"next": 7}})
        checkpoint.wait(manager)
    with checkpoint.open_manager(tmp_path, 2) as manager:
        restored = checkpoint.restore_newest(manager, template)
    assert_same(restored.state, state)
    assert restored.meta == {"data": {"next": 7}} and restored.damaged == ()
    for x, wanted in zip(jax.tree.leaves(restored.state), jax.tree.leaves(template), strict=True):
        assert x.sharding.is_equivalent_to(wanted.sharding, x.ndim)


def test_shapes_are_enough(tmp_path):
    state = state_on(tiny_mesh(2, 2, 2), seed=0)
    with checkpoint.open_manager(tmp_path, 2) as manager:
        checkpoint.save(manager, state, {})
        checkpoint.wait(manager)
        shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
        restored = checkpoint.restore_newest(manager, shapes)
    assert_same(restored.state, state)
    assert [x.sharding for x in jax.tree.leaves(restored.state)] == [
        x.sharding for x in jax.tree.leaves(state)
    ]


def test_abstract():
    """Shapes, types and shardings are those of the arrays; an array alone says nothing of its sharding."""
    mesh = tiny_mesh(2, 2, 2)
    make = lambda key: (tiny_model().init(key), jnp.zeros((), jnp.int32))  # noqa: E731
    with jax.set_mesh(mesh):
        shapes, arrays = mesh_lib.abstract(make, jax.random.key(0)), make(jax.random.key(0))
    for x, wanted in zip(jax.tree.leaves(shapes[0]), jax.tree.leaves(arrays[0]), strict=True):
        assert isinstance(x, jax.ShapeDtypeStruct)
        assert (x.shape, x.dtype, x.sharding) == (wanted.shape, wanted.dtype, wanted.sharding)
    assert shapes[1].sharding == jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def test_parameters_alone(tmp_path):
    state = state_on(tiny_mesh(2, 2, 2), seed=0)
    with checkpoint.open_manager(tmp_path, 2) as manager:
        checkpoint.save(manager, state, {})
    template = state_on(tiny_mesh(), seed=1).params
    assert_same(checkpoint.restore_params(tmp_path, template), state.params)


def test_the_newest_are_kept_and_one_that_is_there_stays(tmp_path):
    state = state_on(tiny_mesh(), seed=0)
    with checkpoint.open_manager(tmp_path, 2) as manager:
        for step in (1, 2, 3, 3):
            checkpoint.save(manager, state._replace(step=jnp.int32(step)), {"data": step})
        checkpoint.wait(manager)
        assert sorted(manager.all_steps()) == [2, 3]


def test_digest_sees_one_bit():
    tree = {
        "f": jnp.arange(8, dtype=jnp.float32),
        "h": jnp.ones(4, jnp.bfloat16),
        "b": jnp.array([True, False]),
    }
    before = checkpoint.digest(tree)
    bits = tree["f"].view(jnp.int32).at[5].set(tree["f"].view(jnp.int32)[5] ^ 1)
    after = checkpoint.digest(tree | {"f": bits.view(jnp.float32)})
    assert before["['f']"] != after["['f']"] and before["['h']"] == after["['h']"]


def test_digest_is_the_same_on_every_mesh():
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)
    spec = jax.sharding.PartitionSpec(("data", "fsdp"), "tensor")
    digests = []
    for sizes in ((1, 1, 1), (2, 2, 2)):
        placed = jax.device_put(x, jax.sharding.NamedSharding(tiny_mesh(*sizes), spec))
        digests.append(checkpoint.digest({"x": placed}))
    assert digests[0] == digests[1] == {"['x']": int(x.view(np.uint32).sum(dtype=np.uint32))}
