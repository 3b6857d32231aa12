"""Token-level metrics of a prompt's rollouts.

None of them measures diversity by itself: token entropy can rise while strategies
vanish (2606.26091, section 4.4).
"""

from typing import Any

import numpy as np

from sdd.metrics.arrays import divide, floats, namespace
from sdd.types import Array

_TOKENS = 1 << 22  # of which n-grams are counted at once


def _sums(values_BxNxT: Array, mask_BxNxT: Array) -> tuple[Any, Any, Any]:
    """Returns the namespace, the masked sum of each rollout (BxN) and its number of tokens (BxN)."""
    xp = namespace(values_BxNxT, mask_BxNxT)
    mask_BxNxT = xp.asarray(mask_BxNxT, dtype=bool)
    # where, not a product: padding may hold inf or nan.
    sum_BxN = xp.where(mask_BxNxT, floats(xp, values_BxNxT), 0).sum(-1)
    return xp, sum_BxN, mask_BxNxT.sum(-1)


def token_mean(values_BxNxT: Array, mask_BxNxT: Array) -> Any:
    """Mean over all real tokens of a prompt's rollouts; a long rollout weighs more.

    Args:
      values_BxNxT: a number a token.
      mask_BxNxT: bool, True on real tokens.

    Returns:
      B; nan for a prompt without a token.
    """
    xp, sum_BxN, count_BxN = _sums(values_BxNxT, mask_BxNxT)
    return divide(xp, sum_BxN.sum(-1), count_BxN.sum(-1))


def sequence_mean(values_BxNxT: Array, mask_BxNxT: Array) -> Any:
    """Mean over rollouts of the sum over a rollout's real tokens.

    A rollout without a token counts as 0. Arguments as in `token_mean`; returns B.
    """
    xp, sum_BxN, _ = _sums(values_BxNxT, mask_BxNxT)
    return divide(xp, sum_BxN.sum(-1), xp.asarray(sum_BxN.shape[-1]))


def token_entropy(entropy_BxNxT: Array, mask_BxNxT: Array) -> Any:
    """Mean entropy of the next-token distribution: `token_mean` of it; B, nats a token."""
    return token_mean(entropy_BxNxT, mask_BxNxT)


def sequence_entropy(entropy_BxNxT: Array, mask_BxNxT: Array) -> Any:
    """Entropy of whole responses: `sequence_mean` of the next-token entropies; B, nats.

    By the chain rule H(Y|x) = E sum_t H(. | x, Y_<t), so this is unbiased when the
    rollouts are drawn from the distribution whose entropies are given, and has less
    variance than the mean negative log-likelihood of the rollouts.
    """
    return sequence_mean(entropy_BxNxT, mask_BxNxT)


def negative_log_likelihood(logp_BxNxT: Array, mask_BxNxT: Array) -> Any:
    """Mean negative log-probability of the sampled tokens: `token_mean` of it; B, nats a token."""
    return -token_mean(logp_BxNxT, mask_BxNxT)


def sequence_negative_log_likelihood(logp_BxNxT: Array, mask_BxNxT: Array) -> Any:
    """Mean negative log-probability of whole responses: `sequence_mean` of it; B, nats."""
    return -sequence_mean(logp_BxNxT, mask_BxNxT)


def response_length(mask_BxNxT: Array) -> Any:
    """Mean number of tokens of a response, the stop token included; B."""
    return sequence_mean(mask_BxNxT, mask_BxNxT)


def ngram_counts(tokens_BxNxT: Array, mask_BxNxT: Array, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts the n-grams of each prompt's rollouts, on the host.

    An n-gram lies within one rollout, on n neighbouring real tokens.

    Args:
      tokens_BxNxT: int, token ids.
      mask_BxNxT: bool, True on real tokens.
      n: tokens of an n-gram.

    Returns:
      B int, different n-grams, and B int, all n-grams.

    Raises:
      ValueError: if n < 1.
    """
    if n < 1:
        raise ValueError(f"ngram_counts: n = {n}; valid: n >= 1")
    tokens_BxNxT, mask_BxNxT = np.asarray(tokens_BxNxT), np.asarray(mask_BxNxT, dtype=bool)
    num_windows = max(tokens_BxNxT.shape[-1] - n + 1, 0)
    distinct_B = np.zeros(len(tokens_BxNxT), np.int64)
    total_B = np.zeros(len(tokens_BxNxT), np.int64)
    # A block of prompts at a time bounds the memory.
    block = max(1, _TOKENS // max(int(np.prod(tokens_BxNxT.shape[1:])), 1))
    for start in range(0, len(tokens_BxNxT), block):
        tokens, mask = tokens_BxNxT[start : start + block], mask_BxNxT[start : start + block]
        whole_BxNxW = np.ones((*mask.shape[:2], num_windows), dtype=bool)
        for i in range(n):
            whole_BxNxW &= mask[..., i : i + num_windows]
        prompt = np.nonzero(whole_BxNxW)[0]
        gram = prompt
        for i in range(n):
            # Number the (n-gram so far, next token) pairs densely, so that nothing overflows for any n.
            _, token = np.unique(tokens[..., i : i + num_windows][whole_BxNxW], return_inverse=True)
            _, first, gram = np.unique(
                gram * (token.size + 1) + token, return_index=True, return_inverse=True
            )
        if prompt.size:
            total_B[start : start + block] = np.bincount(prompt, minlength=len(tokens))
            distinct_B[start : start + block] = np.bincount(prompt[first], minlength=len(tokens))
    return distinct_B, total_B


def distinct_n(tokens_BxNxT: Array, mask_BxNxT: Array, n: int = 2) -> np.ndarray:
    """Different n-grams over all n-grams of a prompt's rollouts (Li et al. 2016, 1510.03055).

    It falls with the number of tokens at equal diversity; compare equal lengths,
    or see `expectation_adjusted_distinct_n`. Arguments and errors as in `ngram_counts`.

    Returns:
      B in (0, 1]; nan for a prompt without an n-gram.
    """
    distinct_B, total_B = ngram_counts(tokens_BxNxT, mask_BxNxT, n)
    return divide(np, distinct_B, total_B)


def expectation_adjusted_distinct_n(
    tokens_BxNxT: Array, mask_BxNxT: Array, vocab_size: int, n: int = 1
) -> np.ndarray:
    """Different n-grams over the number expected if each were drawn uniformly (Liu et al. 2022, 2202.13587).

    distinct / (V [1 - (1 - 1/V)^total]) with V = vocab_size ** n possible n-grams;
    the paper states it for n = 1. Further arguments and errors as in `ngram_counts`.

    Returns:
      B, above 0 and about 1 for uniformly drawn tokens; nan for a prompt without an n-gram.

    Raises:
      ValueError: if vocab_size < 2.
    """
    if vocab_size < 2:
        raise ValueError(f"expectation_adjusted_distinct_n: vocab_size = {vocab_size}; valid: >= 2")
    distinct_B, total_B = ngram_counts(tokens_BxNxT, mask_BxNxT, n)
    num_possible = float(vocab_size) ** n
    expected_B = -num_possible * np.expm1(total_B * np.log1p(-1 / num_possible))
    return divide(np, distinct_B, expected_B)
