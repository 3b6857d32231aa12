"""Three steps of SDSD on fixed rollouts give the losses that they gave when the file was written.

The other tests check parts against independent truths; this one notices a change of the whole that none of
them sees. After a change of the numbers that is meant (another initialisation, another default of the loss),
and only then, write the file again and say why in the commit:

    SDD_UPDATE_GOLDEN=1 python -m pytest tests/end_to_end/test_golden.py

Tolerance: 1e-4 relative, for other processors and compilers; rollouts are not sampled, since one other token
would change everything after it.
"""

import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from sdd import build
from sdd import mesh as mesh_lib
from sdd.config import OptimizerConfig
from sdd.steps import sdsd
from sdd.steps.base import LossBatch, init_state, make_train_step
from sdd.tasks.base import TRAIN
from sdd.testing import generators, graded_batch, tiny_mesh, tiny_model, tiny_task

GOLDEN = Path(__file__).parents[1] / "golden" / "sdsd_steps.json"
STEPS, B, G = 3, 8, 4


def three_steps():
    task, model, mesh = tiny_task(), tiny_model(), tiny_mesh()
    step = sdsd.make(sdsd.Config(num_demos=2, teacher="ema", ema_decay=0.9))
    optimizer, _ = build.make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=1), STEPS)
    rows = []
    with jax.set_mesh(mesh):
        state = init_state(step, optimizer, model.init(jax.random.key(0)))
        train_step = make_train_step(step, model, optimizer)
        for i in range(STEPS):
            rng = np.random.default_rng(i)
            examples = [task.source(TRAIN)[i * B + b] for b in range(B)]
            answers = [task.supervised(e, rng, G)[0][1] for e in examples]
            graded = graded_batch(task, answers, examples, logp=-1.5)
            chosen = step.choose(task, graded, generators(i, B))
            batch = LossBatch(graded.rollouts, chosen.targets, chosen.contexts)
            state, metrics = train_step(state, mesh_lib.put_rows(mesh, batch))
            rows.append({name: float(metrics[name]) for name in ("loss", "grad_norm")})
    return rows


def test_golden_losses():
    rows = three_steps()
    if os.environ.get("SDD_UPDATE_GOLDEN"):
        GOLDEN.write_text(json.dumps(rows, indent=2) + "\n")
    for found, golden in zip(rows, json.loads(GOLDEN.read_text()), strict=True):
        assert found == pytest.approx(golden, rel=1e-4)
