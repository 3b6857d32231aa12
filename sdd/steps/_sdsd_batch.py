"""What self-distillation takes from a batch, and what it logs beside its loss."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sdd.losses.mean import Mean, masked_mean
from sdd.steps.base import Chosen, Graded, LossBatch
from sdd.tasks.base import Task
from sdd.teacher.context import contexts_with
from sdd.teacher.demos import Demonstrations


class Targets(NamedTuple):
    """Attributes:
    weight_NxK: float32, shares of the K teachers; a row of zeros has none.
    on_path_NxT: bool, tokens whose prefix can still become a right answer.
    off_path_NxT: bool, tokens whose prefix cannot.
    correct_N: bool, the verdicts.
    """

    weight_NxK: np.ndarray
    on_path_NxT: np.ndarray
    off_path_NxT: np.ndarray
    correct_N: np.ndarray


def targets_of(graded: Graded, demos: Demonstrations) -> Targets:
    """What the loss needs of the demonstrations and the verdicts."""
    mask_NxT = np.asarray(graded.rollouts.mask_NxT)
    prefix_Nx1 = graded.grades.right_prefix_N[:, None]
    on_path_NxT = mask_NxT & (np.arange(mask_NxT.shape[1]) <= prefix_Nx1) & (prefix_Nx1 >= 0)
    off_path_NxT = mask_NxT & ~on_path_NxT & (prefix_Nx1 >= 0)
    return Targets(demos.weight_NxK, on_path_NxT, off_path_NxT, graded.grades.correct_N)


def given(
    task: Task, graded: Graded, index_NxK: np.ndarray, demonstration: Callable[[int, int], np.ndarray]
) -> Chosen:
    """What a method with demonstrations from outside the batch decides.

    Args:
      task, graded: as for ``StepDef.choose``.
      index_NxK: numbers of the demonstrations of each rollout, -1 for none.
      demonstration: ``(number of the prompt, number of the demonstration) -> int32 tokens``.
    """
    has_NxK = (index_NxK >= 0).astype(np.float32)
    weight_NxK = has_NxK / np.maximum(has_NxK.sum(axis=1, keepdims=True), 1)
    contexts = contexts_with(task, graded.examples, index_NxK, demonstration)
    rows = {"demo_rows": Mean((weight_NxK.sum(axis=1) > 0).sum(), len(weight_NxK))}
    return Chosen(targets_of(graded, Demonstrations(index_NxK, weight_NxK)), contexts, rows)


def cut_metrics(task: Task, graded: Graded, index_NxK: np.ndarray) -> dict[str, Mean]:
    """How much of the demonstrations did not fit the teacher's prompt: share of them, and mean tokens."""
    shown = np.unique(index_NxK[index_NxK >= 0])
    response_NxT, mask_NxT = graded.rollouts.response_NxT, graded.rollouts.mask_NxT
    cut = np.array([task.demonstration_cut(response_NxT[n][mask_NxT[n]]) for n in shown])
    return {"demo_cut": Mean((cut > 0).sum(), len(cut)), "demo_cut_tokens": Mean(cut.sum(), len(cut))}


def health(tokens: dict[str, jax.Array], batch: LossBatch, taught_N: jax.Array) -> dict[str, Mean]:
    """How well the teacher reads demonstrations: the numbers in which a runaway shows first."""
    weight_NxK, on_NxT, off_NxT, correct_N = batch.targets
    taught_NxT = batch.rollouts.mask_NxT * taught_N[:, None]
    teacher_entropy_NxT = jnp.einsum("ntk,nk->nt", tokens["teacher_entropy_K"], weight_NxK)
    teacher_logp_NxT = jnp.einsum("ntk,nk->nt", tokens["teacher_logp_K"], weight_NxK)
    right_NxT, wrong_NxT = taught_NxT * correct_N[:, None], taught_NxT * ~correct_N[:, None]
    metrics = {
        "divergence": masked_mean(tokens["divergence"], taught_NxT),
        "divergence_on_path": masked_mean(tokens["divergence"], taught_NxT * on_NxT),
        "divergence_off_path": masked_mean(tokens["divergence"], taught_NxT * off_NxT),
        "teacher_entropy": masked_mean(teacher_entropy_NxT, taught_NxT),
        "teacher_entropy_on_path": masked_mean(teacher_entropy_NxT, taught_NxT * on_NxT),
        "teacher_entropy_off_path": masked_mean(teacher_entropy_NxT, taught_NxT * off_NxT),
        "teacher_logp_right": masked_mean(teacher_logp_NxT, right_NxT),
        "teacher_logp_wrong": masked_mean(teacher_logp_NxT, wrong_NxT),
        "taught_student_entropy": masked_mean(tokens["student_entropy"], taught_NxT),
    }
    for name in ("captured_mass", "captured_teacher_mass"):
        if name in tokens:
            metrics[name] = masked_mean(tokens[name], taught_NxT)
    return metrics
