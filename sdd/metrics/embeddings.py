"""How spread out the embeddings of a prompt's rollouts are: Vendi scores, effective rank, cosine distances.

Everything here looks at directions only: each row is divided by its length first. A row of length 0
(an embedder's answer to an empty text, say) is given a direction of its own, at a right angle to every
other one and the same for all rows of length 0, so that empty texts count as alike.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from sdd.metrics.arrays import divide, floats, namespace
from sdd.types import Array

ORDERS = (0.5, 1.0, 2.0, math.inf)  # of `embedding_metrics_of`
_BLOCK = 1 << 18  # numbers of a block of prompts in numpy: it stays in the cache, and memory stays bounded


class _Geometry(NamedTuple):
    """Real rows of each prompt, length of the sum of their directions, what was asked of their products."""

    count_B: Any
    resultant_B: Any
    of_gram: Any


def _checked(where: str, embeddings_BxNxE: Array, mask_BxN: Array | None) -> tuple[Any, Any, Any]:
    """Returns the namespace, the embeddings and the mask; raises ValueError for other shapes."""
    xp = namespace(embeddings_BxNxE, mask_BxN)
    embeddings_BxNxE = xp.asarray(embeddings_BxNxE)
    if embeddings_BxNxE.ndim < 2:
        raise ValueError(f"{where}: embeddings of shape {embeddings_BxNxE.shape}; valid: ... x rows x width")
    rows = embeddings_BxNxE.shape[:-1]
    mask_BxN = xp.ones(rows, bool) if mask_BxN is None else xp.asarray(mask_BxN, dtype=bool)
    if mask_BxN.shape != rows:
        raise ValueError(f"{where}: mask of shape {mask_BxN.shape}; valid: {rows}, one entry a row")
    return xp, embeddings_BxNxE, mask_BxN


def _exactly(xp: Any) -> dict[str, str]:
    """Keeps devices from rounding the factors of jax's products; numpy never does."""
    return {"precision": "highest"} if xp is jnp else {}


def _norm(xp: Any, rows_BxNxE: Any) -> Any:
    return xp.sqrt(xp.einsum("...e,...e->...", rows_BxNxE, rows_BxNxE, **_exactly(xp)))


def _directions(where: str, xp: Any, embeddings_BxNxE: Any, mask_BxN: Any, first: int) -> Any:
    """Returns rows of length 1 (0 where masked), and a column for the direction of rows of length 0."""
    rows_BxNxE = floats(xp, embeddings_BxNxE)
    if xp is jnp or not mask_BxN.all():
        rows_BxNxE = xp.where(mask_BxN[..., None], rows_BxNxE, 0)  # padding may hold inf or nan
    norm_BxN = _norm(xp, rows_BxNxE)
    # Squares of tiny or huge numbers leave the range of floats: such rows are scaled first. In float64 that
    # is seldom needed, and would cost more than all else in this function.
    if xp is jnp or not (~mask_BxN | ((norm_BxN > 1e-140) & (norm_BxN < 1e140))).all():
        largest_BxN = xp.abs(rows_BxNxE).max(-1, initial=0)
        if xp is np and not np.isfinite(largest_BxN).all():
            prompt, row = np.argwhere(~np.isfinite(largest_BxN))[0]
            raise ValueError(
                f"{where}: prompt {first + prompt}, row {row} is not finite; valid: finite numbers"
            )
        rows_BxNxE = rows_BxNxE / xp.where(largest_BxN == 0, 1, largest_BxN)[..., None]
        norm_BxN = _norm(xp, rows_BxNxE)
    zero_BxN = mask_BxN & (norm_BxN == 0)
    rows_BxNxE = rows_BxNxE * (1 / xp.where(norm_BxN == 0, 1, norm_BxN))[..., None]
    num_rows, width = rows_BxNxE.shape[-2:]
    if xp is np and num_rows <= width and not zero_BxN.any():
        return rows_BxNxE  # the column would be 0, and the number of eigenvalues does not depend on it
    return xp.concatenate([rows_BxNxE, zero_BxN[..., None].astype(rows_BxNxE.dtype)], -1)


