"""Strategies that cannot be listed: a number for a normal form, and clusters of embeddings."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from sdd import lookup
from sdd.typed import ConfigError


def stable_id(normal_form: object) -> int:
    """Returns a number from 0 to 2**31 - 1 that depends on ``repr(normal_form)`` alone.

    Two forms in a group of G collide with a chance of about G**2 / 2**32.
    """
    digest = hashlib.blake2b(repr(normal_form).encode("utf-8", "replace"), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


def clusters(embeddings_TxE: np.ndarray, threshold: float) -> np.ndarray:
    """Groups vectors whose mean cosine similarity is at least ``threshold``.

    Agglomerative clustering with average linkage (Sokal and Michener 1958): two clusters are merged
    while the mean similarity of their members is at least the threshold. So the result does not hang
    on the order of the rows.

    Args:
      embeddings_TxE: vectors of any scale.
      threshold: cosine, in (-1, 1].

    Returns:
      int32 T, numbered by first appearance; -1 for a vector of zeros, which has no direction.
    """
    from scipy.cluster import hierarchy
    from scipy.spatial.distance import pdist

    found_T = np.full(len(embeddings_TxE), -1, np.int32)
    vectors_TxE = np.asarray(embeddings_TxE, np.float64)
    real = np.flatnonzero(np.linalg.norm(vectors_TxE, axis=1) > 0)
    if len(real) == 0:
        return found_T
    if len(real) == 1:
        found_T[real] = 0
        return found_T
    distances = np.maximum(pdist(vectors_TxE[real], "cosine"), 0)
    # A hair above, so that equal texts are one cluster at a threshold of 1.
    labels = hierarchy.fcluster(hierarchy.average(distances), 1 - threshold + 1e-7, "distance")
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    found_T[real] = np.argsort(np.argsort(first))[inverse]
    return found_T


def text_clusters(embedder: str, threshold: float) -> Callable[[Sequence[str]], np.ndarray]:
    """Returns ``texts -> int32 T``: clusters of the texts' embeddings; -1 for texts without content.

    Args:
      embedder: a name that `sdd.embedders.load` knows.
      threshold: see `clusters`.

    Raises:
      ConfigError: there is no such embedder, or it cannot be had here.
    """
    # By path: embedders lie below tasks, and a task knows one only by the name in its config.
    load: Any = lookup.resolve("sdd.embedders.load")
    try:
        embed = load(embedder)
    except ValueError as error:
        raise ConfigError(f"config.task.embedder={embedder!r}: {error}") from None

    def cluster(texts: Sequence[str]) -> np.ndarray:
        found_T = np.full(len(texts), -1, np.int32)
        some = [i for i, text in enumerate(texts) if text.strip()]
        if some:
            found_T[some] = clusters(embed([texts[i] for i in some]), threshold)
        return found_T

    return cluster
