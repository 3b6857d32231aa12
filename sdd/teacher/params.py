"""The teacher's parameters: live, an average of the student's, or frozen at the start."""

from typing import Literal, NamedTuple

import jax

from sdd.types import Params

Kind = Literal["live", "ema", "frozen"]


class Teacher(NamedTuple):
    """What a self-distillation step keeps beside the student; part of the checkpoint.

    Attributes:
      params: the teacher's own parameters; ``()`` when it is the live student.
      reference: the parameters at the start, for a trust region; ``()`` without one.
    """

    params: Params | tuple[()]
    reference: Params | tuple[()]


def begin(params: Params, kind: Kind, with_reference: bool) -> Teacher:
    """The teacher before the first step: the student itself."""

    def copy():  # a buffer each: the training step donates them separately
        return jax.tree.map(lambda x: x.copy(), params)

    return Teacher(() if kind == "live" else copy(), copy() if with_reference else ())


def ema(average: Params, params: Params, decay: float) -> Params:
    """``average <- decay * average + (1 - decay) * params``, in the average's own precision."""
    return jax.tree.map(lambda a, p: a + (1.0 - decay) * (p.astype(a.dtype) - a), average, params)


def after_update(teacher: Teacher, params: Params, kind: Kind, decay: float) -> Teacher:
    """The teacher after an update of the student."""
    return teacher._replace(params=ema(teacher.params, params, decay)) if kind == "ema" else teacher


def current(teacher: Teacher, params: Params) -> Params:
    """The parameters that teach, cut off from the gradient."""
    return jax.lax.stop_gradient(params if teacher.params == () else teacher.params)
