"""Layers of the decoder: grouped-query attention, SwiGLU and their block, as NNX modules.

Modules see one layer's parameters, already gathered over the fsdp axis.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sdd.config import ModelConfig
from sdd.mesh import BATCH, P, rows

HEADS = P(BATCH, None, "tensor", None)


def rope(x_NxTxHxC: jax.Array, positions_NxT: jax.Array, theta: float, fraction: float) -> jax.Array:
    """Rotary position embedding (2104.09864), rotating halves, on the first ``fraction`` of C.

    Args:
      x_NxTxHxC: queries or keys.
      positions_NxT: int32 positions.
      theta: base of the wavelengths.
      fraction: share of the dimensions that turn; the rest carries no position.
    """
    turning = int(x_NxTxHxC.shape[-1] * fraction) // 2 * 2
    if turning == 0:
        return x_NxTxHxC
    frequency_R = theta ** (-jnp.arange(0, turning, 2, dtype=jnp.float32) / turning)
    angle_NxTx1xR = positions_NxT[:, :, None, None].astype(jnp.float32) * frequency_R
    sin, cos = jnp.sin(angle_NxTx1xR), jnp.cos(angle_NxTx1xR)
    first, second, rest = jnp.split(x_NxTxHxC.astype(jnp.float32), [turning // 2, turning], axis=-1)
    turned = [first * cos - second * sin, second * cos + first * sin, rest]
    return jnp.concatenate(turned, axis=-1).astype(x_NxTxHxC.dtype)


def visible(query_positions_NxT: jax.Array, key_positions_NxS: jax.Array) -> jax.Array:
    """Causal mask by position, NxTxS: a key is seen from its own position on; padding never is."""
    key_Nx1xS, query_NxTx1 = key_positions_NxS[:, None, :], query_positions_NxT[:, :, None]
    return (key_Nx1xS >= 0) & (key_Nx1xS <= query_NxTx1)


def attend(q_NxTxHxC, k_NxSxJxC, v_NxSxJxC, mask_NxTxS) -> jax.Array:
    """Grouped-query attention."""
    return jax.nn.dot_product_attention(
        q_NxTxHxC, k_NxSxJxC, v_NxSxJxC, mask=mask_NxTxS[:, None], implementation="xla"
    )


def attend_with_normaliser(q_NxTxHxC, k_NxSxJxC, v_NxSxJxC, mask_NxTxS):
    """Grouped-query attention NxTxHxC and the log of its softmax's normaliser NxTxH, in float32.

    jax.nn.dot_product_attention offers the normaliser too, but cut off from the
    gradient (jax 0.10): the joined softmax below would train wrongly, without an error.
    """
    N, T, H, C = q_NxTxHxC.shape
    J = k_NxSxJxC.shape[2]
    q_NxTxJxRxC = jnp.reshape(
        q_NxTxHxC, (N, T, J, H // J, C), out_sharding=P(BATCH, None, "tensor", None, None)
    )
    score_NxTxJxRxS = jnp.einsum(
        "ntjrc,nsjc->ntjrs", q_NxTxJxRxC, k_NxSxJxC, preferred_element_type=jnp.float32
    )
    masked = jnp.where(mask_NxTxS[:, :, None, None, :], score_NxTxJxRxS * C**-0.5, -1e30)
    log_z_NxTxJxR = jax.nn.logsumexp(masked, axis=-1)
    weight = jnp.exp(masked - log_z_NxTxJxR[..., None]).astype(v_NxSxJxC.dtype)
    out = jnp.einsum("ntjrs,nsjc->ntjrc", weight, v_NxSxJxC)
    merged = P(BATCH, None, "tensor")
    return (
        jnp.reshape(out, (N, T, H, C), out_sharding=HEADS),
        jnp.reshape(log_z_NxTxJxR, (N, T, H), out_sharding=merged),
    )


def attend_shared_prefix(q_NxTxHxC, prefix, suffix, prefix_mask_BxMxP, suffix_mask_NxTxS) -> jax.Array:
    """Attention over a prefix that a group shares and each row's own suffix.

    The group's queries are read as one longer query (M = G*T), so that the prefix
    is read once a prompt. The two softmaxes are joined by their normalisers:
    ``o = (o_p e^{z_p} + o_s e^{z_s}) / (e^{z_p} + e^{z_s})``.
    """
    N, T, H, C = q_NxTxHxC.shape
    B = prefix[0].shape[0]
    q_BxMxHxC = jnp.reshape(q_NxTxHxC, (B, N // B * T, H, C), out_sharding=HEADS)
    out_p, log_z_p = attend_with_normaliser(q_BxMxHxC, prefix[0], prefix[1], prefix_mask_BxMxP)
    out_s, log_z_s = attend_with_normaliser(q_NxTxHxC, suffix[0], suffix[1], suffix_mask_NxTxS)
    out_p = jnp.reshape(out_p, (N, T, H, C), out_sharding=HEADS)
    log_z_p = jnp.reshape(log_z_p, (N, T, H), out_sharding=P(BATCH, None, "tensor"))
    share_p = jax.nn.sigmoid(log_z_p - log_z_s)[..., None].astype(out_p.dtype)
    return share_p * out_p + (1 - share_p) * out_s


def quiet_init(config: ModelConfig) -> jax.nn.initializers.Initializer:
    """Initialiser of what layers add to the residual stream: 1 / (2 L) of the usual standard deviation.

    The stream then begins as the embeddings. At full size a small network spends its
    first hundreds of steps on getting the layers' noise out of the way.
    """
    return jax.nn.initializers.variance_scaling(1 / (2 * config.num_layers) ** 2, "fan_in", "normal")


class Attention(nnx.Module):
    """Grouped-query attention with RoPE and optional norms of queries and keys."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        E, H, J, C = config.width, config.num_heads, config.num_kv_heads, config.head_dim
        options: dict[str, Any] = {"use_bias": False, "dtype": config.compute_dtype, "rngs": rngs}
        self.config = config
        self.q = nnx.LinearGeneral(E, (H, C), **options)
        self.k = nnx.LinearGeneral(E, (J, C), **options)
        self.v = nnx.LinearGeneral(E, (J, C), **options)
        self.o = nnx.LinearGeneral((H, C), E, axis=(-2, -1), kernel_init=quiet_init(config), **options)
        if config.qk_norm:
            self.q_norm = nnx.RMSNorm(C, epsilon=config.norm_eps, dtype=config.compute_dtype, rngs=rngs)
            self.k_norm = nnx.RMSNorm(C, epsilon=config.norm_eps, dtype=config.compute_dtype, rngs=rngs)

    def project(self, x_NxTxE: jax.Array, positions_NxT: jax.Array):
        """Queries, keys and values of the tokens."""
        q, k, v = (layer(x_NxTxE, out_sharding=HEADS) for layer in (self.q, self.k, self.v))
        if self.config.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        theta, fraction = self.config.rope_theta, self.config.rope_fraction
        return rope(q, positions_NxT, theta, fraction), rope(k, positions_NxT, theta, fraction), v

    def __call__(self, x_NxTxE, positions_NxT, masks, prefix, suffix, length):
        """Returns the attention's output and the layer's suffix with the new keys and values.

        Without a cache ``suffix`` is None and the tokens attend to themselves.
        """
        q, k, v = self.project(x_NxTxE, positions_NxT)
        if suffix is not None:
            at = (0, length, 0, 0)
            k = jax.lax.dynamic_update_slice(suffix[0], k, at)
            v = jax.lax.dynamic_update_slice(suffix[1], v, at)
        if prefix is None:
            out = attend(q, k, v, masks[1])
        else:
            out = attend_shared_prefix(q, prefix, (k, v), *masks)
        return self.o(out, out_sharding=rows(3)), (k, v)


