"""n graded samples of each of B prompts: what every metric reads, checked and masked once."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from sdd.information import Information
from sdd.metrics.pass_at_k import powers_of_two
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
      answer_BxN: int, index of the final answer among the prompt's answers; -1 where there is none.
      texts_BxN: str, the responses as text (nested sequences do).
      embeddings: embedder's name -> BxNxE, of the responses.
      likelihoods: of each prompt's first M samples, how likely the model finds each when it reads
        another (`sdd.information.Information`).
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
    answer_BxN: Optional = None
    texts_BxN: Optional = None
    embeddings: Mapping[str, Array] = MappingProxyType({})
    likelihoods: Information | None = None
    valid_BxN: Optional = None
    ks: Sequence[int] = ()


def _check_shapes(samples: Samples) -> None:
    """Raises ValueError in one line if a field does not go with correct_BxN."""
    shape = np.shape(samples.correct_BxN)
    if len(shape) != 2:
        raise ValueError(f"Samples: correct_BxN has shape {shape}; valid: prompts x samples")
    arrays = {name: value for name, value in samples._asdict().items() if name.endswith(("xN", "xT"))}
    arrays |= {f"embeddings[{name!r}]_BxNxE": value for name, value in samples.embeddings.items()}
    for name, value in arrays.items():
        if value is None:
            continue
        if np.shape(value)[:2] != shape or np.ndim(value) != len(name.rsplit("_", 1)[1].split("x")):
            raise ValueError(f"Samples: {name} has shape {np.shape(value)}; correct_BxN has {shape}")
    if samples.likelihoods is not None:
        measured = np.shape(samples.likelihoods.logp_BxM)
        if len(measured) != 2 or measured[0] != shape[0] or measured[1] > shape[1]:
            raise ValueError(f"Samples: likelihoods are of {measured} samples; correct_BxN has {shape}")
    for name in ("tokens_BxNxT", "entropy_BxNxT", "logp_BxNxT"):
        if getattr(samples, name) is not None and samples.mask_BxNxT is None:
            raise ValueError(f"Samples: {name} is given without mask_BxNxT; valid: both")


def complete(samples: Samples) -> Samples:
    """Returns the samples as every metric gets them: numpy, filled in, and masked once.

    valid_BxN and ks are set; num_tokens_BxN and token_entropy_BxN come from the
    token level where that is known. Filler is incorrect, has no strategy and no tokens.

    Raises:
      ValueError: for shapes that do not go together, or a k above N.
    """
    _check_shapes(samples)
    arrays: dict[str, Any] = {
        name: np.asarray(value)
        for name, value in samples._asdict().items()
        if name.endswith(("xN", "xT")) and value is not None
    }
    embedded = {name: np.asarray(value) for name, value in samples.embeddings.items()}
    host = samples._replace(**arrays, embeddings=embedded)
    valid = np.ones_like(host.correct_BxN, bool) if host.valid_BxN is None else host.valid_BxN.astype(bool)
    most, columns = int(valid.sum(1).max(initial=0)), valid.shape[1]
    ks = tuple(int(k) for k in host.ks) or powers_of_two(max(most, 1))
    if valid.size and not 1 <= min(ks) <= max(ks) <= columns:
        raise ValueError(f"Samples: ks = {ks}; valid: 1 .. {columns}, the number of samples a prompt")
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
        answer_BxN=None if host.answer_BxN is None else np.where(valid, host.answer_BxN, -1),
        mask_BxNxT=mask,
        num_tokens_BxN=num_tokens,
        token_entropy_BxN=token_entropy,
        valid_BxN=valid,
        ks=ks,
    )
