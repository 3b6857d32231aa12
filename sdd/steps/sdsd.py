r"""On-policy self-distillation with sampled demonstrations (2606.26091; SDPO 2601.20802).

.. math::
    L(\theta) = E_x E_{y \sim \pi_\theta} \frac{1}{|y|} \sum_t
        D(\pi_\theta(\cdot | x, y_{<t}),\; \mathrm{sg}\, \pi_\phi(\cdot | x, d, y_{<t}))

The demonstrations d are correct rollouts of the same group. The teacher is the same
network with parameters phi, reading the prompt with d, on the student's own tokens.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sdd.losses import divergence as div
from sdd.losses.blockwise import map_blocks, sum_blocks
from sdd.losses.mean import Mean
from sdd.losses.policy import token_weights
from sdd.model import Model
from sdd.sampling.score import response_hidden
from sdd.steps import _checks as checks
from sdd.steps._sdsd_batch import Targets as Targets
from sdd.steps._sdsd_batch import cut_metrics, health, targets_of
from sdd.steps.base import Chosen, Graded, LossBatch, StepDef
from sdd.tasks.base import Task
from sdd.teacher import params as teacher_params
from sdd.teacher.context import demonstration_contexts, read_contexts
from sdd.teacher.demos import Demonstrations, choose_demonstrations, demonstration_metrics


@dataclasses.dataclass(frozen=True)
class Config:
    """Attributes:
    num_demos: K, demonstrations a rollout is taught from.
    combine: "loss_mean", the mean of K divergences, or "mixture", one divergence to
      the arithmetic mixture of the K teachers.
    divergence: "reverse" KL(S||T), "forward" KL(T||S), or "js" with ``js_weight``.
    js_weight: the teacher's weight in the Jensen-Shannon mixture.
    estimator: "exact" over the vocabulary; "top_k" with ``top_k``, ``top_k_support``
      and ``top_k_remainder``; "sampled", a policy gradient on log T - log S of the
      sampled token, summed over what follows with ``return_to_go``.
    top_k, top_k_support, top_k_remainder: whose k tokens are kept, and whether the rest
      is one "tail" bucket or left out with the k renormalised.
    return_to_go: for "sampled": credit a token with the advantages that follow it too.
    demo_policy, demo_per, exclude_own: which demonstrations, see :mod:`sdd.teacher.demos`.
    teacher: "live", "ema" or "frozen" parameters.
    ema_decay: decay of the average per update, for "ema".
    trust_region: share of the start's logits in the teacher's; 0: none.
    importance_clip: largest weight that a token may get for being likelier now than when it was drawn,
      min(clip, pi(y_t) / pi_old(y_t)), for rollouts that are a step old; 0: all weigh the same.
    denominator: rows without a demonstration stay in the mean ("all", as SDPO) or not ("active").
    block_size: tokens of a response whose logits are held at once; 0: all.
    """

    num_demos: int = 1
    combine: Literal["loss_mean", "mixture"] = "loss_mean"
    divergence: Literal["reverse", "forward", "js"] = "reverse"
    js_weight: float = 0.5
    estimator: Literal["exact", "top_k", "sampled"] = "exact"
    top_k: int = 100
    top_k_support: Literal["student", "teacher"] = "student"
    top_k_remainder: Literal["tail", "renormalise"] = "tail"
    return_to_go: bool = False
    demo_policy: Literal["random", "first", "shortest", "other_strategy"] = "random"
    demo_per: Literal["rollout", "group"] = "rollout"
    exclude_own: bool = True
    teacher: Literal["live", "ema", "frozen"] = "ema"
    ema_decay: float = 0.995
    trust_region: float = 0.0
    importance_clip: float = 0.0
    denominator: Literal["active", "all"] = "active"
    block_size: int = 0

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: a value out of range, or more demonstrations than a group can give.
        """
        from sdd.config import ConfigError

        candidates = run.train.group_size - int(self.exclude_own)
        if not 1 <= self.num_demos <= candidates:
            raise ConfigError(
                f"config.step.num_demos={self.num_demos}: a group of {run.train.group_size} offers a rollout "
                f"1 to {candidates} demonstrations (config.step.exclude_own={self.exclude_own})"
            )
        checks.shares(self, "js_weight", "ema_decay", "trust_region")
        checks.zero_or_more(self, "importance_clip")
        if run.train.async_steps and not self.importance_clip:
            raise ConfigError(
                "config.train.async_steps=1: rollouts are then a step old, and their tokens must be weighed; "
                "set config.step.importance_clip, for example to 2"
            )
        if self.top_k < 1:
            raise ConfigError(f"config.step.top_k={self.top_k}: must be 1 or more")


