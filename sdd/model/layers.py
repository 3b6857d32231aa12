"""Layers of the decoder: attention, gated MLP, norms and their block, as NNX modules.

Modules see one layer's parameters, already gathered over the fsdp axis. Between attention's halves tokens
lie in one axis, M = N * T: the products of the backward pass are then plain matrix products, where two axes
would be moved around first (on CPUs that took longer than the product).
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sdd.config import ModelConfig
from sdd.mesh import BATCH, P, rows
from sdd.model.attention import Keys, Scoring, attend, head_axis, per_head
from sdd.model.cache import LayerCache
from sdd.model.kinds import Kind, rope

ACTIVATIONS = {"silu": jax.nn.silu, "gelu_tanh": jax.nn.gelu}


def quiet_init(config: ModelConfig) -> jax.nn.initializers.Initializer:
    """Initialiser of what layers add to the residual stream: 1 / (2 L) of the usual standard deviation.

    The stream then begins as the embeddings. At full size a small network spends its
    first hundreds of steps on getting the layers' noise out of the way.
    """
    return jax.nn.initializers.variance_scaling(1 / (2 * config.num_layers) ** 2, "fan_in", "normal")


class RMSNorm(nnx.Module):
    """``x / rms(x) * scale`` (1910.07467) over the last axes, in float32.

    Beside nnx.RMSNorm: it may multiply by 1 + scale, as the makers of Gemma store it, and
    normalise over heads that are split over devices.
    """

    def __init__(self, shape: tuple[int, ...], config: ModelConfig, rngs: nnx.Rngs):
        initial = 0.0 if config.norm_plus_one else 1.0
        # The key is not used, but drawing it keeps the other parameters of a seed what they were.
        self.scale = nnx.Param(nnx.initializers.constant(initial)(rngs.params(), shape, jnp.float32))
        self.config = config

    def __call__(self, x: jax.Array) -> jax.Array:
        scale = self.scale[...].astype(jnp.float32)
        x = x.astype(jnp.float32)
        mean_square = jnp.mean(jnp.square(x), axis=tuple(range(-scale.ndim, 0)), keepdims=True)
        factor = jax.lax.rsqrt(mean_square + self.config.norm_eps) * (scale + self.config.norm_plus_one)
        return (x * factor).astype(self.config.compute_dtype)


class Attention(nnx.Module):
    """Grouped-query attention with RoPE, optional biases and norms of queries and keys."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        E, H, J, C = config.width, config.num_heads, config.num_kv_heads, config.head_dim
        options: dict[str, Any] = {"dtype": config.compute_dtype, "rngs": rngs}
        self.config = config
        self.q = nnx.LinearGeneral(E, (H, C), use_bias=config.attention_bias, **options)
        self.k = nnx.LinearGeneral(E, (J, C), use_bias=config.attention_bias, **options)
        self.v = nnx.LinearGeneral(E, (J, C), use_bias=config.attention_bias, **options)
        self.o = nnx.LinearGeneral(
            (H, C), E, axis=(-2, -1), use_bias=False, kernel_init=quiet_init(config), **options
        )
        if config.qk_norm != "none":
            over_heads = config.qk_norm == "projection"
            self.q_norm = RMSNorm((H, C) if over_heads else (C,), config, rngs)
            self.k_norm = RMSNorm((J, C) if over_heads else (C,), config, rngs)

    def project(self, x_MxE: jax.Array, positions_NxT: jax.Array, kind: Kind):
        """Queries, keys and values of the tokens, N x T x heads x C."""

        def per_token(layer: nnx.LinearGeneral, heads: int) -> jax.Array:
            axis = head_axis(heads)
            out_MxHxC = layer(x_MxE, out_sharding=P(BATCH, axis, None))
            shape = (*positions_NxT.shape, *out_MxHxC.shape[1:])
            return jnp.reshape(out_MxHxC, shape, out_sharding=per_head(axis))

        q = per_token(self.q, self.config.num_heads)
        k, v = (per_token(layer, self.config.num_kv_heads) for layer in (self.k, self.v))
        if self.config.qk_norm != "none":
            q, k = self.q_norm(q), self.k_norm(k)
        return rope(q, positions_NxT, kind), rope(k, positions_NxT, kind), v

    def __call__(self, x_MxE, positions_NxT, kind: Kind, cache: LayerCache | None):
        """Returns the attention's output, and keys and values of all of the rows' tokens.

        Without a cache the tokens attend to themselves.
        """
        q, k, v = self.project(x_MxE, positions_NxT, kind)
        own, prefix = Keys(k.swapaxes(1, 2), v.swapaxes(1, 2), positions_NxT), None
        if cache is not None:
            at = (0, 0, cache.length, 0)
            prefix, own = (
                cache.prefix,
                Keys(
                    jax.lax.dynamic_update_slice(cache.own.k_NxJxSxC, own.k_NxJxSxC, at),
                    jax.lax.dynamic_update_slice(cache.own.v_NxJxSxC, own.v_NxJxSxC, at),
                    cache.own.positions_NxS,
                ),
            )
        how = Scoring(
            self.config.attention_scale or self.config.head_dim**-0.5,
            self.config.attention_softcap,
            self.config.attention_block,
        )
        out_NxTxHxC = attend(q, positions_NxT, own, prefix, kind.window, how)
        axis = jax.typeof(out_NxTxHxC).sharding.spec[2]
        out_MxHxC = jnp.reshape(out_NxTxHxC, (-1, *out_NxTxHxC.shape[2:]), out_sharding=P(BATCH, axis, None))
        return self.o(out_MxHxC, out_sharding=rows(2)), (own.k_NxJxSxC, own.v_NxJxSxC)


