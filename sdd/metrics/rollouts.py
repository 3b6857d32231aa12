"""All metrics of a set of rollouts: a merge over functions ``Samples -> {name: B}``.

A further metric is one more such function, anywhere: named by dotted path in the
call, or added to `METRICS`.
"""

import pkgutil
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sdd.metrics import embeddings, likelihood, majority, strategies, text, tokens
from sdd.metrics.arrays import divide
from sdd.metrics.pass_at_k import pass_at_k, pass_hat_k
from sdd.metrics.samples import Samples, complete
from sdd.types import Array

Metric = Callable[[Samples], Mapping[str, Array]]


def _at_ks(
    prefix: str, n_B: np.ndarray, ks: Sequence[int], value: Callable[[np.ndarray, list[int]], np.ndarray]
) -> dict[str, np.ndarray]:
    """``prefix@k`` of every k, nan for prompts with fewer samples.

    ``value`` gets the prompts of one size at a time (B bool) and the k that they have samples for, all at
    once; it returns a row a prompt, a column a k.
    """
    values_BxK = np.full((len(n_B), len(ks)), np.nan)
    for n in np.unique(n_B):
        enough_K = [k <= n for k in ks]
        if any(enough_K):
            values_BxK[np.ix_(n_B == n, enough_K)] = value(n_B == n, [k for k in ks if k <= n])
    return {f"{prefix}{k}": value_B for k, value_B in zip(ks, values_BxK.T)}


def pass_metrics(samples: Samples) -> dict[str, np.ndarray]:
    """pass@k."""
    n_B, c_B = samples.valid_BxN.sum(-1), samples.correct_BxN.sum(-1)
    return _at_ks("pass@", n_B, samples.ks, lambda rows_B, ks: pass_at_k(n_B[rows_B], c_B[rows_B], ks))


def pass_hat_metrics(samples: Samples) -> dict[str, np.ndarray]:
    """pass^k: all of k samples are right. Not in `METRICS`."""
    n_B, c_B = samples.valid_BxN.sum(-1), samples.correct_BxN.sum(-1)
    return _at_ks("pass^", n_B, samples.ks, lambda rows_B, ks: pass_hat_k(n_B[rows_B], c_B[rows_B], ks))


def _distinct(name: str, counts_BxS: np.ndarray, n_B: np.ndarray, ks: Sequence[int]) -> dict[str, np.ndarray]:
    value = lambda rows_B, ks: strategies.distinct_at_k(counts_BxS[rows_B], ks, n_B[rows_B])  # noqa: E731
    return _at_ks(f"{name}@", n_B, ks, value)


def strategy_metrics(samples: Samples) -> dict[str, np.ndarray]:
    """distinct@k, distinct_correct@k, top shares, strategy entropy and unseen mass; none without strategies.

    The shares, the entropy and the unseen mass are among rollouts whose strategy
    is known (top_correct_strategy_share: and which are correct); nan where there are none.
    """
    if samples.num_strategies < 1:
        return {}
    n_B = samples.valid_BxN.sum(-1)
    all_BxS = strategies.strategy_counts(samples.strategy_BxN, samples.num_strategies)
    correct_BxS = strategies.strategy_counts(
        samples.strategy_BxN, samples.num_strategies, samples.correct_BxN
    )
    metrics = _distinct("distinct", all_BxS, n_B, samples.ks)
    metrics |= _distinct("distinct_correct", correct_BxS, n_B, samples.ks)
    return metrics | {
        "top_strategy_share": strategies.top_strategy_share(all_BxS),
        "top_correct_strategy_share": strategies.top_strategy_share(correct_BxS),
        "strategy_entropy": strategies.strategy_entropy(all_BxS),
        "unseen_mass": strategies.unseen_mass(all_BxS),
    }


def token_metrics(samples: Samples) -> dict[str, np.ndarray]:
    """response_length, entropy and NLL a token and a sequence, distinct_2gram; as far as they are known."""
    metrics = {}
    n_B = samples.valid_BxN.sum(-1)
    num_tokens_BxN, entropy_BxN = samples.num_tokens_BxN, samples.token_entropy_BxN
    if num_tokens_BxN is not None:
        metrics["response_length"] = divide(np, num_tokens_BxN.sum(-1), n_B)
        if entropy_BxN is not None:
            entropy_B = np.where(num_tokens_BxN > 0, entropy_BxN * num_tokens_BxN, 0).sum(-1)
            metrics["token_entropy"] = divide(np, entropy_B, num_tokens_BxN.sum(-1))
            metrics["sequence_entropy"] = divide(np, entropy_B, n_B)
    if samples.logp_BxNxT is not None:
        logp_B = np.where(samples.mask_BxNxT, samples.logp_BxNxT, 0).sum((-2, -1), dtype=np.float64)
        metrics["token_nll"] = divide(np, -logp_B, num_tokens_BxN.sum(-1))
        metrics["sequence_nll"] = divide(np, -logp_B, n_B)
    if samples.tokens_BxNxT is not None:
        metrics["distinct_2gram"] = tokens.distinct_n(samples.tokens_BxNxT, samples.mask_BxNxT, 2)
    return metrics