class Logits(NamedTuple):
    """Student NxTxV and teachers NxKxTxV of a block of tokens."""

    student: jax.Array
    teacher: jax.Array


def make(config: Config, variant: "Variant | None" = None) -> StepDef:
    """Builds the method, or one that departs from it by ``variant``."""
    variant = variant or Variant()

    step = StepDef(
        source="policy",
        choose=lambda task, graded, rng_B: chosen(task, graded, draw(config, graded, rng_B)),
        loss=lambda model, params, teacher, batch: distillation_loss(
            config, model, params, teacher, batch, variant
        ),
    )
    return with_teacher(step, config, with_reference=config.trust_region > 0)


def draw(config: Config, graded: Graded, rng_B) -> Demonstrations:
    """The demonstrations of each rollout, by the settings."""
    return choose_demonstrations(
        graded.grades,
        np.asarray(graded.rollouts.mask_NxT).sum(axis=1),
        rng_B,
        group_size=graded.group_size,
        num_demos=config.num_demos,
        policy=config.demo_policy,
        per=config.demo_per,
        exclude_own=config.exclude_own,
    )


def chosen(task: Task, graded: Graded, demos: Demonstrations, more_NxM: np.ndarray | None = None) -> Chosen:
    """Targets, contexts and metrics; ``more_NxM`` are rows shown in contexts after those of the teachers."""
    shown_NxK = demos.index_NxK if more_NxM is None else np.concatenate([demos.index_NxK, more_NxM], axis=1)
    contexts = demonstration_contexts(task, graded.examples, graded.rollouts, shown_NxK)
    metrics = demonstration_metrics(demos, graded.grades) | cut_metrics(task, graded, demos.index_NxK)
    return Chosen(targets_of(graded, demos), contexts, metrics, shown_NxK)


def distillation_loss(
    config: Config,
    model: Model,
    params,
    teacher: teacher_params.Teacher,
    batch: LossBatch,
    variant: "Variant",
    row_weight_N: jax.Array | None = None,
):
    """The divergence to the teachers; returns (loss, metrics).

    Args:
      config: the settings.
      model, params, teacher, batch: as for ``StepDef.loss``; the targets are `Targets`.
      variant: what a method does in another way.
      row_weight_N: what rows weigh; the mean is over these weights. None: all weigh the same.
    """
    rollouts, targets = batch.rollouts, batch.targets
    tutor = teacher_params.current(teacher, params)
    read = jax.lax.stop_gradient(params) if config.estimator == "sampled" else params
    logits_of = variant.logits(config, model, read, tutor, teacher.reference)
    hiddens = variant.hidden(config, model, params, tutor, teacher.reference, batch)
    taught_N = (jnp.sum(targets.weight_NxK, axis=1) > 0).astype(jnp.float32)
    weight_NxT, divisor = token_weights(rollouts.mask_NxT, taught_N, "sequence", 0, config.denominator)
    if row_weight_N is not None:
        counts_N = taught_N if config.denominator == "active" else jnp.ones_like(taught_N)
        weight_NxT, divisor = weight_NxT * row_weight_N[:, None], jnp.sum(counts_N * row_weight_N)
    arrays = (*hiddens, rollouts.response_NxT, rollouts.model_logp_NxT)

    def score(*blocks):
        logits = logits_of(blocks[:-2])
        tokens = score_block(config, logits, blocks[-2], targets.weight_NxK, variant.divergence)
        return importance(config, tokens["student_logp"], blocks[-1]) * tokens["divergence"], tokens

    def surrogate(hidden, token, old_logp, advantage):
        logp = div.token_logp(model.unembed(params, hidden), token)
        return -importance(config, logp, old_logp) * advantage * logp, ()

    if config.estimator == "sampled":
        # An advantage may depend on later tokens, so all are read before the pass with the gradient.
        _, tokens = map_blocks(score, config.block_size, *jax.lax.stop_gradient(arrays))
        advantage_NxT = sampled_advantage(config, tokens, batch)
        arrays = (hiddens[0], *arrays[-2:], advantage_NxT)
        total, _ = sum_blocks(surrogate, config.block_size, weight_NxT, *arrays)
    else:
        total, tokens = sum_blocks(score, config.block_size, weight_NxT, *arrays)
    return Mean(total, divisor), health(tokens, batch, taught_N)


