"""Drawing rollouts from a policy."""

from sdd.sampling.filters import filter_logits
from sdd.sampling.loop import Sampler, make

__all__ = ["Sampler", "filter_logits", "make"]
