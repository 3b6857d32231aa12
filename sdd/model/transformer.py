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
from sdd.model.attention import Keys
from sdd.model.cache import Cache, LayerCache
from sdd.model.kinds import layer_kinds
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


FEW_LAYERS = 8  # up to which a pass over all tokens is written out, layer after layer


class Model(NamedTuple):
    """A decoder as pure functions; call them under ``jax.set_mesh``.

    Attributes:
      config: the architecture.
      vocab_size: V.
      init: ``(key) -> params``, sharded over the current mesh; works under ``jax.eval_shape``.
      apply: ``(params, tokens_NxT, positions_NxT, cache=None) -> (hidden_NxTxE, cache)``.
        Negative positions mark padding. Without a cache the second result is None.
      unembed: ``(params, hidden_...xE) -> logits_...xV`` in float32.
      ready: ``(params) -> params`` for many calls of ``apply`` in one jitted loop; the cache is then one
        of :func:`~sdd.model.cache.apart`.
    """

    config: ModelConfig
    vocab_size: int
    init: Callable[[Key], Params]
    apply: Callable[..., tuple[jax.Array, Any]]
    unembed: Callable[[Params, Array], jax.Array]
    ready: Callable[[Params], Params]


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
        name: nnx.split(nnx.eval_shape(lambda build=build: build(jax.random.key(0))), nnx.Param)
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

        x_MxE = jnp.reshape(x_NxTxE, (-1, config.width), out_sharding=mesh_lib.rows(2))

        def layer(x_MxE, inputs):
            layer_params, kind, held = inputs
            block = merge("block", gather(lora.merged_layer(layer_params), config))
            return block(x_MxE, positions_NxT, kind, layer_cache(cache, held))

        inputs = (params["layers"], layer_kinds(config), cache and held_by_layers(cache))
        x_MxE, written = over_layers(layer, x_MxE, inputs, config)
        hidden_NxTxE = jnp.reshape(shell.final_norm(x_MxE), x_NxTxE.shape, out_sharding=mesh_lib.rows(3))
        if cache is None:
            return hidden_NxTxE, None
        length = cache.length + tokens_NxT.shape[1]
        return hidden_NxTxE, cache._replace(k_LxNxJxSxC=written[0], v_LxNxJxSxC=written[1], length=length)

    def unembed(params: Params, hidden_xE: Array) -> jax.Array:
        return merge("shell", gather(params["shell"], config)).logits(hidden_xE)

    return Model(config, vocab_size, init, apply, unembed, lambda params: ready_to_decode(params, config))


def ready_to_decode(params: Params, config: ModelConfig) -> Params:
    """Parameters for many calls of ``apply`` within one jitted function; each layer's stand apart.

    Adapters are merged, matrices cast to the compute type and gathered over fsdp, once instead of at every
    token; a loop over tokens then reads each layer's where they lie.
    """
    each = [jax.tree.map(lambda x, i=i: x[i], params["layers"]) for i in range(config.num_layers)]
    layers = tuple(gather(lora.merged_layer(layer), config) for layer in each)
    return {"shell": gather(params["shell"], config), "layers": layers}


def over_layers(layer: Callable, x_MxE: jax.Array, inputs: tuple, config: ModelConfig):
    """One layer after the other: a scan over stacked inputs, or a plain loop over those that stand apart."""
    layers, kinds, held = inputs
    if not isinstance(layers, tuple):
        # A loop stacks what the backward pass needs, a copy each way; the code of a few layers stays small.
        whole = config.num_layers <= FEW_LAYERS and config.remat == "none" and held is None
        return jax.lax.scan(REMAT[config.remat](layer), x_MxE, inputs, unroll=whole or 1)
    written = []
    for i, layer_params in enumerate(layers):
        kind, held_here = jax.tree.map(lambda x, i=i: x[i], kinds), held and tuple(x[i] for x in held)
        x_MxE, kv = layer(x_MxE, (layer_params, kind, held_here))
        written.append(kv)
    return x_MxE, tuple(zip(*written, strict=True))


def held_by_layers(cache: Cache) -> tuple:
    """What differs from layer to layer in a cache: own keys and values, then a prefix's if it has one."""
    own = (cache.k_LxNxJxSxC, cache.v_LxNxJxSxC)
    if cache.prefix_positions_BxP.shape[1] == 0:
        return own
    return (*own, cache.prefix_k_LxBxJxPxC, cache.prefix_v_LxBxJxPxC)


def layer_cache(cache: Cache | None, held: tuple | None) -> LayerCache | None:
    """A layer's cache, from what is common to all and what it holds itself."""
    if cache is None or held is None:
        return None
    (k, v), shared = held[:2], held[2:]
    prefix = Keys(shared[0], shared[1], cache.prefix_positions_BxP) if shared else None
    return LayerCache(prefix, Keys(k, v, cache.positions_NxS), cache.length)


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