class SwiGLU(nnx.Module):
    """``down(silu(gate(x)) * up(x))`` (2002.05202)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        options: dict[str, Any] = {"use_bias": False, "dtype": config.compute_dtype, "rngs": rngs}
        self.gate = nnx.Linear(config.width, config.mlp_dim, **options)
        self.up = nnx.Linear(config.width, config.mlp_dim, **options)
        self.down = nnx.Linear(config.mlp_dim, config.width, kernel_init=quiet_init(config), **options)

    def __call__(self, x_NxTxE: jax.Array) -> jax.Array:
        wide = P(BATCH, None, "tensor")
        hidden = jax.nn.silu(self.gate(x_NxTxE, out_sharding=wide)) * self.up(x_NxTxE, out_sharding=wide)
        return self.down(hidden, out_sharding=rows(3))


class Block(nnx.Module):
    """One pre-norm decoder layer."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        norm: dict[str, Any] = {"epsilon": config.norm_eps, "dtype": config.compute_dtype, "rngs": rngs}
        self.attention_norm = nnx.RMSNorm(config.width, **norm)
        self.attention = Attention(config, rngs)
        self.mlp_norm = nnx.RMSNorm(config.width, **norm)
        self.mlp = SwiGLU(config, rngs)

    def __call__(self, x_NxTxE, positions_NxT, masks, prefix, suffix, length):
        out, suffix = self.attention(
            self.attention_norm(x_NxTxE), positions_NxT, masks, prefix, suffix, length
        )
        x_NxTxE = x_NxTxE + out
        return x_NxTxE + self.mlp(self.mlp_norm(x_NxTxE)), suffix


class Shell(nnx.Module):
    """What stands around the layers: embedding, optional token shift, last norm, unembedding."""

    def __init__(self, config: ModelConfig, vocab_size: int, rngs: nnx.Rngs):
        self.embed = nnx.Embed(vocab_size, config.width, dtype=config.compute_dtype, rngs=rngs)
        self.final_norm = nnx.RMSNorm(
            config.width, epsilon=config.norm_eps, dtype=config.compute_dtype, rngs=rngs
        )
        options: dict[str, Any] = {"use_bias": False, "dtype": config.compute_dtype, "rngs": rngs}
        if config.token_shift:
            self.shift = nnx.Linear(config.width, config.width, **options)
        if not config.tied_embeddings:
            self.unembed = nnx.Linear(config.width, vocab_size, **options)

    def read(self, tokens_NxT: jax.Array, previous_NxT: jax.Array, positions_NxT: jax.Array) -> jax.Array:
        """Embeds tokens; token shift adds a projection of the embedding of the token before."""
        x_NxTxE = self.embed(tokens_NxT, out_sharding=rows(3))
        if not hasattr(self, "shift"):
            return x_NxTxE
        before_NxTxE = self.shift(self.embed(previous_NxT, out_sharding=rows(3)), out_sharding=rows(3))
        return x_NxTxE + jnp.where(positions_NxT[..., None] > 0, before_NxTxE, 0)

    def logits(self, hidden_xE: jax.Array) -> jax.Array:
        """Next-token logits in float32; the vocabulary is split over ``tensor`` where it divides."""
        if hasattr(self, "unembed"):
            kernel_ExV = self.unembed.kernel[...]
        else:
            kernel_ExV = self.embed.embedding[...].T
        return jnp.einsum(
            "...e,ev->...v",
            hidden_xE,
            kernel_ExV.astype(hidden_xE.dtype),
            preferred_element_type=jnp.float32,
        )
