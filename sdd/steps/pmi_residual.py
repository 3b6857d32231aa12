r"""Self-distillation without what any demonstration would teach: the residual of a tilt.

.. math::
    \log T_t = \log \pi_\phi(\cdot | x, d) - \lambda
        (\log \pi_\phi(\cdot | x, d') - \log \pi_\phi(\cdot | x)) + \text{const}

with d a right rollout of the prompt, as in :mod:`sdd.steps.sdsd`, and d' one of another prompt of the
batch. The second term is the pointwise mutual information with a demonstration that says nothing of the
prompt: what reading *some* demonstration does to style, length and confidence. As described in this
project's plan, in the spirit of 2605.11613 ("From Generic Correlation to Input-Specific Credit"), whose
equations were not at hand. lambda = 0 is sdsd; with d' = d and lambda = 1 the target is the teacher without
a demonstration.

d' comes from the rollouts that a process holds, so with several processes it depends on how prompts fall to
them.
"""

import dataclasses

import jax
import numpy as np

from sdd.losses.mean import Mean
from sdd.sampling.score import response_hidden
from sdd.steps import sdsd
from sdd.steps.base import Chosen, StepDef
from sdd.teacher.context import read_contexts


@dataclasses.dataclass(frozen=True)
class Config(sdsd.Config):
    """Attributes:
    residual: lambda, the share of the other demonstration's tilt that is taken off; 0: sdsd.
    """

    residual: float = 1.0

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as sdsd, or a trust region besides.
        """
        from sdd.config import ConfigError

        sdsd.Config.check(self, run)
        if self.trust_region:
            raise ConfigError(f"config.step.trust_region={self.trust_region}: must be 0 with a residual")


def others(correct_N: np.ndarray, group_size: int, rng_B) -> np.ndarray:
    """For each row a right rollout of another group, drawn uniformly; -1 where there is none. (N,) int32."""
    found_N = np.full(len(correct_N), -1, np.int32)
    group_N = np.arange(len(correct_N)) // group_size
    for row in range(len(correct_N)):
        candidates = np.flatnonzero(correct_N & (group_N != group_N[row]))
        if len(candidates):
            found_N[row] = rng_B[group_N[row]].permutation(candidates)[0]
    return found_N


def make(config: Config) -> StepDef:
    """Builds the method."""

    def choose(task, graded, rng_B) -> Chosen:
        demos = sdsd.draw(config, graded, rng_B)
        other_N = others(graded.grades.correct_N, graded.group_size, rng_B)
        chosen = sdsd.chosen(task, graded, demos, other_N[:, None])
        found = {"other_demo_rows": Mean((other_N >= 0).sum(), len(other_N))}
        return chosen._replace(metrics=chosen.metrics | found)

    def hidden(config, model, params, tutor, reference, batch):
        rollouts, contexts = batch.rollouts, batch.contexts
        plain = (rollouts.context_BxP, rollouts.context_length_B, rollouts.response_NxT)
        shown = read_contexts(model, tutor, contexts, config.num_demos + 1, rollouts.response_NxT)
        unread = jax.lax.stop_gradient(response_hidden(model, tutor, *plain))
        return response_hidden(model, params, *plain), shown, unread

    def logits(config, model, params, tutor, reference):
        def logits_of(hiddens):
            shown_NxTxMxV = model.unembed(tutor, hiddens[1])
            tilt_NxTx1xV = shown_NxTxMxV[:, :, -1:] - model.unembed(tutor, hiddens[2])[:, :, None]
            teacher_NxTxKxV = shown_NxTxMxV[:, :, :-1] - config.residual * tilt_NxTx1xV
            student_NxTxV = model.unembed(params, hiddens[0])
            return sdsd.Logits(student_NxTxV, jax.lax.stop_gradient(teacher_NxTxKxV.swapaxes(1, 2)))

        return logits_of

    return sdsd.make(config, sdsd.Variant(hidden=hidden, logits=logits))._replace(choose=choose)
