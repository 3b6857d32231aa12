"""What a teacher reads: the prompt with a demonstration, before the student's own response."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from sdd.data import columns_for, pad_left
from sdd.model import Model
from sdd.sampling.score import response_hidden
from sdd.tasks.base import Example, Task
from sdd.types import Contexts, Params, Rollouts


def pad_contexts(task: Task, contexts: Sequence[np.ndarray], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """Pads contexts on the left to the shortest of a few lengths that holds them all.

    Returns:
      ``(tokens_NxP, length_N)`` as :func:`sdd.data.pad_left`.
    """
    columns = columns_for(max(len(context) for context in contexts), longest)
    return pad_left(contexts, columns, task.tokenizer.pad_id)


def demonstration_contexts(
    task: Task, examples: Sequence[Example], rollouts: Rollouts, index_NxK: np.ndarray
) -> Contexts:
    """The teacher's contexts where rollouts demonstrate; see `contexts_with`.

    Args:
      task: renders prompts.
      examples: the B examples; row n belongs to example ``n // (N // B)``.
      rollouts: the student's rollouts, as numpy arrays.
      index_NxK: rows that demonstrate, -1 for none.
    """
    length_N = np.asarray(rollouts.mask_NxT).sum(axis=1)
    return contexts_with(
        task, examples, index_NxK, lambda prompt, row: rollouts.response_NxT[row, : length_N[row]]
    )


def contexts_with(
    task: Task,
    examples: Sequence[Example],
    index_NxK: np.ndarray,
    demonstration: Callable[[int, int], np.ndarray],
) -> Contexts:
    """Builds the teacher's contexts; where there is no demonstration it reads the plain prompt.

    The student's response follows each context at the same column (contexts are
    padded on the left), so teacher and student are aligned token by token.

    Args:
      task: renders prompts.
      examples: the B examples; row n belongs to example ``n // (N // B)``.
      index_NxK: numbers of demonstrations, -1 for none.
      demonstration: ``(number of the example, number of the demonstration) -> int32 tokens``.

    Raises:
      ValueError: a context is longer than ``task.demonstration_context_length``.
    """
    num_rollouts, num_demos = index_NxK.shape
    group_size = num_rollouts // len(examples)
    rendered: dict[tuple[int, int], np.ndarray] = {}
    for row, k in np.ndindex(num_rollouts, num_demos):
        prompt, demo = row // group_size, int(index_NxK[row, k])
        if (prompt, demo) not in rendered:
            shown = demonstration(prompt, demo) if demo >= 0 else np.zeros(0, np.int32)
            rendered[prompt, demo] = task.demonstration_prompt(examples[prompt], shown)
    contexts = [
        rendered[row // group_size, int(index_NxK[row, k])] for row, k in np.ndindex(num_rollouts, num_demos)
    ]
    tokens, length = pad_contexts(task, contexts, task.demonstration_context_length)
    return Contexts(
        tokens.reshape(num_rollouts, num_demos, -1), length.reshape(num_rollouts, num_demos).astype(np.int32)
    )


def read_contexts(
    model: Model, reader: Params, contexts: Contexts, num_read: int, response_NxT: jax.Array
) -> jax.Array:
    """Hidden states NxTxKxE of the responses after the first K contexts, without gradient."""
    each = [
        response_hidden(model, reader, contexts.tokens_NxKxD[:, k], contexts.length_NxK[:, k], response_NxT)
        for k in range(num_read)
    ]
    return jax.lax.stop_gradient(jnp.stack(each, axis=2))
