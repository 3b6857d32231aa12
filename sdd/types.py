"""The records that pass between the rooms of sdd, and the legend of shapes.

Legend: ``B`` prompts, ``G`` rollouts a prompt (a group), ``N = B*G`` rollouts
(row ``n`` belongs to prompt ``n // G``), ``P`` context length, ``T`` response
length, ``D`` teacher context length, ``K`` demonstrations a teacher averages
over, ``V`` vocabulary, ``E`` model width, ``H`` query heads, ``J`` key/value
heads, ``C`` head size, ``L`` layers, ``S`` cache length.

Contexts (prompts, with or without a demonstration) are padded on the left and
responses on the right, so a response always starts at the same column and the
token before it is always real.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

Array = Any  # a jax.Array on the device, a numpy array on the host
Params = Any  # a nested dict of arrays
Key = jax.Array  # a typed key of jax.random


class Rollouts(NamedTuple):
    """Responses to contexts, with what was known when they were made.

    Attributes:
      context_BxP: int32, left-padded contexts that the policy read, one a group.
      context_length_B: int32, number of real tokens in each context.
      response_NxT: int32, right-padded responses; the stop token is included.
      mask_NxT: bool, True on the real tokens of a response.
      sampling_logp_NxT: float32, nats, log-probability of each token under the
        distribution it was drawn from (after temperature and filters).
      model_logp_NxT: float32, nats, log-probability under the model itself.
      entropy_NxT: float32, nats, entropy of the model's next-token distribution.
      embedding_NxE: float32, mean of the hidden states that the response's tokens were
        drawn from; None where nobody sampled.
    """

    context_BxP: Array
    context_length_B: Array
    response_NxT: Array
    mask_NxT: Array
    sampling_logp_NxT: Array
    model_logp_NxT: Array
    entropy_NxT: Array
    embedding_NxE: Array | None = None


class Grades(NamedTuple):
    """The verifier's verdicts on rollouts; numpy arrays on the host.

    Attributes:
      correct_N: bool.
      score_N: float32, the verifier's score (1.0 for right unless a task says otherwise).
      strategy_N: int32, which strategy the rollout follows; -1 where none can be told.
      right_prefix_N: int32, number of leading response tokens after which a right
        answer can still be reached; -1 where the task cannot tell.
    """

    correct_N: np.ndarray
    score_N: np.ndarray
    strategy_N: np.ndarray
    right_prefix_N: np.ndarray


class Contexts(NamedTuple):
    """Token rows that a teacher reads before it scores the student's response.

    Attributes:
      tokens_NxKxD: int32, left-padded.
      length_NxK: int32, real tokens of each row.
    """

    tokens_NxKxD: Array
    length_NxK: Array


class TrainState(NamedTuple):
    """Everything that a training step reads and writes; all of it is checkpointed.

    Attributes:
      step: int32 scalar, number of finished steps.
      params: the student's parameters (float32).
      opt_state: state of the optax optimizer.
      teacher: what the step definition keeps beside the student, for example an
        average of its parameters; ``()`` when it keeps nothing.
      skipped: int32 scalar, updates skipped so far because of non-finite numbers.
      skipped_in_a_row: int32 scalar, the same without a good update in between.
    """

    step: Array
    params: Params
    opt_state: Any
    teacher: Any
    skipped: Array
    skipped_in_a_row: Array
