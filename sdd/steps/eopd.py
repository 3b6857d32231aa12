r"""Self-distillation with a forward KL where the teacher is uncertain (EOPD, 2603.07079).

.. math::
    D_t = KL(S \| T) + \mathbb{1}[H(T) > h]\, KL(T \| S)

2603.07079 distils a larger model; here the teacher is that of :mod:`sdd.steps.sdsd`. ``keep_reverse=False``
switches instead of adding: forward where H(T) > h, reverse elsewhere. An infinite h is sdsd's reverse KL; h
below 0 with ``keep_reverse=False`` is its forward KL. With several demonstrations h is compared with the
mean of the teachers' entropies. The default of h is this project's, not the paper's.
"""

import dataclasses

import jax.numpy as jnp

from sdd.losses import divergence as div
from sdd.steps import sdsd
from sdd.steps.base import StepDef


@dataclasses.dataclass(frozen=True)
class Config(sdsd.Config):
    """Attributes:
    entropy_threshold: h, in nats.
    keep_reverse: the reverse KL stays where the forward one is added.
    """

    entropy_threshold: float = 0.8
    keep_reverse: bool = True

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as sdsd, or a divergence or estimator that would not be used.
        """
        from sdd.config import ConfigError

        sdsd.Config.check(self, run)
        if self.divergence != "reverse":
            raise ConfigError(f"config.step.divergence={self.divergence!r}: must be 'reverse'; EOPD has both")
        if self.estimator == "sampled":
            raise ConfigError(
                "config.step.estimator='sampled': must be 'exact' or 'top_k', for the forward KL"
            )


def make(config: Config) -> StepDef:
    """Builds the method."""

    def divergence(config, logits, weight_NxK) -> div.Divergence:
        reverse, forward = (
            sdsd.divergence_of(dataclasses.replace(config, divergence=kind), logits, weight_NxK)
            for kind in ("reverse", "forward")
        )
        share_NxK = weight_NxK / jnp.maximum(jnp.sum(weight_NxK, axis=1, keepdims=True), 1e-9)
        entropy_NxT = jnp.einsum("nkt,nk->nt", div.entropy(logits.teacher), share_NxK)
        uncertain_NxT = entropy_NxT > config.entropy_threshold
        elsewhere = reverse.value + forward.value if config.keep_reverse else forward.value
        return reverse._replace(value=jnp.where(uncertain_NxT, elsewhere, reverse.value))

    return sdsd.make(config, sdsd.Variant(divergence=divergence))
