"""The decoder behind pure functions: ``apply(params, tokens, positions, cache)`` and ``unembed``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from sdd import mesh as mesh_lib
from sdd.config import ModelConfig
from sdd.mesh import P
from sdd.model.cache import Cache
from sdd.model.layers import Block, Shell, visible
from sdd.types import Array, Key, Params

# Logical axes of each parameter of a layer, by its path; stacked layers add "layers" in front.
LOGICAL_AXES = {
    "attention/q/kernel": ("embed", "heads", "head"),
    "attention/k/kernel": ("embed", "kv_heads", "head"),
    "attention/v/kernel": ("embed", "kv_heads", "head"),
    "attention/o/kernel": ("heads", "head", "embed"),
    "mlp/gate/kernel": ("embed", "mlp"),
    "mlp/up/kernel": ("embed", "mlp"),
    "mlp/down/kernel": ("mlp", "embed"),
    "embed/embedding": ("vocab", "embed"),
    "unembed/kernel": ("embed", "vocab"),
    "shift/kernel": (None, None),
}

# Remat policies by name: what the forward pass keeps for the backward pass.
REMAT = {
    "none": lambda f: f,
    "full": jax.checkpoint,
    "dots": lambda f: jax.checkpoint(f, policy=jax.checkpoint_policies.dots_saveable),
    "dots_no_batch": lambda f: jax.checkpoint(
        f, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    ),
}


class Model(NamedTuple):
    """A decoder as pure functions; call them under ``jax.set_mesh``.

    Attributes:
      config: the architecture.
      vocab_size: V.
      init: ``(key) -> params``, sharded over the current mesh.
      apply: ``(params, tokens_NxT, positions_NxT, cache=None) -> (hidden_NxTxE, cache)``.
        Negative positions mark padding. Without a cache the second result is None.
      unembed: ``(params, hidden_...xE) -> logits_...xV`` in float32.
    """

    config: ModelConfig
    vocab_size: int
    init: Callable[[Key], Params]
    apply: Callable[..., tuple[jax.Array, Any]]
    unembed: Callable[[Params, Array], jax.Array]


def make(config: ModelConfig, vocab_size: int) -> Model:
    """Builds the decoder of a config, whose sizes :mod:`sdd.config` has checked."""
    build_block = lambda key: Block(config, rngs=nnx.Rngs(key))  # noqa: E731
    build_shell = lambda key: Shell(config, vocab_size, rngs=nnx.Rngs(key))  # noqa: E731
    blueprints = {
        name: nnx.split(nnx.eval_shape(build, jax.random.key(0)), nnx.Param)
        for name, build in (("block", build_block), ("shell", build_shell))
    }

    def merge(name: str, params: Params) -> Any:
        graphdef, state = blueprints[name]
        state = jax.tree.map(lambda x: x, state)  # a copy: replacing writes in place
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graphdef, state)

    def init(key: Key) -> Params:
        mesh = jax.sharding.get_mesh()
        specs = param_specs(jax.eval_shape(draw, key), mesh)
        return jax.jit(draw, out_shardings=jax.tree.map(lambda s: NamedSharding(mesh, s), specs))(key)

    def draw(key: Key) -> Params:
        shell_key, block_key = jax.random.split(key)
        pure = lambda module: nnx.to_pure_dict(nnx.state(module, nnx.Param))  # noqa: E731
        layers = jax.vmap(lambda k: pure(build_block(k)))(jax.random.split(block_key, config.num_layers))
        return {"shell": pure(build_shell(shell_key)), "layers": layers}

    def apply(params: Params, tokens_NxT: Array, positions_NxT: Array, cache: Cache | None = None):
        tokens_NxT, positions_NxT = (
            jax.sharding.reshard(jnp.asarray(x), mesh_lib.rows(2)) for x in (tokens_NxT, positions_NxT)
        )
        shell = merge("shell", gather(params["shell"], config))
        if cache is None:
            first_Nx1 = jnp.zeros((tokens_NxT.shape[0], 1), jnp.int32, out_sharding=mesh_lib.rows(2))
        else:
            first_Nx1 = jax.sharding.reshard(cache.last_token_N[:, None], mesh_lib.rows(2))
        previous_NxT = jnp.concatenate([first_Nx1, tokens_NxT[:, :-1]], axis=1)
        x_NxTxE = shell.read(tokens_NxT, previous_NxT, positions_NxT)
        if cache is not None:
            at = (0, cache.length)
            positions_NxS = jax.lax.dynamic_update_slice(cache.positions_NxS, positions_NxT, at)
            cache = cache._replace(positions_NxS=positions_NxS, last_token_N=tokens_NxT[:, -1])
        masks = attention_masks(positions_NxT, cache)

        def layer(x_NxTxE, inputs):
            layer_params, prefix, suffix = inputs
            block = merge("block", gather(layer_params, config))
            length = None if cache is None else cache.length
            return block(x_NxTxE, positions_NxT, masks, prefix, suffix, length)

        inputs = (params["layers"], *cache_layers(cache))
        x_NxTxE, written = jax.lax.scan(REMAT[config.remat](layer), x_NxTxE, inputs)
        hidden_NxTxE = shell.final_norm(x_NxTxE)
        if cache is None:
            return hidden_NxTxE, None
        length = cache.length + tokens_NxT.shape[1]
        return hidden_NxTxE, cache._replace(k_LxNxSxJxC=written[0], v_LxNxSxJxC=written[1], length=length)

    def unembed(params: Params, hidden_xE: Array) -> jax.Array:
        return merge("shell", gather(params["shell"], config)).logits(hidden_xE)

    return Model(config, vocab_size, init, apply, unembed)


def cache_layers(cache: Cache | None):
    """The cache's segments as the layers' scan reads them: (prefix or None, suffix or None)."""
    if cache is None:
        return None, None
    suffix = (cache.k_LxNxSxJxC, cache.v_LxNxSxJxC)
    if cache.prefix_positions_BxP.shape[1] == 0:
        return None, suffix
    return (cache.prefix_k_LxBxPxJxC, cache.prefix_v_LxBxPxJxC), suffix


def attention_masks(positions_NxT: jax.Array, cache: Cache | None):
    """Who sees whom: (mask of the shared prefix BxMxP or None, mask of the row's own tokens NxTxS)."""
    if cache is None:
        return None, visible(positions_NxT, positions_NxT)
    own_NxTxS = visible(positions_NxT, cache.positions_NxS)
    num_prompts, prefix_length = cache.prefix_positions_BxP.shape
    if prefix_length == 0:
        return None, own_NxTxS
    positions_BxM = jnp.reshape(positions_NxT, (num_prompts, -1), out_sharding=mesh_lib.rows(2))
    return visible(positions_BxM, cache.prefix_positions_BxP), own_NxTxS


def param_specs(params: Params, mesh: Mesh) -> Params:
    """PartitionSpec of every parameter, by its path in LOGICAL_AXES; vectors are replicated."""

    def one(path, x):
        names = [str(p.key) for p in path]
        logical = LOGICAL_AXES.get("/".join(names[1:]), (None,) * (x.ndim - (names[0] == "layers")))
        return mesh_lib.spec(("layers", *logical) if names[0] == "layers" else logical, x.shape, mesh)

    return jax.tree_util.tree_map_with_path(one, params)


def gather(params: Params, config: ModelConfig) -> Params:
    """Casts matrices to the compute type and gathers them over fsdp, just before their use."""

    def one(x):
        sharding = jax.typeof(x).sharding.spec
        whole = P(*(None if axis == "fsdp" else axis for axis in sharding))
        x = x.astype(config.compute_dtype) if x.ndim > 1 else x
        return x if whole == sharding else jax.sharding.reshard(x, whole)

    return jax.tree.map(one, params)
