"""The average moves towards the student, by the right amount; frozen and live do what they say."""

import jax.numpy as jnp
import numpy as np

from sdd.teacher.params import Teacher, after_update, begin, current, ema


def test_ema_moves_from_the_teacher_towards_the_student():
    teacher, student = {"w": jnp.zeros(3)}, {"w": jnp.ones(3)}
    once = ema(teacher, student, 0.9)
    np.testing.assert_allclose(once["w"], 0.1, rtol=1e-6)
    for _ in range(9):
        once = ema(once, student, 0.9)
    np.testing.assert_allclose(once["w"], 1 - 0.9**10, rtol=1e-5)


def test_kinds():
    start, later = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
    live = after_update(begin(start, "live", False), later, "live", 0.5)
    assert live == Teacher((), ()) and current(live, later)["w"][0] == 1
    frozen = after_update(begin(start, "frozen", True), later, "frozen", 0.5)
    assert current(frozen, later)["w"][0] == 0 and frozen.reference["w"][0] == 0
    average = after_update(begin(start, "ema", False), later, "ema", 0.75)
    np.testing.assert_allclose(current(average, later)["w"], 0.25)
    assert begin(start, "ema", True).params["w"] is not start["w"]  # donated apart
