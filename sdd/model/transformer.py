"""The decoder behind pure functions: ``apply(params, tokens, positions, cache)`` and ``unembed``."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import AbstractMesh, Mesh

from sdd import mesh as mesh_lib
from sdd.config import ModelConfig
from sdd.mesh import P
from sdd.model import lora
from sdd.model.cache import Cache
from sdd.model.kinds import layer_kinds, visible
from sdd.model.layers import Block, Shell
from sdd.types import Array, Key, Params

# Logical axes of each parameter of a layer, by its path; stacked layers add "layers" in front.
LOGICAL_AXES = {
    "attention/q/kernel": ("embed", "heads", "head"),
    "attention/k/kernel": ("embed", "kv_heads", "head"),
    "attention/v/kernel": ("embed", "kv_heads", "head"),
    "attention/o/kernel": ("heads", "head", "embed"),
    "attention/q/bias": ("heads", "head"),
    "attention/k/bias": ("kv_heads", "head"),
    "attention/v/bias": ("kv_heads", "head"),
    "attention/q_norm/scale": ("heads", "head"),
    "attention/k_norm/scale": ("kv_heads", "head"),
    "mlp/gate/kernel": ("embed", "mlp"),
    "mlp/up/kernel": ("embed", "mlp"),
    "mlp/down/kernel": ("mlp", "embed"),
    "embed/embedding": ("vocab", "embed"),
    "unembed/kernel": ("embed", "vocab"),
    "shift/kernel": (None, None),
}
LOGICAL_AXES |= lora.logical_axes(LOGICAL_AXES)

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
      init: ``(key) -> params``, sharded over the current mesh; works under ``jax.eval_shape``.
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
    """Builds the decoder of a config, whose sizes :mod:`sdd.config` has checked.

    Raises:
      ConfigError: no kernel is named by ``config.lora_targets``.
    """
    if config.lora_rank:
        lora.targets(config)
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
        specs = param_specs(jax.eval_shape(draw, key), jax.sharding.get_abstract_mesh())
        # out_shardings split what is drawn from the start; the types, as of jax.eval_shape, do not see them.
        return jax.tree.map(reshard_if_needed, jax.jit(draw, out_shardings=specs)(key), specs)

    def draw(key: Key) -> Params:
        shell_key, block_key = jax.random.split(key)
        pure = lambda module: nnx.to_pure_dict(nnx.state(module, nnx.Param))  # noqa: E731
        layers = jax.vmap(lambda k: pure(build_block(k)))(jax.random.split(block_key, config.num_layers))
        return lora.add({"shell": pure(build_shell(shell_key)), "layers": layers}, config, key)

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
        kinds = layer_kinds(config)
        same_masks = attention_masks(positions_NxT, cache) if kinds.window is None else None

        def layer(x_NxTxE, inputs):
            layer_params, kind, prefix, suffix = inputs
            block = merge("block", gather(lora.merged_layer(layer_params), config))
            length = None if cache is None else cache.length
            masks = same_masks or attention_masks(positions_NxT, cache, kind.window)
            return block(x_NxTxE, positions_NxT, kind, masks, prefix, suffix, length)

        inputs = (params["layers"], kinds, *cache_layers(cache))
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


def attention_masks(positions_NxT: jax.Array, cache: Cache | None, window: jax.Array | None = None):
    """Who sees whom: (mask of the shared prefix BxMxP or None, mask of the row's own tokens NxTxS)."""
    if cache is None:
        return None, visible(positions_NxT, positions_NxT, window)
    own_NxTxS = visible(positions_NxT, cache.positions_NxS, window)
    num_prompts, prefix_length = cache.prefix_positions_BxP.shape
    if prefix_length == 0:
        return None, own_NxTxS
    positions_BxM = jnp.reshape(positions_NxT, (num_prompts, -1), out_sharding=mesh_lib.rows(2))
    return visible(positions_BxM, cache.prefix_positions_BxP, window), own_NxTxS


def param_specs(params: Params, mesh: Mesh | AbstractMesh) -> Params:
    """PartitionSpec of every parameter, by its path in LOGICAL_AXES; vectors are replicated."""

    def one(path, x):
        names = [str(p.key) for p in path]
        rank = x.ndim - (names[0] == "layers")
        # The last axes: a norm of queries may be per head, or over all heads.
        logical = LOGICAL_AXES.get("/".join(names[1:]), (None,) * rank)[-rank:]
        logical = ("layers", *logical) if names[0] == "layers" else logical
        # An axis of one stays whole, as a single key/value head does where it is used.
        logical = tuple(name if size > 1 else None for name, size in zip(logical, x.shape, strict=True))
        return mesh_lib.spec(logical, x.shape, mesh)

    return jax.tree_util.tree_map_with_path(one, params)


def gather(params: Params, config: ModelConfig) -> Params:
    """Casts matrices to the compute type and gathers them over fsdp, just before their use."""

    def one(path, x):
        sharding = jax.typeof(x).sharding.spec
        whole = P(*(None if axis == "fsdp" else axis for axis in sharding))
        x = x.astype(config.compute_dtype) if path[-1].key in ("kernel", "embedding") else x
        return reshard_if_needed(x, whole)

    return jax.tree_util.tree_map_with_path(one, params)


def reshard_if_needed(x: jax.Array, spec: P) -> jax.Array:
    """The array with a sharding that it may have already."""
    return x if jax.typeof(x).sharding.spec == spec else jax.sharding.reshard(x, spec)