def eigenvalues(symmetric_BxMxM: Array) -> Any:
    """Eigenvalues of symmetric matrices, BxM, ascending. A numpy array is overwritten."""
    xp = namespace(symmetric_BxMxM)
    if xp is jnp or not 32 < symmetric_BxMxM.shape[-1] <= 128:
        return xp.linalg.eigvalsh(symmetric_BxMxM)
    # In this range eigvalsh hands small blocks to the BLAS's threads, which wait for each other: as fast as
    # this on an idle machine, 3 to 10 times slower on a busy one. So small a workspace rules blocks out.
    from scipy.linalg import lapack

    size = symmetric_BxMxM.shape[-1]
    values_BxM = np.empty(symmetric_BxMxM.shape[:-1])
    for matrix, row in zip(symmetric_BxMxM.reshape(-1, size, size), values_BxM.reshape(-1, size)):
        _, diagonal, beside, _, _ = lapack.dsytrd(matrix.T, lower=1, lwork=size, overwrite_a=1)
        row[:], failed = lapack.dsterf(diagonal, beside, overwrite_d=1, overwrite_e=1)
        if failed:
            row[:] = np.nan
    return values_BxM


def distribution(eigenvalues_BxM: Array) -> Any:
    """Eigenvalues of a similarity matrix divided by their sum, BxM; all 0 stays all 0.

    Negative ones, and those below M eps times the largest (the usual tolerance of a rank), are rounding
    and become 0: orders below 1 would count them.
    """
    xp = namespace(eigenvalues_BxM)
    largest_B = eigenvalues_BxM.max(-1, initial=0)
    tolerance_B = eigenvalues_BxM.shape[-1] * float(xp.finfo(eigenvalues_BxM.dtype).eps) * largest_B
    kept_BxM = xp.where(eigenvalues_BxM <= tolerance_B[..., None], 0, eigenvalues_BxM)  # nan stays nan
    total_B = kept_BxM.sum(-1)
    return kept_BxM / xp.where(total_B == 0, 1, total_B)[..., None]


def _spectrum(gram_BxMxM: Array) -> Any:
    return distribution(eigenvalues(gram_BxMxM))


