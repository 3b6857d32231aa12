"""A training step, forward, backward and AdamW: sdd's against Tunix's and transformers', in seconds of CPU.

    python benchmarks/train_step.py [--quick]

``train_step``: cross-entropy of the next token over N rows of S tokens (sdd.steps.sft; Tunix's PeftTrainer;
transformers' LlamaForCausalLM with torch's fused AdamW). ``train_step_distillation``: the full-vocabulary
KL(T||S) to a second network of the same shape, which reads the same tokens (sdd.steps.sdsd with a frozen
teacher; Tunix's DistillationTrainer with its LogitStrategy; torch's kl_div). All in float32 on one core, from
the same weights; before anything is timed, the losses of the first two steps are compared. ``ratio`` is the
other's seconds over sdd's.

``train_step_mfu`` needs no peer: the FLOPs of sdd's first kind of step, 6 a token for each parameter of a
matrix and those of attention's products (of all pairs, seen or not), over its seconds; ``ratio`` is that over
the rate of the step's own matrix products, each of them jitted alone, forward and both backward, weighted by
their FLOPs. Rates are in ``shape``.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import peers
from common.timing import begin, cpu_seconds, report

from sdd.mesh import make_mesh
from sdd.model import Model
from sdd.model import make as make_model
from sdd.settings import MeshConfig, ModelConfig
from sdd.steps import sdsd, sft
from sdd.steps.base import LossBatch, init_state, make_train_step
from sdd.types import Contexts, Rollouts

SHAPE = dict(N=16, S=128)
QUICK = dict(N=4, S=8)
ADAMW = dict(learning_rate=1e-4, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.01)
AGAINST = {
    ("tunix", "train_step"): "Tunix: PeftTrainer",
    ("tunix", "train_step_distillation"): "Tunix: DistillationTrainer with LogitStrategy",
    ("transformers", "train_step"): "transformers: LlamaForCausalLM, torch AdamW(fused)",
    ("transformers", "train_step_distillation"): "transformers: LlamaForCausalLM, kl_div, torch AdamW(fused)",
}
Step = Callable[[], Any]  # takes a step and returns its loss


def sdd_step(model: Model, params: Any, teacher: Any, tokens_NxS: np.ndarray) -> Step:
    """sdd's side: the first token is the context of the others. Without a teacher, cross-entropy."""
    N, S = tokens_NxS.shape
    one_N, mask_NxT = np.ones(N, np.int32), np.ones((N, S - 1), bool)
    context_Nx1, zero_NxT = tokens_NxS[:, :1], np.zeros((N, S - 1), np.float32)
    rollouts = Rollouts(context_Nx1, one_N, tokens_NxS[:, 1:], mask_NxT, zero_NxT, zero_NxT, zero_NxT)
    if teacher is None:
        definition, batch = sft.make(sft.Config()), LossBatch(rollouts, (), None)
    else:
        definition = sdsd.make(sdsd.Config(divergence="forward", teacher="frozen"))
        targets = sdsd.Targets(np.ones((N, 1), np.float32), mask_NxT, ~mask_NxT, np.ones(N, bool))
        batch = LossBatch(rollouts, targets, Contexts(context_Nx1[:, None], one_N[:, None]))
    optimizer = optax.adamw(**ADAMW)
    step = make_train_step(definition, model, optimizer)
    state = init_state(definition, optimizer, jax.tree.map(jnp.copy, params))
    if teacher is not None:
        state = state._replace(teacher=definition.begin(teacher))
    mesh = jax.sharding.get_mesh()
    batch = jax.tree.map(jnp.asarray, batch)

    def call() -> jax.Array:
        nonlocal state
        with jax.set_mesh(mesh):
            state, metrics = step(state, batch)
        return metrics["loss"]

    return call