def with_teacher(step: StepDef, config, with_reference: bool) -> StepDef:
    """The method with a teacher kept beside the student, by ``config.teacher`` and ``config.ema_decay``."""
    return step._replace(
        begin=lambda params: teacher_params.begin(params, config.teacher, with_reference),
        after=lambda teacher, params: teacher_params.after_update(
            teacher, params, config.teacher, config.ema_decay
        ),
        tutor=teacher_params.current,
    )


def hidden_states(config: Config, model: Model, params, tutor, reference, batch: LossBatch) -> tuple:
    """Hidden states: student NxTxE, K teachers NxTxKxE, and for a trust region the start's NxTxKxE."""
    rollouts, contexts = batch.rollouts, batch.contexts
    assert contexts is not None  # choose always makes them
    student_NxTxE = response_hidden(
        model, params, rollouts.context_BxP, rollouts.context_length_B, rollouts.response_NxT
    )
    readers = [tutor] if config.trust_region == 0 else [tutor, reference]
    taught = [
        read_contexts(model, reader, contexts, config.num_demos, rollouts.response_NxT) for reader in readers
    ]
    return (student_NxTxE, *taught)


def make_logits(config: Config, model: Model, params, tutor, reference):
    """``(hidden states of a block) -> Logits``; the trust region is linear in the logits."""

    def logits_of(hiddens) -> Logits:
        student_NxTxV = model.unembed(params, hiddens[0])
        teacher_NxTxKxV = model.unembed(tutor, hiddens[1])
        if config.trust_region > 0:
            start_NxTxKxV = model.unembed(reference, hiddens[2])
            teacher_NxTxKxV += config.trust_region * (start_NxTxKxV - teacher_NxTxKxV)
        return Logits(student_NxTxV, jax.lax.stop_gradient(teacher_NxTxKxV.swapaxes(1, 2)))

    return logits_of


def divergence_of(config: Config, logits: Logits, weight_NxK) -> div.Divergence:
    """The divergence of a block of tokens, by the settings."""
    return div.divergence_to_teachers(
        logits.student,
        logits.teacher,
        weight_NxK,
        combine=config.combine,
        kind=config.divergence,
        js_weight=config.js_weight,
        top_k=config.top_k if config.estimator == "top_k" else 0,
        support=config.top_k_support,
        remainder=config.top_k_remainder,
    )


class Variant(NamedTuple):
    """How a method departs from this one; the defaults do not.

    Attributes:
      hidden: as `hidden_states`; the student's comes first.
      logits: as `make_logits`.
      divergence: as `divergence_of`.
    """

    hidden: Callable[..., tuple] = hidden_states
    logits: Callable[..., Callable[[Any], Logits]] = make_logits
    divergence: Callable[..., div.Divergence] = divergence_of


def score_block(
    config: Config, logits: Logits, token_NxT, weight_NxK, divergence_of=divergence_of
) -> dict[str, jax.Array]:
    """Per-token quantities of a block of tokens, each with leading axes NxT."""
    student_NxTxV, teacher_NxKxTxV = logits
    divergence = divergence_of(config, logits, weight_NxK)
    values = {"divergence": divergence.value}
    if config.estimator == "top_k":
        values |= {"captured_mass": divergence.student_mass, "captured_teacher_mass": divergence.teacher_mass}
    token_NxKxT = jnp.broadcast_to(token_NxT[:, None], teacher_NxKxTxV.shape[:3])
    teacher_logp_NxKxT = div.token_logp(teacher_NxKxTxV, token_NxKxT)
    return values | {
        "student_logp": div.token_logp(student_NxTxV, token_NxT),
        "student_entropy": jax.lax.stop_gradient(div.entropy(student_NxTxV)),
        "teacher_logp_K": teacher_logp_NxKxT.swapaxes(1, 2),
        "teacher_entropy_K": div.entropy(teacher_NxKxTxV).swapaxes(1, 2),
    }


def importance(config: Config, logp: jax.Array, old_logp: jax.Array) -> jax.Array | float:
    """What tokens weigh for the policy that drew them: min(clip, pi / pi_old), without a gradient."""
    if not config.importance_clip:
        return 1.0
    return jax.lax.stop_gradient(jnp.minimum(config.importance_clip, jnp.exp(logp - old_logp)))


def sampled_advantage(config: Config, tokens: dict[str, jax.Array], batch: LossBatch) -> jax.Array:
    """The advantage NxT of the estimator "sampled", from `score_block` of every token."""
    return div.sampled_token_advantage(
        tokens["student_logp"],
        tokens["teacher_logp_K"].swapaxes(1, 2),
        batch.targets.weight_NxK,
        batch.rollouts.mask_NxT,
        config.combine,
        config.return_to_go,
    )
