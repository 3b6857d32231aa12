"""Which values of a config are in range, and which fit each other."""

import dataclasses
import math
from typing import Any, NamedTuple

from sdd.typed import ConfigError


class Range(NamedTuple):
    """Numbers from ``low`` to ``high``; an open end is not part of it."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether the value lies in the range."""
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low = f"more than {self.low}" if self.open_low else f"{self.low} or more"
        if self.high == math.inf:
            return low
        return f"{low} and {'less than' if self.open_high else 'at most'} {self.high}"


COUNT = Range(1)
OPTIONAL = Range(0)
POSITIVE = Range(0, open_low=True)
SHARE = Range(0, 1)
POSITIVE_SHARE = Range(0, 1, open_low=True)
DECAY = Range(0, 1, open_high=True)

_FILTERS = {"temperature": OPTIONAL, "top_k": OPTIONAL, "top_p": POSITIVE_SHARE, "min_p": SHARE}

RANGES = {
    "model": {
        **dict.fromkeys(("num_layers", "width", "num_heads", "num_kv_heads", "head_dim", "mlp_dim"), COUNT),
        **dict.fromkeys(("rope_theta", "norm_eps"), POSITIVE),
        **dict.fromkeys(("rope_low_freq_factor", "rope_high_freq_factor"), POSITIVE),
        **dict.fromkeys(("rope_beta_fast", "rope_beta_slow"), POSITIVE),
        **dict.fromkeys(("rope_local_theta", "rope_original_length", "rope_attention_factor"), OPTIONAL),
        **dict.fromkeys(("attention_scale", "attention_softcap", "final_softcap", "max_length"), OPTIONAL),
        **dict.fromkeys(("lora_rank", "attention_block"), OPTIONAL),
        "lora_alpha": POSITIVE,
        "rope_fraction": SHARE,
        "rope_factor": Range(1),
    },
    "sampling": {**_FILTERS, "slots": OPTIONAL},
    "optimizer": {
        **dict.fromkeys(("learning_rate", "warmup_steps", "weight_decay", "clip_norm"), OPTIONAL),
        **dict.fromkeys(("b1", "b2"), DECAY),
        "eps": POSITIVE,
    },
    "train": {
        **dict.fromkeys(("num_steps", "prompts_per_step", "group_size", "updates_per_batch"), COUNT),
        "micro_batches": COUNT,
        "async_steps": SHARE,
        **dict.fromkeys(("keep_checkpoints", "max_skipped_in_a_row", "log_every"), COUNT),
        "checkpoint_every": OPTIONAL,
    },
    "eval": {
        **dict.fromkeys(("num_prompts", "num_samples", "final_num_prompts", "final_num_samples"), COUNT),
        **dict.fromkeys(("rows_per_call", "bootstrap"), COUNT),
        **_FILTERS,
        **dict.fromkeys(("every", "likelihood_samples"), OPTIONAL),
    },
}

SEED = Range(0, 2**32 - 1)  # jax.random.key drops higher bits, so other seeds would repeat these


def check_ranges(run: Any, root: str) -> None:
    """Refuses values out of range and values that do not fit each other.

    Args:
      run: a `sdd.config.RunConfig`.
      root: what dotted keys in errors begin with.

    Raises:
      ConfigError: one line with key, value and what is valid.
    """
    _in_range(f"{root}.seed", run.seed, SEED)
    check_model(run.model, f"{root}.model")
    for section, fields in RANGES.items():
        for name, valid in fields.items():
            _in_range(f"{root}.{section}.{name}", getattr(getattr(run, section), name), valid)
    _check_mesh(run.mesh, f"{root}.mesh")
    if any(dataclasses.astuple(run.mesh.sampling)):  # all 0: as in training
        _check_mesh(run.mesh.sampling, f"{root}.mesh.sampling")
    _check_eval(run.eval, f"{root}.eval")
    updates = run.train.num_steps * run.train.updates_per_batch
    if run.optimizer.warmup_steps > updates:
        raise ConfigError(
            f"{root}.optimizer.warmup_steps={run.optimizer.warmup_steps}: the run has {updates} updates "
            f"({root}.train.num_steps={run.train.num_steps}); valid: 0 to {updates}"
        )


