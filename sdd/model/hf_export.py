"""A decoder's configuration as a config.json that transformers loads."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from sdd.config import ConfigError, ModelConfig
from sdd.model.families import ACTIVATIONS, FAMILIES, SIZES, WHOLE, WINDOWED, Architecture, Family
from sdd.model.hf_import import from_hf, shortest_pattern

# Fields that a config.json need not repeat; adapters are merged before they are written.
FREE = ("remat", "compute_dtype", "max_length", "lora_rank", "lora_alpha", "lora_targets")
ANY_LENGTH = 32768  # what a file says whose max_length is 0


def to_hf(architecture: Architecture) -> dict[str, Any]:
    """Writes a config.json; `from_hf` of it gives the same decoder.

    The rotary embedding is spelled in both ways, so that transformers 4 and 5 read it. Token ids and the
    weights' dtype are for the caller to add.

    Raises:
      ConfigError: the family has no such model: one line with the fields, and what they would have to be.
    """
    config, family = architecture.config, FAMILIES[architecture.family]
    activation = "hidden_activation" if "hidden_activation" in family.defaults else "hidden_act"
    spelled = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    values: dict[str, Any] = {
        "architectures": [family.architecture],
        "model_type": family.model_type,
        "vocab_size": architecture.vocab_size,
        **{theirs: getattr(config, ours) for theirs, ours in SIZES.items()},
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        activation: spelled[config.activation],
        "max_position_embeddings": config.max_length or ANY_LENGTH,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tied_embeddings,
        **_windows(config, family),
        **_rope(config, family),
    }
    if family.model_type in ("llama", "qwen3", "olmo2", "olmo3", "gemma2", "gemma3_text"):
        values["attention_bias"] = False
    if "query_pre_attn_scalar" in family.defaults:
        scalar = (config.attention_scale or config.head_dim**-0.5) ** -2
        values["query_pre_attn_scalar"] = round(scalar)  # transformers takes whole numbers alone
        values["final_logit_softcapping"] = config.final_softcap or None
        if family.model_type == "gemma2":
            values["attn_logit_softcapping"] = config.attention_softcap or None
    wrong = _differences(config, from_hf(values).config)
    if wrong:
        raise ConfigError(f"a model of the family {architecture.family} cannot have {'; '.join(wrong)}")
    return values


def recognise(config: ModelConfig, vocab_size: int) -> Architecture:
    """The family that a decoder belongs to, for example of a model that was trained here from the start.

    Raises:
      ConfigError: there is none; the line says what stands in the way in the nearest one.
    """
    errors = []
    for name in FAMILIES:
        architecture = Architecture(config, vocab_size, name)
        try:
            to_hf(architecture)
        except ConfigError as error:
            errors.append(str(error))
        else:
            return architecture
    raise ConfigError(f"transformers has no such model; nearest: {min(errors, key=lambda e: e.count(';'))}")


def every_window(config: ModelConfig) -> list[int]:
    """The windows of all layers; 0: none."""
    pattern = config.windows or (0,)
    return [pattern[i % len(pattern)] for i in range(config.num_layers)]


def _windows(config: ModelConfig, family: Family) -> dict[str, Any]:
    if "sliding_window" not in family.defaults:
        return {}
    windows = every_window(config)
    if family.model_type == "mistral":
        return {"sliding_window": min(windows) or None}
    kinds = {"layer_types": [WINDOWED if window else WHOLE for window in windows]}
    window = {"sliding_window": max(windows) or None}
    if "use_sliding_window" in family.defaults:  # from max_window_layers on; layer_types says the same
        first = next((i for i, w in enumerate(windows) if w), config.num_layers)
        return {"use_sliding_window": any(windows), "max_window_layers": first, **window, **kinds}
    return {**window, **kinds}


def _rope(config: ModelConfig, family: Family) -> dict[str, Any]:
    scaling = _scaling(config)
    theta = config.rope_theta
    whole = {"rope_type": "default", **(scaling or {}), "rope_theta": theta}
    old = {"rope_theta": theta, "rope_scaling": scaling}
    if not family.nested_rope:
        return {**old, "rope_parameters": whole}
    local_theta = config.rope_local_theta or theta
    if family.model_type == "gemma3_text":
        old["rope_local_base_freq"] = local_theta
    return {
        **old,
        "rope_parameters": {WHOLE: whole, WINDOWED: {"rope_type": "default", "rope_theta": local_theta}},
    }


def _scaling(config: ModelConfig) -> dict[str, Any] | None:
    if config.rope_scaling == "none":
        return None
    scaling: dict[str, Any] = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling == "linear":
        return scaling
    scaling["original_max_position_embeddings"] = config.rope_original_length
    if config.rope_scaling == "llama3":
        names: Sequence[str] = ("low_freq_factor", "high_freq_factor")
    else:
        names = ("beta_fast", "beta_slow", *(["attention_factor"] if config.rope_attention_factor else []))
    return scaling | {name: getattr(config, f"rope_{name}") for name in names}


def _differences(config: ModelConfig, written: ModelConfig) -> list[str]:
    ours, theirs = (dataclasses.asdict(_canonical(c)) for c in (config, written))
    names = [name for name in ours if name not in FREE and ours[name] != theirs[name]]
    return [f"{name}={ours[name]!r} (valid: {theirs[name]!r})" for name in names]


def _canonical(config: ModelConfig) -> ModelConfig:
    """Two ways to say the same, said in one."""
    return dataclasses.replace(
        config,
        windows=shortest_pattern(every_window(config)),
        attention_scale=config.attention_scale or config.head_dim**-0.5,
    )