class GatedMLP(nnx.Module):
    """``down(activation(gate(x)) * up(x))`` (2002.05202)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        options: dict[str, Any] = {"use_bias": False, "dtype": config.compute_dtype, "rngs": rngs}
        self.gate = nnx.Linear(config.width, config.mlp_dim, **options)
        self.up = nnx.Linear(config.width, config.mlp_dim, **options)
        self.down = nnx.Linear(config.mlp_dim, config.width, kernel_init=quiet_init(config), **options)
        self.activate = ACTIVATIONS[config.activation]

    def __call__(self, x_MxE: jax.Array) -> jax.Array:
        wide = P(BATCH, "tensor")
        gate_MxF, up_MxF = (layer(x_MxE, out_sharding=wide) for layer in (self.gate, self.up))
        # The backward pass reads the two products alone; keeping what lies between costs more than it saves.
        hidden_MxF = jax.checkpoint(lambda gate, up: self.activate(gate) * up)(gate_MxF, up_MxF)
        return self.down(hidden_MxF, out_sharding=rows(2))


class Block(nnx.Module):
    """One decoder layer, with norms before its halves, after them, or both."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        pre, post = config.norm_placement != "post", config.norm_placement != "pre"
        if pre:
            self.attention_norm = RMSNorm((config.width,), config, rngs)
        self.attention = Attention(config, rngs)
        if post:
            self.attention_post_norm = RMSNorm((config.width,), config, rngs)
        if pre:
            self.mlp_norm = RMSNorm((config.width,), config, rngs)
        self.mlp = GatedMLP(config, rngs)
        if post:
            self.mlp_post_norm = RMSNorm((config.width,), config, rngs)
        self.pre, self.post = pre, post

    def __call__(self, x_MxE, positions_NxT, kind: Kind, cache: LayerCache | None):
        read = self.attention_norm(x_MxE) if self.pre else x_MxE
        out, written = self.attention(read, positions_NxT, kind, cache)
        x_MxE = x_MxE + (self.attention_post_norm(out) if self.post else out)
        out = self.mlp(self.mlp_norm(x_MxE) if self.pre else x_MxE)
        return x_MxE + (self.mlp_post_norm(out) if self.post else out), written


class Shell(nnx.Module):
    """What stands around the layers: embedding, optional token shift, last norm, unembedding."""

    def __init__(self, config: ModelConfig, vocab_size: int, rngs: nnx.Rngs):
        self.embed = nnx.Embed(vocab_size, config.width, dtype=config.compute_dtype, rngs=rngs)
        self.final_norm = RMSNorm((config.width,), config, rngs)
        options: dict[str, Any] = {"use_bias": False, "dtype": config.compute_dtype, "rngs": rngs}
        if config.token_shift:
            self.shift = nnx.Linear(config.width, config.width, **options)
        if not config.tied_embeddings:
            self.unembed = nnx.Linear(config.width, vocab_size, **options)
        self.config = config

    def look_up(self, tokens_NxT: jax.Array) -> jax.Array:
        """Embeddings NxTxE of tokens, as the residual stream has them."""
        x_NxTxE = self.embed(tokens_NxT, out_sharding=rows(3))
        if not self.config.embed_scale:
            return x_NxTxE
        # The factor is rounded to the compute type, as in the makers' own code.
        return x_NxTxE * jnp.asarray(self.config.width**0.5, x_NxTxE.dtype)

    def read(self, tokens_NxT: jax.Array, previous_NxT: jax.Array, positions_NxT: jax.Array) -> jax.Array:
        """Embeds tokens; token shift adds a projection of the embedding of the token before."""
        x_NxTxE = self.look_up(tokens_NxT)
        if not hasattr(self, "shift"):
            return x_NxTxE
        before_NxTxE = self.shift(self.look_up(previous_NxT), out_sharding=rows(3))
        return x_NxTxE + jnp.where(positions_NxT[..., None] > 0, before_NxTxE, 0)

    def logits(self, hidden_xE: jax.Array) -> jax.Array:
        """Next-token logits in float32; the vocabulary is split over ``tensor`` where it divides."""
        if hasattr(self, "unembed"):
            kernel_ExV = self.unembed.kernel[...]
        else:
            kernel_ExV = self.embed.embedding[...].T
        # One axis of tokens, as in the layers.
        batch = jax.typeof(hidden_xE).sharding.spec[:-1]
        hidden_MxE = jnp.reshape(
            hidden_xE, (-1, hidden_xE.shape[-1]), out_sharding=P(batch[0] if batch else None, None)
        )
        logits_MxV = jnp.matmul(
            hidden_MxE, kernel_ExV.astype(hidden_xE.dtype), preferred_element_type=jnp.float32
        )
        vocab = jax.typeof(logits_MxV).sharding.spec[-1]
        logits_xV = jnp.reshape(logits_MxV, (*hidden_xE.shape[:-1], -1), out_sharding=P(*batch, vocab))
        cap = self.config.final_softcap
        return cap * jnp.tanh(logits_xV / cap) if cap else logits_xV
