r"""Self-distillation towards a point between the reference and the teacher (beta-OPSD, 2607.28582).

.. math::
    \pi^* \propto \pi_0(\cdot | x, y_{<t})^{1 - 1/\beta}\; \pi_\phi(\cdot | x, d, y_{<t})^{1/\beta}

the optimum of E log(pi_phi / pi_0) - beta KL(pi || pi_0) at each prefix; the student is distilled to it as
in :mod:`sdd.steps.sdsd`. beta = 1 is sdsd; as beta grows the target goes to the reference, the policy at
the start reading the plain prompt. (The trust region of sdsd interpolates with the start reading the
demonstration.) ``estimator="sampled"`` with ``return_to_go`` gives tokens the credit for what follows them,
as the paper does. In `sdd.theory` this is the fixed point with a pull of beta - 1.
"""

import dataclasses

import jax

from sdd.sampling.score import response_hidden
from sdd.steps import sdsd
from sdd.steps.base import StepDef


@dataclasses.dataclass(frozen=True)
class Config(sdsd.Config):
    """Attributes:
    beta: weight of the KL to the reference, above 0; 1: sdsd; below 1: beyond the teacher.
    """

    beta: float = 2.0

    def check(self, run) -> None:
        """Refuses what cannot work.

        Raises:
          ConfigError: as sdsd, a beta that is not positive, or a trust region besides.
        """
        from sdd.config import ConfigError

        sdsd.Config.check(self, run)
        if not self.beta > 0:
            raise ConfigError(f"config.step.beta={self.beta}: must be above 0")
        if self.trust_region:
            raise ConfigError(
                f"config.step.trust_region={self.trust_region}: must be 0; beta has its place here"
            )


def make(config: Config) -> StepDef:
    """Builds the method."""

    def hidden(config, model, params, tutor, reference, batch):
        rollouts = batch.rollouts
        student_and_taught = sdsd.hidden_states(config, model, params, tutor, reference, batch)
        plain = (rollouts.context_BxP, rollouts.context_length_B, rollouts.response_NxT)
        return *student_and_taught, jax.lax.stop_gradient(response_hidden(model, reference, *plain))

    def logits(config, model, params, tutor, reference):
        taught = sdsd.make_logits(config, model, params, tutor, reference)

        def logits_of(hiddens):
            student, teacher_NxKxTxV = taught(hiddens[:2])
            start_NxTxV = jax.lax.stop_gradient(model.unembed(reference, hiddens[2]))
            start_Nx1xTxV = start_NxTxV[:, None]
            return sdsd.Logits(student, start_Nx1xTxV + (teacher_NxKxTxV - start_Nx1xTxV) / config.beta)

        return logits_of

    step = sdsd.make(config, sdsd.Variant(hidden=hidden, logits=logits))
    return sdsd.with_teacher(step, config, with_reference=True)
