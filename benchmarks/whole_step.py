"""A whole on-policy step of GRPO, sample, grade and update: sdd's against Tunix's learner, in seconds of CPU.

    python benchmarks/whole_step.py [--quick]

B prompts of P tokens with G rollouts each, all T tokens drawn at temperature 1; the reward, on the host, is
the share of even tokens; advantages are divided by the group's standard deviation; one update with AdamW
and no reference. sdd does what a step of its loop does; Tunix's is a global step of its GRPOLearner with an
RLCluster on one device, with ``beta=0`` and one iteration. Both from the same weights, in float32 on one
core. Before anything is timed, the first updates are compared: how many tokens were drawn, and how far the
parameters moved (which tokens, each framework's own randomness decides). ``ratio`` is Tunix's seconds over
sdd's.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import peers
from common.timing import begin, cpu_seconds, report

from sdd.mesh import get_rows, make_mesh, put_rows
from sdd.model import Model
from sdd.model import make as make_model
from sdd.sampling import make as make_sampler
from sdd.settings import MeshConfig, ModelConfig, SamplingConfig
from sdd.steps import grpo
from sdd.steps.base import Graded, LossBatch, init_state, make_train_step
from sdd.types import Grades

SHAPE = dict(B=8, G=8, P=32, T=96)
QUICK = dict(B=2, G=2, P=8, T=4)
RATE = 1e-4


class Side(NamedTuple):
    """Attributes:
    step: takes a whole step and waits for it.
    drawn: tokens of the last step's rollouts.
    embedding: the embedding VxE as it is now.
    end: is called when all is measured.
    """

    step: Callable[[], Any]
    drawn: Callable[[], int]
    embedding: Callable[[], np.ndarray]
    end: Callable[[], None] = lambda: None


def sdd_side(model: Model, params: Any, prompts_BxP: np.ndarray, shape: dict[str, int]) -> Side:
    """What `sdd.loop.train_one` does, with a reward in place of a task's verifier."""
    B, G, P = shape["B"], shape["G"], shape["P"]
    mesh = jax.sharding.get_mesh()
    config = grpo.Config(normalise_advantages=True)
    definition, optimizer = grpo.make(config), optax.adamw(RATE)
    train_step = make_train_step(definition, model, optimizer)
    sampler = make_sampler(model, SamplingConfig(), group_size=G, max_tokens=shape["T"], stop_ids=())
    state = init_state(definition, optimizer, jax.tree.map(jnp.copy, params))
    steps, drawn = 0, 0

    def step() -> jax.Array:
        nonlocal state, steps, drawn
        with jax.set_mesh(mesh):
            host_rows = (prompts_BxP, np.full(B, P, np.int32), np.arange(B * G, dtype=np.int32))
            rows: Any = put_rows(mesh, host_rows)
            rollouts = sampler(state.params, rows[0], rows[1], rows[2], jax.random.key(steps))
            host = get_rows(rollouts)
            score_N = ((host.response_NxT % 2 == 0) & host.mask_NxT).sum(1) / host.mask_NxT.sum(1)
            score_N = score_N.astype(np.float32)
            none_N = np.full(B * G, -1, np.int32)
            grades = Grades(score_N > 0.5, score_N, none_N, none_N)
            chosen = grpo.choose(config, Graded((), host, grades, G, shape["T"]), score_N)
            batch = LossBatch(rollouts, put_rows(mesh, chosen.targets), None)
            state, metrics = train_step(state, batch)
            steps, drawn = steps + 1, int(host.mask_NxT.sum())
        return metrics["loss"]

    return Side(step, lambda: drawn, lambda: np.asarray(state.params["shell"]["embed"]["embedding"]))


class Turns:
    """Batches for a learner that runs its own loop in a thread: it gets the next one when it is its turn."""

    def __init__(self, batch: Callable[[], Any]):
        self.batch, self.go, self.done = batch, threading.Semaphore(0), threading.Semaphore(0)
        self.failed: BaseException | None = None
        self.over = False

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.done.release()
            self.go.acquire()
            if self.over:
                return
            yield self.batch()

    def start(self, run: Callable[[Any], Any]) -> None:
        """Lets ``run`` take batches in a thread, until `end`."""

        def work() -> None:
            try:
                run(self)
            except BaseException as error:
                self.failed = error
                self.done.release()

        threading.Thread(target=work, daemon=True).start()
        self.done.acquire()

    def end(self) -> None:
        """Lets the learner find that there are no more batches; a process does not exit before."""
        self.over = True
        self.go.release()

    def turn(self) -> None:
        """One batch, until the next is asked for."""
        self.go.release()
        self.done.acquire()
        if self.failed is not None:
            raise RuntimeError("Tunix's learner has failed") from self.failed