def _geometry(
    where: str, embeddings_BxNxE: Array, mask_BxN: Array | None, of_gram: Callable[[Array], Any] | None = None
) -> _Geometry:
    """Geometry of each prompt's rows; in numpy a block of prompts at a time."""
    xp, embeddings_BxNxE, mask_BxN = _checked(where, embeddings_BxNxE, mask_BxN)
    *leading, num_rows, width = embeddings_BxNxE.shape

    def of_block(embeddings_BxNxE: Any, mask_BxN: Any, first: int = 0) -> _Geometry:
        unit_BxNxE = _directions(where, xp, embeddings_BxNxE, mask_BxN, first)
        count_B, resultant_B = mask_BxN.sum(-1), _norm(xp, unit_BxNxE.sum(-2))
        if of_gram is None:
            return _Geometry(count_B, resultant_B, count_B)
        # X X^T and X^T X have the same eigenvalues but for zeros: take the smaller.
        if unit_BxNxE.shape[-2] > unit_BxNxE.shape[-1]:
            unit_BxNxE = unit_BxNxE.swapaxes(-1, -2)
        gram_BxMxM = xp.matmul(unit_BxNxE, unit_BxNxE.swapaxes(-1, -2), **_exactly(xp))
        return _Geometry(count_B, resultant_B, of_gram(gram_BxMxM))

    if xp is jnp:
        return of_block(embeddings_BxNxE, mask_BxN)
    num_prompts = math.prod(leading)
    flat_BxNxE = embeddings_BxNxE.reshape(num_prompts, num_rows, width)
    flat_BxN = mask_BxN.reshape(num_prompts, num_rows)
    step = max(1, _BLOCK // max(num_rows * width, 1))
    starts = range(0, max(num_prompts, 1), step)
    blocks = [of_block(flat_BxNxE[i : i + step], flat_BxN[i : i + step], i) for i in starts]
    fields = (np.concatenate(parts) for parts in zip(*blocks))
    return _Geometry(*(field.reshape((*leading, *field.shape[1:])) for field in fields))


def hill_number(p_BxM: Array, q: float) -> Any:
    """Effective number of outcomes of a distribution: exp of its Renyi entropy of order q (Hill 1973).

    (sum p^q)^(1/(1-q)); its limits exp(-sum p log p) at q = 1 and 1 / max p at q = inf.

    Args:
      p_BxM: a distribution, or all 0.
      q: order, 0 to inf; a Python number.

    Returns:
      B in [1, M]; without meaning where p is all 0.
    """
    xp = namespace(p_BxM)
    p_BxM = floats(xp, p_BxM)
    top_B = p_BxM.max(-1, initial=0)
    if q == math.inf:
        return divide(xp, 1, top_B)
    log_p_BxM = xp.log(xp.where(p_BxM == 0, 1, p_BxM))
    if q == 1:
        return xp.exp(-(p_BxM * log_p_BxM).sum(-1))
    if abs(q - 1) < 0.5:  # sum p^q - 1 = sum p (p^(q-1) - 1), which keeps its digits however near q is to 1
        return xp.exp(xp.log1p((p_BxM * xp.expm1((q - 1) * log_p_BxM)).sum(-1)) / (1 - q))
    log_top_B = xp.log(xp.where(top_B == 0, 1, top_B))
    powers_BxM = xp.exp(q * xp.minimum(log_p_BxM - log_top_B[..., None], 0))  # the largest is 1
    total_B = xp.where(p_BxM == 0, 0, powers_BxM).sum(-1)
    return xp.exp((q * log_top_B + xp.log(xp.where(total_B == 0, 1, total_B))) / (1 - q))


def vendi_of(p_BxM: Array, count_B: Array, q: float | Sequence[float] = 1.0) -> Any:
    """`hill_number` of the eigenvalues p_BxM of K/n (`distribution`), within [1, n], nan where n = 0.

    Returns B for one order q, BxQ for a sequence of them. Raises ValueError for an order below 0 or nan.
    """
    orders = np.ravel(np.asarray(q, float)).tolist()
    if not all(order >= 0 for order in orders):
        raise ValueError(f"vendi_score: q = {q}; valid: 0 <= q <= inf")
    xp = namespace(p_BxM, count_B)
    # Only rounding is clipped.
    scores = [xp.clip(hill_number(p_BxM, order), 1, xp.maximum(count_B, 1)) for order in orders]
    scores = [xp.where(count_B > 0, score_B, xp.nan) for score_B in scores]
    return xp.stack(scores, -1) if np.ndim(q) else scores[0]


def vendi_score(
    embeddings_BxNxE: Array, mask_BxN: Array | None = None, q: float | Sequence[float] = 1.0
) -> Any:
    """Effective number of different rollouts: the Hill number of the eigenvalues of K/n, K the cosines.

    Friedman & Dieng 2023 (2210.02410), orders q of Pasarkar & Dieng 2024 (2310.12952): exp of the Renyi
    entropy of order q, 1 when all rows point the same way and n when all are at right angles. A small q
    counts rare directions, a large one only the frequent. q = 2 alone is 1 / ||K/n||^2 and needs no
    eigenvalues.

    It is biased, and what n rollouts give depends on n: compare equal n. On average the entropy (q <= 1) is
    too small and grows with n, as it is concave and K/n an average over rollouts; by about (S - 1) / 2n nats
    for q = 1 and S strategies at right angles. For q > 1 it is sum p^q that is too large: for q = 2, with V
    the score of infinitely many, it is 1/n + (1 - 1/n) / V on average, so that about n V / (n + V - 1)
    comes out, 8.8 for V = 10 and n = 64. The diagonal is to blame: the mean of k^2 over pairs i != j,
    (n / score - 1) / (n - 1), is an unbiased estimate of 1 / V.

    Args:
      embeddings_BxNxE: a row a rollout, of any length; leading shapes are free.
      mask_BxN: bool, rows to count; all if None.
      q: order from 0 to inf, or a sequence of orders (one eigendecomposition for all).

    Returns:
      B for one order, BxQ for a sequence, in [1, n]; nan for a prompt without a row.

    Raises:
      ValueError: for other shapes, an order below 0, or (in numpy) a row that is not finite.
    """
    if np.ndim(q) == 0 and q == 2:
        squares = lambda gram_BxMxM: (gram_BxMxM * gram_BxMxM).sum((-2, -1))  # noqa: E731
        n_B, _, squares_B = _geometry("vendi_score", embeddings_BxNxE, mask_BxN, squares)
        xp = namespace(n_B)
        return xp.clip(divide(xp, n_B**2, squares_B), 1, xp.maximum(n_B, 1))
    n_B, _, p_BxM = _geometry("vendi_score", embeddings_BxNxE, mask_BxN, _spectrum)
    return vendi_of(p_BxM, n_B, q)


def _pairwise_distance(xp: Any, count_B: Any, resultant_B: Any) -> Any:
    pairs_B = count_B * (count_B - 1)
    largest_B = divide(xp, count_B, count_B - 1)  # when the directions cancel out; clips rounding only
    return xp.clip(1 - divide(xp, resultant_B**2 - count_B, pairs_B), 0, largest_B)


def mean_pairwise_cosine_distance(embeddings_BxNxE: Array, mask_BxN: Array | None = None) -> Any:
    """Mean of 1 - cos over pairs of different rollouts; without bias (a U-statistic).

    The sum of all cosines is the squared length r of the sum of the rows' directions, so this is
    1 - (r^2 - n) / (n (n - 1)), in O(nE). Arguments and errors as in `vendi_score`.

    Returns:
      B in [0, n / (n - 1)]; nan for a prompt with fewer than two rows.
    """
    n_B, r_B, _ = _geometry("mean_pairwise_cosine_distance", embeddings_BxNxE, mask_BxN)
    return _pairwise_distance(namespace(n_B), n_B, r_B)


def centroid_distance(embeddings_BxNxE: Array, mask_BxN: Array | None = None) -> Any:
    """Mean of 1 - cos between a rollout and the mean direction of all of them: 1 - r/n.

    r is the length of the sum of the rows' directions; r/n is the mean resultant length of directional
    statistics (Mardia & Jupp 2000). It is biased: a row is part of its own centroid, which pulls the value
    down, to 0 for one row and to 1 - 1/sqrt(n) instead of 1 for rows at right angles. Compare equal n, or
    use `mean_pairwise_cosine_distance`, (1 - (r/n)^2) n / (n - 1), which tells the same without bias.
    Where the directions cancel out there is no centroid, and the value is 1. Arguments and errors as in
    `vendi_score`.

    Returns:
      B in [0, 1]; nan for a prompt without a row.
    """
    n_B, r_B, _ = _geometry("centroid_distance", embeddings_BxNxE, mask_BxN)
    xp = namespace(n_B)
    return xp.clip(1 - divide(xp, r_B, n_B), 0, 1)


def _effective_rank(xp: Any, p_BxM: Any, count_B: Any) -> Any:
    singular_BxM = xp.sqrt(p_BxM)
    total_B = singular_BxM.sum(-1)
    return vendi_of(singular_BxM / xp.where(total_B == 0, 1, total_B)[..., None], count_B)


def effective_rank(embeddings_BxNxE: Array, mask_BxN: Array | None = None) -> Any:
    """Effective rank of the matrix of the rows' directions (Roy & Vetterli 2007).

    exp of the entropy of its singular values divided by their sum. The singular values are the square
    roots of the eigenvalues that the Vendi score takes, so the small ones weigh more here. Biased as the
    Vendi score is: compare equal n. Arguments and errors as in `vendi_score`.

    Returns:
      B in [1, min(n, E)] (E + 1 if there are rows of length 0); nan for a prompt without a row.
    """
    n_B, _, p_BxM = _geometry("effective_rank", embeddings_BxNxE, mask_BxN, _spectrum)
    return _effective_rank(namespace(n_B), p_BxM, n_B)


def embedding_metrics_of(
    embeddings_BxNxE: Array, mask_BxN: Array | None, embedder_name: str
) -> dict[str, Array]:
    """All metrics of this file, named by the embedder: vendi[e], vendi_0.5[e], vendi_2[e], vendi_inf[e],
    cosine_distance[e], effective_rank[e], centroid_distance[e]; one eigendecomposition for all.

    Arguments and errors as in `vendi_score`. Returns name -> B.
    """
    n_B, r_B, p_BxM = _geometry("embedding_metrics_of", embeddings_BxNxE, mask_BxN, _spectrum)
    xp = namespace(n_B)
    names = ["vendi" if q == 1 else f"vendi_{q:g}" for q in ORDERS]
    metrics = {name: vendi_of(p_BxM, n_B, q) for name, q in zip(names, ORDERS)}
    metrics["cosine_distance"] = _pairwise_distance(xp, n_B, r_B)
    metrics["effective_rank"] = _effective_rank(xp, p_BxM, n_B)
    metrics["centroid_distance"] = xp.clip(1 - divide(xp, r_B, n_B), 0, 1)
    return {f"{name}[{embedder_name}]": value_B for name, value_B in metrics.items()}
