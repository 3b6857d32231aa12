"""All metrics of a set of rollouts: a merge over functions ``Samples -> {name: B}``.

A further metric is one more such function, anywhere: named by dotted path in the
call, or added to `METRICS`.
"""

import functools
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from sdd.metrics import strategies, tokens
from sdd.metrics.arrays import divide
from sdd.metrics.pass_at_k import pass_at_k, pass_hat_k, powers_of_two
from sdd.types import Array

Optional = Any  # an array, or None where it is not known; `complete` settles which


class Samples(NamedTuple):
    """n graded samples of each of B prompts; what is None is not known.

    Attributes:
      correct_BxN: bool.
      strategy_BxN: int, index of the strategy; -1 where none can be told.
      num_strategies: number of strategies the task has; 0 if it has none.
      tokens_BxNxT: int, token ids of the responses.
      mask_BxNxT: bool, True on real tokens.
      entropy_BxNxT: nats, entropy of the next-token distribution.
      logp_BxNxT: nats, log-probability of each token under the policy.
      num_tokens_BxN: int, tokens of each response; taken from mask_BxNxT if that is given.
      token_entropy_BxN: nats, mean over the response's tokens; taken from entropy_BxNxT if that is given.
      valid_BxN: bool, False on the filler of prompts that have fewer than N samples; all True if None.
      ks: the k of pass@k and distinct@k; powers of two up to the most samples of a prompt if empty.
    """

    correct_BxN: Array
    strategy_BxN: Array
    num_strategies: int
    tokens_BxNxT: Optional = None
    mask_BxNxT: Optional = None
    entropy_BxNxT: Optional = None
    logp_BxNxT: Optional = None
    num_tokens_BxN: Optional = None
    token_entropy_BxN: Optional = None
    valid_BxN: Optional = None
    ks: Sequence[int] = ()


Metric = Callable[[Samples], Mapping[str, Array]]


def _check_shapes(samples: Samples) -> None:
    """Raises ValueError in one line if a field does not go with correct_BxN."""
    shape = np.shape(samples.correct_BxN)
    if len(shape) != 2:
        raise ValueError(f"Samples: correct_BxN has shape {shape}; valid: prompts x samples")
    for name, value in samples._asdict().items():
        if value is None or name in ("num_strategies", "ks"):
            continue
        if np.shape(value)[:2] != shape or np.ndim(value) != (3 if name.endswith("NxT") else 2):
            raise ValueError(f"Samples: {name} has shape {np.shape(value)}; correct_BxN has {shape}")
    for name in ("tokens_BxNxT", "entropy_BxNxT", "logp_BxNxT"):
        if getattr(samples, name) is not None and samples.mask_BxNxT is None:
            raise ValueError(f"Samples: {name} is given without mask_BxNxT; valid: both")


def complete(samples: Samples) -> Samples:
    """Returns the samples as every metric gets them: numpy, filled in, and masked once.

    valid_BxN and ks are set; num_tokens_BxN and token_entropy_BxN come from the
    token level where that is known. Filler is incorrect, has no strategy and no tokens.

    Raises:
      ValueError: for shapes that do not go together, or a k that no prompt has samples for.
    """
    _check_shapes(samples)
    arrays: dict[str, Any] = {
        name: np.asarray(value)
        for name, value in samples._asdict().items()
        if name.endswith(("BxN", "BxNxT")) and value is not None
    }
    host = samples._replace(**arrays)
    valid = np.ones_like(host.correct_BxN, bool) if host.valid_BxN is None else host.valid_BxN.astype(bool)
    most = int(valid.sum(1).max(initial=0))
    ks = tuple(int(k) for k in host.ks) or powers_of_two(max(most, 1))
    if valid.size and not 1 <= min(ks) <= max(ks) <= most:
        raise ValueError(f"Samples: ks = {ks}; valid: 1 .. {most}, the number of samples a prompt")
    mask, num_tokens, token_entropy = host.mask_BxNxT, host.num_tokens_BxN, host.token_entropy_BxN
    if mask is not None:
        mask = mask.astype(bool) & valid[..., None]
        num_tokens = mask.sum(-1)
        if host.entropy_BxNxT is not None:
            entropy_BxN = np.where(mask, host.entropy_BxNxT, 0).sum(-1, dtype=np.float64)
            token_entropy = entropy_BxN / np.maximum(num_tokens, 1)
    if num_tokens is not None:
        num_tokens = np.where(valid, num_tokens, 0)
    return host._replace(
        correct_BxN=host.correct_BxN.astype(bool) & valid,
        strategy_BxN=np.where(valid, host.strategy_BxN, -1),
        mask_BxNxT=mask,
        num_tokens_BxN=num_tokens,
        token_entropy_BxN=token_entropy,
        valid_BxN=valid,
        ks=ks,
    )


def _where_enough(
    n_B: np.ndarray, ks: Sequence[int], value: Callable[[np.ndarray, int], np.ndarray]
) -> dict[int, np.ndarray]:
    """Returns k -> value(n_B, k), nan for prompts with fewer than k samples."""
    return {k: np.where(n_B >= k, value(np.maximum(n_B, k), k), np.nan) for k in ks}


def pass_metrics(samples: Samples) -> dict[str, np.ndarray]:
    """pass@k."""
    n_B, c_B = samples.valid_BxN.sum(-1), samples.correct_BxN.sum(-1)
    by_k = _where_enough(n_B, samples.ks, lambda n, k: pass_at_k(n, c_B, k))
    return {f"pass@{k}": value_B for k, value_B in by_k.items()}


def pass_hat_metrics(samples: Samples) -> dict[str, np.ndarray]:
    """pass^k: all of k samples are right. Not in `METRICS`."""
    n_B, c_B = samples.valid_BxN.sum(-1), samples.correct_BxN.sum(-1)
    by_k = _where_enough(n_B, samples.ks, lambda n, k: pass_hat_k(n, c_B, k))
    return {f"pass^{k}": value_B for k, value_B in by_k.items()}


def _distinct(counts_BxS: np.ndarray, n_B: np.ndarray, k: int) -> np.ndarray:
    return strategies.distinct_at_k(counts_BxS, k, n_B)


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
    metrics: dict[str, np.ndarray] = {}
    for name, counts_BxS in (("distinct", all_BxS), ("distinct_correct", correct_BxS)):
        by_k = _where_enough(n_B, samples.ks, functools.partial(_distinct, counts_BxS))
        metrics |= {f"{name}@{k}": value_B for k, value_B in by_k.items()}
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


METRICS: tuple[Metric, ...] = (pass_metrics, strategy_metrics, token_metrics)


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
    top_correct_strategy_share, strategy_entropy, unseen_mass; response_length,
    token_entropy, sequence_entropy, token_nll, sequence_nll, distinct_2gram as far
    as the samples hold what they need.

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