def tunix_step(student: Any, teacher: Any, tokens_NxS: np.ndarray) -> Step:
    """Tunix's side: what a trainer's loop does with a batch, without its logs."""
    from tunix.distillation import distillation_trainer, strategies
    from tunix.sft import peft_trainer

    N, S = tokens_NxS.shape
    positions_NxS = jnp.broadcast_to(jnp.arange(S), (N, S))
    mask_NxSxS = jnp.broadcast_to(jnp.tril(jnp.ones((S, S), bool)), (N, S, S))
    options = {"eval_every_n_steps": 10**9, "max_steps": None}
    tokens, ones = jnp.asarray(tokens_NxS), jnp.ones((N, S), bool)
    trainer: Any
    if teacher is None:
        trainer = peft_trainer.PeftTrainer(
            student, optax.adamw(**ADAMW), peft_trainer.TrainingConfig(**options)
        )
        trainer = trainer.with_gen_model_input_fn(
            lambda x: {
                "input_tokens": x.input_tokens,
                "input_mask": x.input_mask,
                "positions": positions_NxS,
                "attention_mask": mask_NxSxS,
            }
        )
        batch: Any = peft_trainer.TrainingInput(input_tokens=tokens, input_mask=ones)
    else:

        def forward(model: Any, input_tokens: Any, input_mask: Any) -> Any:
            return model(input_tokens, positions_NxS, None, mask_NxSxS)[0][:, :-1]

        def labels(input_tokens: Any, input_mask: Any) -> Any:
            return jax.nn.one_hot(input_tokens[:, 1:], peers.VOCABULARY)

        strategy = strategies.LogitStrategy(forward, forward, labels, temperature=1.0, alpha=1.0)
        config = distillation_trainer.TrainingConfig(**options)
        trainer = distillation_trainer.DistillationTrainer(
            student, teacher, strategy, optax.adamw(**ADAMW), config
        )
        batch = distillation_trainer.TrainingInput(input_tokens=tokens, input_mask=ones)
    step, _ = trainer.jit_train_and_eval_step(cache_nnx_graph=True)
    return lambda: step(trainer._prepare_inputs(batch))[0]


def torch_step(student: Any, teacher: Any, tokens_NxS: np.ndarray) -> Step:
    """transformers' side."""
    import torch
    from torch.nn import functional

    rate, decay = ADAMW["learning_rate"], ADAMW["weight_decay"]
    betas = (ADAMW["b1"], ADAMW["b2"])
    parameters = student.parameters()
    optimizer = torch.optim.AdamW(parameters, rate, betas, ADAMW["eps"], decay, fused=True)
    tokens = torch.from_numpy(tokens_NxS.astype(np.int64))

    def call() -> np.ndarray:
        optimizer.zero_grad()
        logits = student(tokens, use_cache=False).logits[:, :-1].flatten(0, 1)
        if teacher is None:
            loss = functional.cross_entropy(logits, tokens[:, 1:].flatten())
        else:
            with torch.no_grad():
                taught = teacher(tokens, use_cache=False).logits[:, :-1].flatten(0, 1).log_softmax(-1)
            loss = functional.kl_div(logits.log_softmax(-1), taught, reduction="batchmean", log_target=True)
        loss.backward()
        optimizer.step()
        return np.asarray(loss.detach())

    return call


def flops(config: ModelConfig, N: int, S: int) -> float:
    """Of a training step that reads N rows of S tokens: products with matrices, and attention's two."""
    E, F, L = config.width, config.mlp_dim, config.num_layers
    matrices = L * (2 * E * (config.num_heads + config.num_kv_heads) * config.head_dim + 3 * E * F)
    tokens, attended = N * S, N * S * S * config.num_heads * config.head_dim
    return 6.0 * (matrices + E * peers.VOCABULARY) * tokens + 12.0 * L * attended


