"""The effective number of strategies that succeed (Hill number of order 1)."""

import numpy as np

from sdd.metrics import Samples, strategy_counts, strategy_entropy


def my_name(samples: Samples) -> dict[str, np.ndarray]:
    """exp of the entropy of the strategies of right rollouts; nan where none is right."""
    counts_BxS = strategy_counts(samples.strategy_BxN, samples.num_strategies, samples.correct_BxN)
    return {"my_name": np.exp(strategy_entropy(counts_BxS, miller_madow=False))}
