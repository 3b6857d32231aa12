r"""Group relative policy optimisation (2402.03300), with the options of its descendants.

.. math::
    A_i = r_i - \mathrm{mean}(r), \qquad \rho_t = \pi_\theta(y_t) / \pi_{old}(y_t)

    L_t = - \min(\rho_t A,\; \mathrm{clip}(\rho_t, 1 - \epsilon_{low}, 1 + \epsilon_{high}) A)
          + \beta\, k_3(\pi_\theta \| \pi_{ref})

``normalise_advantages`` divides by the group's standard deviation (GRPO) or not
(Dr.GRPO, 2503.20783); separate clip bounds are DAPO's (2503.14476). The reference
is the policy at the start. With one update a batch the ratio is 1 and the clip idle;
``config.train.updates_per_batch`` takes more.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sdd.losses import policy
from sdd.losses.blockwise import sum_blocks
from sdd.losses.divergence import entropy, token_logp
from sdd.losses.mean import Mean, masked_mean
from sdd.sampling.score import response_hidden
from sdd.steps import _checks as checks
from sdd.steps.base import Chosen, Graded, StepDef


@dataclasses.dataclass(frozen=True)
class Config:
    """Attributes:
    normalise_advantages: divide by the group's standard deviation.
    clip_low, clip_high: bounds of the probability ratio, 1 - low and 1 + high.
    kl_coefficient: weight of the k3 estimate of KL to the policy at the start; 0: none.
    loss_mean: mean per "sequence" and then over rows, per "token" over the batch, or
      per "constant" length (Dr.GRPO).
    constant_length: the length for "constant"; 0: the task's longest response.
    block_size: tokens of a response whose logits are held at once; 0: all.
    """

    normalise_advantages: bool = False
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coefficient: float = 0.0
    loss_mean: Literal["sequence", "token", "constant"] = "sequence"
    constant_length: int = 0
    block_size: int = 0

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: a group of one, whose advantage is always zero, or a bound out of range.
        """
        policy_checks(self, run)


class Targets(NamedTuple):
    """Attributes:
    advantage_N: float32, the group-relative advantage of each rollout.
    constant_N: float32, tokens that a row's sum is divided by, for the mean per "constant" length.
    """

    advantage_N: np.ndarray
    constant_N: np.ndarray


def policy_checks(config, run) -> None:
    """The checks that every group-relative method needs."""
    from sdd.config import ConfigError

    if run.train.group_size < 2:
        raise ConfigError(
            f"config.train.group_size={run.train.group_size}: a group of one has no advantage; "
            "GRPO needs 2 or more"
        )
    checks.zero_or_more(config, "clip_low", "clip_high", "kl_coefficient")


def choose(config: Config, graded: Graded, reward_N: np.ndarray) -> Chosen:
    """Group-relative advantages of any rewards."""
    advantage_N = policy.group_advantages(reward_N, graded.group_size, config.normalise_advantages)
    advantage_N = np.asarray(advantage_N, np.float32)
    metrics = {"advantage_nonzero": Mean(np.sum(advantage_N != 0), len(advantage_N))}
    constant_N = np.full_like(advantage_N, config.constant_length or graded.max_tokens)
    return Chosen(Targets(advantage_N, constant_N), None, metrics)


class Tokens(NamedTuple):
    """What a method may read of a block of tokens, in `surrogate_loss`.

    Attributes:
      logits_NxTxV: the policy's.
      token_NxT: the sampled tokens.
      logp_NxT: their log-probabilities.
      reference_NxTxV: the reference's logits, where the loss has one; no gradient.
      own: blocks of the arrays that the method handed over.
    """

    logits_NxTxV: jax.Array
    token_NxT: jax.Array
    logp_NxT: jax.Array
    reference_NxTxV: jax.Array | None
    own: tuple[jax.Array, ...]


class Variant(NamedTuple):
    """How a method departs from the surrogate; every function is ``(Tokens) -> ...`` of a block.

    Attributes:
      arrays: NxT or NxTx..., cut into blocks and handed over as ``Tokens.own``.
      advantage: -> (N,) or (N, T), in place of the rollouts'.
      credited: -> (N, T), log-probabilities of the sampled tokens whose gradient is the one to follow.
      term: -> (loss (N, T), metrics (N, T) by name), added to the loss.
      reads_reference: the reference's logits are wanted without a pull, too.
    """

    arrays: tuple[Any, ...] = ()
    advantage: Callable[[Tokens], Any] | None = None
    credited: Callable[[Tokens], jax.Array] | None = None
    term: Callable[[Tokens], tuple[jax.Array | float, dict[str, jax.Array]]] | None = None
    reads_reference: bool = False


PLAIN = Variant()


def surrogate_loss(config: Config, model, params, reference, batch, variant: Variant = PLAIN):
    """The clipped surrogate with an optional pull to ``reference``; returns (loss, metrics)."""
    rollouts = batch.rollouts
    inputs = (rollouts.context_BxP, rollouts.context_length_B, rollouts.response_NxT)
    arrays = [response_hidden(model, params, *inputs), rollouts.response_NxT, rollouts.model_logp_NxT]
    with_reference = config.kl_coefficient > 0 or variant.reads_reference
    if with_reference:
        reference = jax.lax.stop_gradient(reference)
        arrays.append(response_hidden(model, reference, *inputs))

    def score(hidden, token, old_logp, *rest):
        logits = model.unembed(params, hidden)
        reference_logits = model.unembed(reference, rest[0]) if with_reference else None
        block = Tokens(
            logits, token, token_logp(logits, token), reference_logits, rest[int(with_reference) :]
        )
        logp = block.logp_NxT if variant.credited is None else variant.credited(block)
        advantage = batch.targets.advantage_N if variant.advantage is None else variant.advantage(block)
        loss, clipped = policy.clipped_surrogate(logp, old_logp, advantage, config.clip_low, config.clip_high)
        tokens = {"clipped": clipped, "policy_entropy": entropy(logits)}
        if config.kl_coefficient > 0:
            kl = policy.kl_k3(block.logp_NxT, token_logp(reference_logits, token))
            loss, tokens["kl_to_start"] = loss + config.kl_coefficient * kl, kl
        if variant.term is not None:
            added, more = variant.term(block)
            loss, tokens = loss + added, tokens | more
        return loss, tokens

    # Divided by a number of its own, each row counts once.
    constant_N = batch.targets.constant_N
    row_weight_N = 1 / constant_N if config.loss_mean == "constant" else jnp.ones_like(constant_N)
    weight_NxT, divisor = policy.token_weights(rollouts.mask_NxT, row_weight_N, config.loss_mean, 1)
    total, tokens = sum_blocks(score, config.block_size, weight_NxT, *arrays, *variant.arrays)
    return Mean(total, divisor), {name: masked_mean(x, rollouts.mask_NxT) for name, x in tokens.items()}


def copied(params):
    """The parameters in buffers of their own, for the training step donates each."""
    return jax.tree.map(lambda x: x.copy(), params)


def make(config: Config, variant: Variant = PLAIN) -> StepDef:
    """Builds the method, or one that departs from it by ``variant``."""
    return StepDef(
        source="policy",
        choose=lambda task, graded, rng_B: choose(config, graded, graded.grades.score_N),
        loss=lambda model, params, teacher, batch: surrogate_loss(
            config, model, params, teacher, batch, variant
        ),
        begin=copied if config.kl_coefficient > 0 else lambda params: (),
    )
