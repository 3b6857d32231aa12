"""What a config.json of Hugging Face's says, as a configuration of the one decoder."""

from collections.abc import Mapping, Sequence
from typing import Any

from sdd.config import ConfigError, ModelConfig
from sdd.lookup import nearest
from sdd.model.families import ACTIVATIONS, COMMON, FAMILIES, SIZES, WHOLE, WINDOWED, Architecture, Family
from sdd.ranges import check_model


def from_hf(values: Mapping[str, Any]) -> Architecture:
    """Reads the config.json of a model.

    Both spellings of the rotary embedding are understood, ``rope_parameters`` (transformers 5) and
    ``rope_theta`` with ``rope_scaling``; keys that are left out have the value that transformers gives
    them. Of a model of text and images, the text model is read.

    Args:
      values: the file's content.

    Raises:
      ConfigError: a model_type or an option that is not built here, or a value that cannot be: one line
        with the key, its value and what is valid.
    """
    name, values = _family(values)
    family = FAMILIES[name]
    values = {**COMMON, **family.defaults, **values}
    sizes = {ours: _number(values, theirs, int) for theirs, ours in SIZES.items()}
    head_dim = _number(values, "head_dim", int, sizes["width"] // max(sizes["num_heads"], 1))
    _refuse_options(name, values)
    activation = "hidden_activation" if "hidden_activation" in family.defaults else "hidden_act"
    if values[activation] not in ACTIVATIONS:
        raise ConfigError(f"{activation}={values[activation]!r}: valid: {', '.join(ACTIVATIONS)}")
    windows = _windows(name, values, sizes["num_layers"])
    gemma = "query_pre_attn_scalar" in family.defaults
    scalar = _number(values, "query_pre_attn_scalar", float) if gemma else head_dim
    config = ModelConfig(
        **sizes,
        head_dim=head_dim,
        num_kv_heads=_number(values, "num_key_value_heads", int, sizes["num_heads"]),
        **_rope(family, values, windows),
        windows=windows,
        attention_scale=0.0 if scalar == head_dim else scalar**-0.5,
        attention_softcap=_number(values, "attn_logit_softcapping", float, 0.0) if gemma else 0.0,
        final_softcap=_number(values, "final_logit_softcapping", float, 0.0) if gemma else 0.0,
        norm_eps=_number(values, "rms_norm_eps", float),
        activation=ACTIVATIONS[values[activation]],  # type: ignore[arg-type]
        tied_embeddings=bool(values["tie_word_embeddings"]),
        max_length=_number(values, "max_position_embeddings", int),
        **family.shared,
    )
    check_model(config, name)
    return Architecture(config, _number(values, "vocab_size", int), name)


def shortest_pattern(windows: Sequence[int]) -> tuple[int, ...]:
    """The shortest pattern that, repeated, gives the windows of all layers; () where none has one."""
    if not any(windows):
        return ()
    repeats = lambda p: all(w == windows[i % p] for i, w in enumerate(windows))  # noqa: E731
    return tuple(windows[: next(p for p in range(1, len(windows) + 1) if repeats(p))])


def _family(values: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The family's name, and the part of the file that describes its text model."""
    kind = values.get("model_type")
    if kind == "gemma3":
        text = values.get("text_config")
        if not isinstance(text, Mapping):
            raise ConfigError(
                f"text_config={text!r}: valid: an object, the text model of model_type='gemma3'"
            )
        return "gemma3", text
    kinds = {family.model_type: name for name, family in FAMILIES.items()}
    if kind not in kinds:
        near = nearest(str(kind), [*kinds, "gemma3"])
        raise ConfigError(
            f"model_type={kind!r}: not built here{near}; valid: {', '.join([*kinds, 'gemma3'])}"
        )
    return kinds[kind], values


def _refuse_options(name: str, values: Mapping[str, Any]) -> None:
    """Refuses options that change the numbers and are not built here."""
    off: tuple[Any, ...] = (None, False)
    valid: dict[str, tuple[Any, ...]] = {
        "mlp_bias": off,
        "use_bidirectional_attention": off,
        "partial_rotary_factor": (None, 1.0),
    }
    if name != "qwen2":  # which has a bias anyhow, and none at the output; the others would have one there
        valid["attention_bias"] = off
    if name == "gemma3":  # transformers reads it and does not use it
        valid["attn_logit_softcapping"] = (None,)
    for key, allowed in valid.items():
        if values.get(key) not in allowed:
            raise ConfigError(
                f"{key}={values[key]!r}: not built here for model_type={values['model_type']!r}; "
                f"valid: {' or '.join(map(str, allowed))}"
            )


def _windows(name: str, values: Mapping[str, Any], num_layers: int) -> tuple[int, ...]:
    """The pattern of windows over the layers."""
    family, window = FAMILIES[name], values.get("sliding_window")
    if "sliding_window" not in family.defaults or not values.get("use_sliding_window", True):
        return ()
    if name == "mistral":
        return () if window is None else (_number(values, "sliding_window", int),)
    kinds = values.get("layer_types")
    if kinds is None and family.period:
        period = (
            values.get("sliding_window_pattern") or values.get("_sliding_window_pattern") or family.period
        )
        kinds = [WINDOWED if (i + 1) % period else WHOLE for i in range(num_layers)]
    elif kinds is None:
        first = _number(values, "max_window_layers", int)
        kinds = [WINDOWED if i >= first else WHOLE for i in range(num_layers)]
    if len(kinds) != num_layers:
        raise ConfigError(f"layer_types: {len(kinds)} entries; valid: num_hidden_layers={num_layers}")
    for i, kind in enumerate(kinds):
        if kind not in (WINDOWED, WHOLE):
            raise ConfigError(f"layer_types[{i}]={kind!r}: valid: {WINDOWED}, {WHOLE}")
    if WINDOWED not in kinds:
        return ()
    window = _number(values, "sliding_window", int)
    return shortest_pattern([window if kind == WINDOWED else 0 for kind in kinds])


def _rope(family: Family, values: Mapping[str, Any], windows: Sequence[int]) -> dict[str, Any]:
    """The fields of the rotary embedding."""
    old, new = values.get("rope_scaling") or {}, values.get("rope_parameters") or {}
    theta = _number(values, "rope_theta", float)
    if not family.nested_rope:
        stretch = _stretch(old or new, values)
        return {"rope_theta": _number({**new, **old}, "rope_theta", float, theta), **stretch}
    if new and not {WHOLE, WINDOWED} & set(new):
        raise ConfigError(
            f"rope_parameters={dict(new)!r}: valid for model_type={values['model_type']!r}: an object with "
            f"{WHOLE} and {WINDOWED}"
        )
    whole, local = {**(new.get(WHOLE) or {}), **old}, new.get(WINDOWED) or {}
    stretch = _stretch(whole, values)
    if _stretch(local, values):
        raise ConfigError(f"rope_parameters.{WINDOWED}={dict(local)!r}: valid: rope_type='default'")
    local_theta = _number(local, "rope_theta", float, _number(values, "rope_local_base_freq", float, theta))
    theta = _number(whole, "rope_theta", float, theta)
    own = any(windows) and (local_theta != theta or bool(stretch))
    return {"rope_theta": theta, "rope_local_theta": local_theta if own else 0.0, **stretch}


def _stretch(rope: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `ModelConfig` that say how wavelengths were stretched; empty where they were not."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if rope.get("partial_rotary_factor") not in (None, 1.0):
        raise ConfigError(
            f"partial_rotary_factor={rope['partial_rotary_factor']!r}: not built here; valid: 1.0"
        )
    if kind == "default":
        return {}
    if kind not in ("linear", "llama3", "yarn"):
        raise ConfigError(f"rope_type={kind!r}: not built here; valid: default, linear, llama3, yarn")
    fields = {"rope_scaling": kind, "rope_factor": _number(rope, "factor", float)}
    if kind == "linear":
        return fields
    length = _number(values, "max_position_embeddings", int)
    fields["rope_original_length"] = _number(rope, "original_max_position_embeddings", int, length)
    if kind == "llama3":
        names = ("low_freq_factor", "high_freq_factor")
        return fields | {f"rope_{name}": _number(rope, name, float) for name in names}
    for key, allowed in (("mscale", (None, 0)), ("mscale_all_dim", (None, 0)), ("truncate", (None, True))):
        if rope.get(key) not in allowed:
            raise ConfigError(
                f"{key}={rope[key]!r}: not built here for rope_type='yarn'; valid: {allowed[1]}"
            )
    return fields | {
        "rope_beta_fast": _number(rope, "beta_fast", float, 32.0),
        "rope_beta_slow": _number(rope, "beta_slow", float, 1.0),
        "rope_attention_factor": _number(rope, "attention_factor", float, 0.0),
    }


def _number(values: Mapping[str, Any], key: str, kind: type, default: Any = None) -> Any:
    """A number of the file; where it is null or left out, the default."""
    value = values.get(key)
    if value is None:
        value = default
    whole = isinstance(value, int) and not isinstance(value, bool)
    if whole or (kind is float and isinstance(value, float)):
        return kind(value)
    words = "a whole number" if kind is int else "a number"
    raise ConfigError(
        f"{key}={value!r}: valid: {words}" if key in values else f"{key}: no value; valid: {words}"
    )