def products(config: ModelConfig, tokens: int) -> dict[tuple[int, int], tuple[float, Step]]:
    """(rows, columns) of each matrix -> (FLOPs in a step, its three products, jitted)."""
    E, F, L, heads = config.width, config.mlp_dim, config.num_layers, config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    times = {(E, heads): L, (E, F): 2 * L, (F, E): L, (E, peers.VOCABULARY): 1}
    times[heads, E] = times.get((heads, E), 0) + L
    times[E, keys] = times.get((E, keys), 0) + 2 * L

    def one(rows: int, columns: int) -> Step:
        make = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)  # noqa: E731
        x, w, g = make(0, tokens, rows), make(1, rows, columns), make(2, tokens, columns)
        three = jax.jit(lambda x, w, g: (x @ w, g @ w.T, x.T @ g))
        return lambda: three(x, w, g)

    return {(a, b): (6.0 * tokens * a * b * n, one(a, b)) for (a, b), n in times.items()}


def mfu(config: ModelConfig, step: Step, shape: Mapping[str, int], repetitions: int) -> dict[str, Any]:
    """The line that needs no peer."""
    N, S = shape["N"], shape["S"] - 1  # the last token predicts nothing and is not read
    found = products(config, N * S)
    sides: dict[str, Step] = {"step": step} | {f"{a}x{b}": call for (a, b), (_, call) in found.items()}
    took = cpu_seconds(sides, repetitions)
    work = {f"{a}x{b}": flop for (a, b), (flop, _) in found.items()}
    seconds_a_flop = {
        (a, b): took[f"{a}x{b}"] / (6.0 * N * S * a * b) for a, b in found
    }  # of one such product, whatever their number
    needed = sum(work[f"{a}x{b}"] * seconds_a_flop[a, b] for a, b in found)
    rate = sum(work.values()) / needed
    achieved = flops(config, N, S) / took["step"]
    line_shape = dict(shape) | {
        "achieved_gflops": round(float(np.median(achieved)) / 1e9, 1),
        "matmul_gflops": round(float(np.median(rate)) / 1e9, 1),
    }
    return report("train_step_mfu", "the rate of the step's own matrix products", achieved / rate, line_shape)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures both kinds of step and prints a line for each peer that is installed, and one for none."""
    quick = begin(__doc__, argv)
    shape, config = (QUICK, peers.TINY) if quick else (SHAPE, peers.FULL)
    repetitions = 1 if quick else 7
    here = peers.installed("train_step.py")
    tokens_NxS = (
        np.random.default_rng(0).integers(0, peers.VOCABULARY, (shape["N"], shape["S"])).astype(np.int32)
    )
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        model = make_model(config, peers.VOCABULARY)
        student, other = (model.init(jax.random.key(seed)) for seed in (0, 1))
    for name, teacher in (("train_step", None), ("train_step_distillation", other)):
        with jax.set_mesh(mesh):
            sides = {"sdd": sdd_step(model, student, teacher, tokens_NxS)}
        for peer, build, make in (
            ("tunix", peers.tunix_model, tunix_step),
            ("transformers", peers.torch_model, torch_step),
        ):
            if peer in here:
                taught = None if teacher is None else build(config, teacher)
                sides[peer] = make(build(config, student), taught, tokens_NxS)
        losses = {side: [float(step()) for _ in range(2)] for side, step in sides.items()}
        for side in sides:  # the same numbers before and after an update, or the ratios mean nothing
            np.testing.assert_allclose(losses[side], losses["sdd"], rtol=1e-4)
        took = cpu_seconds(sides, repetitions)
        for peer in here:
            line_shape = shape | {f"{s}_ms": round(1e3 * float(np.median(took[s])), 2) for s in ("sdd", peer)}
            line = report(name, AGAINST[peer, name], took[peer] / took["sdd"], line_shape)
            line["versions"] |= peers.versions(peer)
            print(json.dumps(line), flush=True)
        if teacher is None:
            print(json.dumps(mfu(config, sides["sdd"], shape, repetitions)), flush=True)


if __name__ == "__main__":
    main()