def _in_range(key: str, value: float, valid: Range) -> None:
    if not valid.holds(value):
        raise ConfigError(f"{key}={value!r}: valid: {valid}")


def check_model(model: Any, path: str) -> None:
    """`check_ranges` for a decoder alone.

    Args:
      model: a `sdd.config.ModelConfig`.
      path: what dotted keys in errors begin with.

    Raises:
      ConfigError: one line with key, value and what is valid.
    """
    for name, valid in RANGES["model"].items():
        _in_range(f"{path}.{name}", getattr(model, name), valid)
    if model.num_heads % model.num_kv_heads:
        divisors = [n for n in range(1, model.num_heads + 1) if model.num_heads % n == 0]
        near = min(divisors, key=lambda n: abs(n - model.num_kv_heads))
        raise ConfigError(
            f"{path}.num_kv_heads={model.num_kv_heads}: it must divide {path}.num_heads={model.num_heads}; "
            f"nearest: {near}; valid: {', '.join(map(str, divisors))}"
        )
    for i, window in enumerate(model.windows):
        if window < 0:
            raise ConfigError(f"{path}.windows[{i}]={window}: valid: 1 or more tokens, or 0 (no window)")
    if len(model.windows) > model.num_layers:
        raise ConfigError(
            f"{path}.windows={model.windows}: {len(model.windows)} windows for {path}.num_layers="
            f"{model.num_layers}; valid: a pattern of at most {model.num_layers}"
        )
    if model.rope_local_theta and not any(model.windows):
        raise ConfigError(
            f"{path}.rope_local_theta={model.rope_local_theta}: no layer has a window; "
            f"valid: 0, or {path}.windows with an entry above 0"
        )
    _check_rope_scaling(model, path)


def _check_rope_scaling(model: Any, path: str) -> None:
    if model.rope_scaling in ("llama3", "yarn") and not model.rope_original_length:
        raise ConfigError(
            f"{path}.rope_original_length=0: {path}.rope_scaling={model.rope_scaling!r} needs it; "
            "valid: 1 or more"
        )
    # (scaling, the lower number, the higher number): equal ones would divide by zero
    pairs = (
        ("llama3", "rope_low_freq_factor", "rope_high_freq_factor"),
        ("yarn", "rope_beta_slow", "rope_beta_fast"),
    )
    for scaling, low, high in pairs:
        if model.rope_scaling == scaling and getattr(model, low) >= getattr(model, high):
            raise ConfigError(
                f"{path}.{low}={getattr(model, low)}: valid: less than {path}.{high}={getattr(model, high)}"
            )


def _check_mesh(mesh: Any, path: str) -> None:
    sizes = {"data": mesh.data, "fsdp": mesh.fsdp, "tensor": mesh.tensor}
    for name, size in sizes.items():
        if size != -1 and size < 1:
            raise ConfigError(f"{path}.{name}={size}: valid: 1 or more, or -1 (what the others leave)")
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1:
        raise ConfigError(f"{path}.{free[1]}=-1: {path}.{free[0]} is -1 too; valid: at most one -1")


def _check_eval(evaluation: Any, path: str) -> None:
    least = min(evaluation.num_samples, evaluation.final_num_samples)
    for i, k in enumerate(evaluation.ks):
        if not 1 <= k <= least:
            raise ConfigError(
                f"{path}.ks[{i}]={k}: valid: 1 to {least}, the smaller of num_samples="
                f"{evaluation.num_samples} and final_num_samples={evaluation.final_num_samples}"
            )
    for name in ("num_samples", "final_num_samples"):
        n = getattr(evaluation, name)
        if evaluation.rows_per_call < n:
            raise ConfigError(
                f"{path}.rows_per_call={evaluation.rows_per_call}: a prompt has {path}.{name}={n} rollouts; "
                f"valid: {n} or more"
            )
    asked = evaluation.likelihood_samples
    if asked and not 2 <= asked <= least:
        raise ConfigError(
            f"{path}.likelihood_samples={asked}: valid: 0, or 2 to {least}, the smaller of num_samples="
            f"{evaluation.num_samples} and final_num_samples={evaluation.final_num_samples}"
        )
    for i, split in enumerate(evaluation.splits):
        if split in evaluation.splits[:i]:
            raise ConfigError(f"{path}.splits[{i}]={split!r}: it is there twice; valid: each split once")
