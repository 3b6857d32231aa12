"""Low-rank adapters (LoRA, 2106.09685): ``W + (alpha / rank) A B`` with W frozen.

Adapters live in the parameters of a model, as ``params["layers"]["lora"]``. Who looks for them finds them
there: the functions here change nothing where there are none, so the rest of sdd needs no switch.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from sdd.config import ConfigError, ModelConfig
from sdd.types import Key, Params

# Kernels of a layer that can be adapted, and the number of their axes that are summed over.
SUMMED = {
    **dict.fromkeys(("attention/q", "attention/k", "attention/v"), 1),
    "attention/o": 2,
    **dict.fromkeys(("mlp/gate", "mlp/up", "mlp/down"), 1),
}


def targets(config: ModelConfig) -> list[str]:
    """The kernels that ``config.lora_targets``, a regular expression, names in full.

    Raises:
      ConfigError: it is none, or names nothing.
    """
    where = f"config.model.lora_targets={config.lora_targets!r}"
    try:
        found = [path for path in SUMMED if re.fullmatch(config.lora_targets, path)]
    except re.error as error:
        raise ConfigError(f"{where}: no regular expression ({error}); valid: attention/(q|v)") from None
    if not found:
        raise ConfigError(f"{where}: names no kernel in full; valid: those of {', '.join(SUMMED)}")
    return found


def plain(config: ModelConfig) -> ModelConfig:
    """The architecture without adapters, as weights of others have it."""
    default = ModelConfig()
    return dataclasses.replace(
        config, lora_rank=0, lora_alpha=default.lora_alpha, lora_targets=default.lora_targets
    )


def add(params: Params, config: ModelConfig, key: Key) -> Params:
    """Parameters with new adapters, where the config asks for them.

    A is drawn as kernels are and B is 0, so that nothing changes yet.
    """
    if not config.lora_rank:
        return params
    adapters: dict[str, dict[str, Params]] = {}
    for i, path in enumerate(targets(config)):
        part, name = path.split("/")
        layers, *shape = params["layers"][part][name]["kernel"].shape
        inner, outer = shape[: SUMMED[path]], shape[SUMMED[path] :]
        draw = jax.random.normal(jax.random.fold_in(key, i), (layers, *inner, config.lora_rank))
        b = jnp.zeros((layers, config.lora_rank, *outer))
        adapters.setdefault(part, {})[name] = {"a": draw / math.sqrt(math.prod(inner)), "b": b}
    scale = jnp.full(config.num_layers, config.lora_alpha / config.lora_rank, jnp.float32)
    return params | {"layers": params["layers"] | {"lora": {"adapters": adapters, "scale": scale}}}


def logical_axes(axes: Mapping[str, Sequence[str | None]]) -> dict[str, tuple[str | None, ...]]:
    """The logical axes of adapters, from those of the kernels: of A the summed axes, of B the others."""
    found: dict[str, tuple[str | None, ...]] = {}
    for path, summed in SUMMED.items():
        kernel = tuple(axes[f"{path}/kernel"])
        found[f"lora/adapters/{path}/a"] = (*kernel[:summed], None)
        found[f"lora/adapters/{path}/b"] = (None, *kernel[summed:])
    return found


def merged_layer(layer: Params) -> Params:
    """A layer's parameters with its adapters added to the kernels."""
    if "lora" not in layer:
        return layer
    plain = {name: value for name, value in layer.items() if name != "lora"}
    for part, kernels in layer["lora"]["adapters"].items():
        for name, factors in kernels.items():
            kernel = plain[part][name]["kernel"]
            product = jnp.tensordot(factors["a"], factors["b"], axes=1)
            added = kernel + (layer["lora"]["scale"] * product).astype(kernel.dtype)
            plain[part] = plain[part] | {name: plain[part][name] | {"kernel": added}}
    return plain


def merged(params: Params) -> Params:
    """Parameters of the same function without adapters: for export, and for averages of the product."""
    return params | {"layers": jax.vmap(merged_layer)(params["layers"])} if has(params) else params


def has(params: Params) -> bool:
    """Whether the parameters of a model have adapters."""
    return isinstance(params, dict) and "lora" in params.get("layers", ())


def split(params: Params) -> tuple[Params, Any]:
    """(what is trained, what is frozen): adapters and the rest, or everything and ``()``."""
    if not has(params):
        return params, ()
    layers = params["layers"]
    frozen = layers | {"lora": {"scale": layers["lora"]["scale"]}}
    return layers["lora"]["adapters"], params | {"layers": frozen}


def join(trained: Params, frozen: Any) -> Params:
    """What `split` took apart."""
    if isinstance(frozen, tuple):
        return trained
    lora = frozen["layers"]["lora"] | {"adapters": trained}
    return frozen | {"layers": frozen["layers"] | {"lora": lora}}


def adapted(params: Params, init: Callable[[Key], Params], key: Key) -> Params:
    """``params`` of a model without adapters, with those that ``init(key)`` draws.

    What else ``init`` draws is dropped by the compiler, and never lies in memory.
    """
    adapters = jax.jit(lambda key: init(key)["layers"]["lora"])(key)
    return params | {"layers": params["layers"] | {"lora": adapters}}
