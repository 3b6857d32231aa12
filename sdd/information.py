"""What one response tells the model about another: log pi(y_a | x, y_b) for a group of responses.

With log pi(y_a | x) it gives the pointwise information i(y_a; y_b | x) =
log pi(y_a | x, y_b) - log pi(y_a | x), by which on-policy self-distillation with y_b as the
demonstration tilts the policy (2606.26091). See :mod:`sdd.metrics.likelihood` for what is made of it.

Log-probabilities given several demonstrations, log pi(y_a | x, y_1 .. y_{a-1}), are not offered: a
task's prompt shows one demonstration, and how to show more is the task's to say.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sdd import mesh as mesh_lib
from sdd.losses.blockwise import map_blocks
from sdd.losses.divergence import token_logp
from sdd.model import Model
from sdd.sampling.score import response_hidden
from sdd.tasks.base import Example, Task
from sdd.teacher.context import pad_contexts
from sdd.types import Params


class Information(NamedTuple):
    """Log-probabilities of the M responses to each of B prompts; numpy arrays.

    Attributes:
      conditional_logp_BxMxM: float32, nats, entry [a, b] is log pi(y_a | x, y_b): a is scored, b shown.
      logp_BxM: float32, nats, log pi(y_a | x).
      num_tokens_BxM: int32, real tokens of each response.
    """

    conditional_logp_BxMxM: np.ndarray
    logp_BxM: np.ndarray
    num_tokens_BxM: np.ndarray


# (params, examples, response_NxT, mask_NxT) -> Information
Measure = Callable[[Params, Sequence[Example], np.ndarray, np.ndarray], Information]


def make(model: Model, task: Task, mesh: Mesh, *, contexts_per_call: int, block_size: int = 0) -> Measure:
    """Returns ``(params, examples, response_NxT, mask_NxT) -> Information``, M = N / B.

    Call it under ``jax.set_mesh(mesh)``. Row n of the responses belongs to example n // M. A
    response is shown through ``task.demonstration_prompt``, its stop token included. Each prompt
    has M + 1 contexts (one of its responses shown, or none), each read once and followed by the
    prompt's M responses: B (M + 1) contexts and B (M + 1) M scored rows. The log-probabilities
    are the model's own, whatever temperature and filters the responses were drawn with.
    All of several processes give the same rows, each scores a share, and all get the whole.

    Args:
      model: the decoder.
      task: renders prompts.
      mesh: the device mesh.
      contexts_per_call: contexts on the devices at once, with M responses each: bounds the memory. A multiple
        of mesh data x fsdp.
      block_size: tokens of a response whose logits are held at once; 0: all.

    Raises:
      ValueError: a number of contexts that the mesh does not divide; when called, rows that are not
        a whole group for each example, or a response that is too long to be shown.
    """
    multiple = mesh_lib.row_multiple(mesh)
    if contexts_per_call < 1 or contexts_per_call % multiple:
        raise ValueError(
            f"information: contexts_per_call={contexts_per_call}; valid: a positive multiple of "
            f"mesh data x fsdp = {multiple}"
        )

    @jax.jit
    def score(params, context_CxD, length_C, response_NxT, mask_NxT):
        hidden_NxTxE = response_hidden(model, params, context_CxD, length_C, response_NxT)
        logp_of = lambda hidden, token: token_logp(model.unembed(params, hidden), token)  # noqa: E731
        logp_NxT = map_blocks(logp_of, block_size, hidden_NxTxE, response_NxT)
        return jnp.sum(jnp.where(mask_NxT, logp_NxT, 0), axis=1)

    def measure(params, examples, response_NxT, mask_NxT) -> Information:
        response_BxMxT, mask_BxMxT = group(len(examples), response_NxT, mask_NxT)
        B, M, T = response_BxMxT.shape
        contexts = render_contexts(task, examples, response_BxMxT, mask_BxMxT)
        columns = pad_contexts(task, contexts, task.demonstration_context_length)
        own: list[int] = []
        pieces = []
        for index_C, where in calls(len(contexts), contexts_per_call):
            prompt_C = index_C // (M + 1)
            batch = (
                *(column[index_C] for column in columns),
                response_BxMxT[prompt_C].reshape(-1, T),
                mask_BxMxT[prompt_C].reshape(-1, T),
            )
            logp_N = mesh_lib.get_rows(score(params, *mesh_lib.put_rows(mesh, batch)))
            pieces.append(logp_N.reshape(-1, M)[: len(where)])
            own += where
        logp_CxM = mesh_lib.gather(own, len(contexts), np.concatenate(pieces))
        logp_BxSxM = logp_CxM.reshape(B, M + 1, M)  # S: the context, the plain one last
        return Information(
            conditional_logp_BxMxM=logp_BxSxM[:, :M].swapaxes(1, 2),
            logp_BxM=logp_BxSxM[:, M],
            num_tokens_BxM=mask_BxMxT.sum(axis=2, dtype=np.int32),
        )

    return measure


def group(num_prompts: int, response_NxT: np.ndarray, mask_NxT: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows -> BxMxT, tokens as int32 and the mask as bool.

    Raises:
      ValueError: rows that are not M to each prompt, or a mask of another shape.
    """
    response_NxT, mask_NxT = np.asarray(response_NxT, np.int32), np.asarray(mask_NxT, bool)
    num_rows = len(response_NxT)
    if response_NxT.shape != mask_NxT.shape or not num_prompts or not num_rows or num_rows % num_prompts:
        raise ValueError(
            f"information: responses {response_NxT.shape}, mask {mask_NxT.shape}, {num_prompts} examples; "
            "valid: the same shape NxT twice, N a positive multiple of the examples"
        )
    shape = (num_prompts, -1, response_NxT.shape[1])
    return response_NxT.reshape(shape), mask_NxT.reshape(shape)


def render_contexts(
    task: Task, examples: Sequence[Example], response_BxMxT: np.ndarray, mask_BxMxT: np.ndarray
) -> list[np.ndarray]:
    """M + 1 contexts a prompt: with each of its responses shown, then the plain prompt."""
    contexts = []
    for example, responses, masks in zip(examples, response_BxMxT, mask_BxMxT, strict=True):
        contexts += [task.demonstration_prompt(example, row[mask]) for row, mask in zip(responses, masks)]
        contexts.append(task.prompt(example))
    return contexts


def calls(num_contexts: int, per_call: int) -> Iterator[tuple[np.ndarray, range]]:
    """This process's contexts in each call, filled up with 0 to the same number, and the real ones."""
    share = per_call // jax.process_count()
    for start in range(jax.process_index() * share, num_contexts + jax.process_index() * share, per_call):
        index = np.arange(start, start + share)
        yield (
            np.where(index < num_contexts, index, 0),
            range(start, max(min(start + share, num_contexts), start)),
        )