def tunix_side(config: ModelConfig, actor: Any, prompts_BxP: np.ndarray, shape: dict[str, int]) -> Side:
    """Tunix's learner, its micro-batches as large as the batch."""
    from tunix.rl import rl_cluster
    from tunix.rl.grpo import grpo_learner
    from tunix.rl.rollout import base_rollout

    B, P, T = shape["B"], shape["P"], shape["T"]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    drawn = 0

    def reward(prompts: Any, completions: Sequence[str], **_: Any) -> list[float]:
        nonlocal drawn
        rows = [np.array(peers.Numbers().encode(text)) for text in completions]
        drawn = sum(map(len, rows))
        return [float(np.mean(row % 2 == 0)) for row in rows]

    training = rl_cluster.RLTrainingConfig(
        actor_optimizer=optax.adamw(RATE), eval_every_n_steps=10**9, max_steps=10**9, mini_batch_size=B
    )
    rollout = base_rollout.RolloutConfig(
        max_tokens_to_generate=T,
        max_prompt_length=P,
        kv_cache_size=P + T,
        temperature=1.0,
        top_p=1.0,
        eos_tokens=[peers.VOCABULARY],
    )
    roles = (rl_cluster.Role.ACTOR, rl_cluster.Role.ROLLOUT, rl_cluster.Role.REFERENCE)
    cluster = rl_cluster.RLCluster(
        actor=actor,
        tokenizer=peers.Numbers(),
        cluster_config=rl_cluster.ClusterConfig(
            role_to_mesh=dict.fromkeys(roles, mesh), training_config=training, rollout_config=rollout
        ),
    )
    algorithm = grpo_learner.GRPOConfig(num_generations=shape["G"], num_iterations=1, beta=0.0)
    learner = grpo_learner.GRPOLearner(rl_cluster=cluster, reward_fns=reward, algo_config=algorithm)
    texts = [peers.Numbers().decode(row) for row in prompts_BxP]
    turns = Turns(lambda: {"prompts": np.array(texts, dtype=object)})
    turns.start(learner.train)
    embedding = lambda: np.asarray(cluster.actor_trainer.model.embedder.input_embedding[...])  # noqa: E731
    return Side(turns.turn, lambda: drawn, embedding, turns.end)


def check(sides: dict[str, Side], shape: dict[str, int]) -> None:
    """Takes a step of each: as many tokens, and an update as large, or the ratio means nothing."""
    moved = {}
    for name, side in sides.items():
        before = side.embedding().copy()
        side.step()
        assert side.drawn() == shape["B"] * shape["G"] * shape["T"], (name, side.drawn())
        moved[name] = np.abs(side.embedding() - before).mean()
        assert 0 < moved[name] <= 2 * RATE
    for distance in moved.values():
        np.testing.assert_allclose(distance, moved["sdd"], rtol=0.5)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and prints a line, if Tunix is installed."""
    quick = begin(__doc__, argv)
    shape, config = (QUICK, peers.TINY) if quick else (SHAPE, peers.FULL)
    prompts_BxP = np.random.default_rng(0).integers(0, peers.VOCABULARY, (shape["B"], shape["P"]))
    prompts_BxP = prompts_BxP.astype(np.int32)
    with jax.set_mesh(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])):
        model = make_model(config, peers.VOCABULARY)
        params = model.init(jax.random.key(0))
        sides = {"sdd": sdd_side(model, params, prompts_BxP, shape)}
    if peers.installed("whole_step.py", ("tunix",)):
        sides["tunix"] = tunix_side(config, peers.tunix_model(config, params), prompts_BxP, shape)
    try:
        check(sides, shape)
        if "tunix" not in sides:
            return
        took = cpu_seconds({name: side.step for name, side in sides.items()}, 1 if quick else 7)
    finally:
        for side in sides.values():
            side.end()
    line_shape = shape | {f"{name}_seconds": round(float(np.median(took[name])), 3) for name in sides}
    line = report("whole_step", "Tunix: GRPOLearner", took["tunix"] / took["sdd"], line_shape)
    line["versions"] |= peers.versions("tunix")
    print(json.dumps(line))


if __name__ == "__main__":
    main()
