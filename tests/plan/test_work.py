"""Work is counted from the program: products as often as they run, and a chip's part of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from sdd.plan import work
from sdd.testing import tiny_mesh, tiny_model


def shaped(mesh, spec, *shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))


def test_a_split_product_in_a_scan():
    mesh = tiny_mesh(2, 2, 2)

    def f(x_MxE, w_LxExF):
        def one(total, w):
            w = jax.sharding.reshard(w, P(None, "tensor"))
            return total + jnp.sum(jnp.dot(x_MxE, w)), None

        return jax.lax.scan(one, 0.0, w_LxExF)[0]

    with jax.set_mesh(mesh):
        inputs = shaped(mesh, P("data", None), 8, 12), shaped(mesh, P(None, "fsdp", "tensor"), 5, 12, 6)
        found = work.count(jax.jit(f).trace(*inputs).jaxpr.jaxpr, dict(mesh.shape), iter(()))
    assert found.flops == 5 * 2 * 8 * 12 * 6
    assert found.chip_flops == found.flops / 4  # over data and tensor; fsdp computes the same twice
    assert found.chip_bytes == 5 * 4 * (4 * 12 + 12 * 3 + 4 * 3)
    assert found.exchanges == {("all-gather", ("fsdp",)): 5 * 4 * 12 * 3}


def test_a_product_summed_over_a_split_axis_is_an_exchange():
    mesh = tiny_mesh(2, 2, 2)
    f = lambda a, b: jnp.einsum("mk,kn->mn", a, b, out_sharding=P(None, None))  # noqa: E731
    with jax.set_mesh(mesh):
        inputs = shaped(mesh, P(None, "tensor"), 8, 12), shaped(mesh, P("tensor", None), 12, 6)
        found = work.count(jax.jit(f).trace(*inputs).jaxpr.jaxpr, dict(mesh.shape), iter(()))
    assert found.chip_flops == 8 * 12 * 6
    assert found.exchanges == {("all-reduce", ("tensor",)): 4 * 8 * 6}


def test_loops_run_as_often_as_the_caller_says():
    def f(x):
        inner = lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 1, lambda x: x @ x, x)  # noqa: E731
        x = jax.lax.while_loop(lambda x: x[0, 0] < 2, inner, x)
        return jax.lax.while_loop(lambda x: x[0, 0] < 3, lambda x: x @ x, x)

    traced = jax.jit(f).trace(jax.ShapeDtypeStruct((4, 4), jnp.float32))
    found = work.count(traced.jaxpr.jaxpr, {}, iter([10, 7]))
    assert found.flops == (10 + 7) * 2 * 4**3


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_step_counts_what_xla_counts_where_nothing_is_a_loop(remat):
    # Products dominate, and layers are written out, so that XLA counts each of them.
    model = tiny_model(64, num_layers=2, width=128, mlp_dim=256, head_dim=32, remat=remat)
    with jax.set_mesh(tiny_mesh()):
        params = model.init(jax.random.key(0))
        layers = {"layers": tuple(jax.tree.map(lambda x, i=i: x[i], params["layers"]) for i in range(2))}

        def loss(params, tokens):
            positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
            hidden, _ = model.apply(params, tokens, positions)
            return jnp.sum(jnp.square(model.unembed(params, hidden)))

        traced = jax.jit(jax.grad(loss)).trace(params | layers, np.zeros((2, 64), np.int32))
        ours = work.count(traced.jaxpr.jaxpr, {"data": 1, "fsdp": 1, "tensor": 1}, iter(())).flops
        theirs = traced.lower().compile().cost_analysis()["flops"]
    assert 0.9 < ours / theirs < 1.01  # theirs has what lies between the products too