def majority_metrics(samples: Samples) -> dict[str, np.ndarray]:
    """maj@k, where answers are known. Not in `METRICS`: it takes its time."""
    if samples.answer_BxN is None:
        return {}
    num_answers = int(samples.answer_BxN.max(initial=-1)) + 1
    counts_BxA = strategies.strategy_counts(samples.answer_BxN, num_answers)
    right_BxA = strategies.strategy_counts(samples.answer_BxN, num_answers, samples.correct_BxN) > 0
    n_B = samples.valid_BxN.sum(-1)
    abstained_B = n_B - counts_BxA.sum(-1)
    votes = lambda rows_B, ks: majority.maj_at_k(  # noqa: E731
        counts_BxA[rows_B], right_BxA[rows_B], ks, abstained_B[rows_B]
    )
    return _at_ks("maj@", n_B, samples.ks, votes)


def text_metrics(samples: Samples) -> dict[str, np.ndarray]:
    """distinct_text@k, self_bleu, rouge_l, compression_ratio, ngram_diversity; where texts are known."""
    if samples.texts_BxN is None:
        return {}
    texts = [list(row[valid]) for row, valid in zip(samples.texts_BxN, samples.valid_BxN, strict=True)]
    counts = [text.distinct_text_counts(row) for row in texts]
    counts_BxS = np.zeros((len(counts), max(map(len, counts), default=0)), np.int64)
    for row, of_prompt in zip(counts_BxS, counts, strict=True):
        row[: len(of_prompt)] = of_prompt
    n_B = samples.valid_BxN.sum(-1)
    return _distinct("distinct_text", counts_BxS, n_B, samples.ks) | text.text_metrics_of(texts)


def embedding_metrics(samples: Samples) -> dict[str, np.ndarray]:
    """Vendi scores, effective rank and distances of each embedder, named by it: vendi[policy]."""
    metrics: dict[str, np.ndarray] = {}
    for name, embeddings_BxNxE in samples.embeddings.items():
        metrics |= embeddings.embedding_metrics_of(embeddings_BxNxE, samples.valid_BxN, name)
    return metrics


def likelihood_metrics(samples: Samples) -> dict[str, np.ndarray]:
    """What responses say about each other, in the model's own likelihoods; where that was measured."""
    if samples.likelihoods is None:
        return {}
    conditional_BxMxM, logp_BxM, num_tokens_BxM = samples.likelihoods
    strategy_BxM, valid_BxM = (x[:, : logp_BxM.shape[1]] for x in (samples.strategy_BxN, samples.valid_BxN))
    information = likelihood.information_matrix(conditional_BxMxM, logp_BxM, num_tokens_BxM)
    earlier_BxM = likelihood.mixture_given_previous(conditional_BxMxM, logp_BxM)
    surprise_BxM = likelihood.progressive_surprise(earlier_BxM, num_tokens_BxM, valid_BxM)
    return likelihood.likelihood_metrics_of(
        information, strategy_BxM if samples.num_strategies else None, valid_BxM
    ) | {"surprise_drop": likelihood.surprise_drop(surprise_BxM)}


METRICS: tuple[Metric, ...] = (
    *(pass_metrics, strategy_metrics, token_metrics),
    *(text_metrics, embedding_metrics, likelihood_metrics),
)


def _resolve(metric: Metric | str) -> Metric:
    if not isinstance(metric, str):
        return metric
    try:
        found = pkgutil.resolve_name(metric)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"metric {metric!r} is not found ({error}); valid: package.module.function"
        ) from None
    if not callable(found):
        raise ValueError(f"metric {metric!r} is not a function; valid: Samples -> {{name: value a prompt}}")
    return found


def rollout_metrics(
    samples: Samples, metrics: Sequence[Metric | str] = METRICS, extra: Sequence[Metric | str] = ()
) -> dict[str, np.ndarray]:
    """Every metric of every prompt; `sdd.metrics.bootstrap` makes estimates of the result.

    Names: pass@k, distinct@k, distinct_correct@k, top_strategy_share,
    top_correct_strategy_share, strategy_entropy, unseen_mass; as far as the samples hold
    what they need response_length, token_entropy, sequence_entropy, token_nll, sequence_nll,
    distinct_2gram; of texts distinct_text@k, self_bleu, rouge_l, compression_ratio,
    ngram_diversity, response_words; of each embedder vendi[name] and others
    (`embedding_metrics`); of likelihoods information and others (`likelihood_metrics`).

    Args:
      samples: see `Samples`.
      metrics: functions, or their dotted paths; each gets `complete(samples)`.
      extra: further ones, after those.

    Returns:
      name -> B float64; nan where a metric is undefined for a prompt.

    Raises:
      ValueError: in one line: for shapes that do not go together, a k without
        enough samples, an unknown dotted path, a name given twice, or a metric
        that does not return one number a prompt.
    """
    samples = complete(samples)
    merged: dict[str, np.ndarray] = {}
    for function in map(_resolve, (*metrics, *extra)):
        for name, value_B in function(samples).items():
            where = getattr(function, "__qualname__", repr(function))
            if name in merged:
                raise ValueError(f"metric {name!r} of {where} exists already; valid: another name")
            merged[name] = np.asarray(value_B, np.float64)
            if merged[name].shape != samples.correct_BxN.shape[:1]:
                raise ValueError(
                    f"metric {name!r} of {where} has shape {merged[name].shape}; "
                    f"valid: {samples.correct_BxN.shape[:1]}, one number a prompt"
                )
    return merged
