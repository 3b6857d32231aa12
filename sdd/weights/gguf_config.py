"""A GGUF file's metadata as a config.json of Hugging Face's, so that one place knows what the numbers mean.

What llama.cpp does not write down but knows of an architecture is added here (its `src/llama-model.cpp`):
how local and global layers alternate, Gemma's scale of queries, Llama 3's stretched wavelengths.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sdd.typed import ConfigError

SIZES = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
GEMMA = (*SIZES.values(), "attention.key_length", "attention.sliding_window")
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "llama": tuple(SIZES.values()),
    "qwen2": tuple(SIZES.values()),
    "qwen3": (*SIZES.values(), "attention.key_length"),
    "olmo2": tuple(SIZES.values()),
    "gemma2": (*GEMMA, "attn_logit_softcapping", "final_logit_softcapping"),
    "gemma3": GEMMA,
}
# Layers of the 27 billion parameter models, whose queries are scaled by width / heads.
LARGEST = {"gemma2": 46, "gemma3": 62}
LOCAL_THETA = 10000.0  # of Gemma 3, always
PATTERN = {"gemma2": 2, "gemma3": 6, "olmo2": 4}  # every n-th layer sees everything


def hf_config(
    fields: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], rope_freqs: np.ndarray | None
) -> dict[str, Any]:
    """A config.json that says what a GGUF's metadata says.

    Args:
      fields: metadata by its keys.
      shapes: of the tensors, rows first.
      rope_freqs: what the wavelengths are multiplied by, of ``rope_freqs.weight``; None: not in the file.

    Raises:
      ConfigError: an architecture that is not built here, a key that is missing, or an option that has no
        counterpart.
    """
    kind = str(fields.get("general.architecture", ""))
    if kind not in REQUIRED:
        raise ConfigError(f"general.architecture={kind!r}: valid: {', '.join(REQUIRED)}")
    get = lambda key, default=None: plain(fields.get(f"{kind}.{key}", default))  # noqa: E731
    missing = [f"{kind}.{key}" for key in REQUIRED[kind] if f"{kind}.{key}" not in fields]
    missing += [name for name in ("token_embd.weight",) if name not in shapes]
    if missing:
        raise ConfigError(f"no {', '.join(missing)}; the metadata must say it")
    if get("expert_count", 0):
        raise ConfigError(f"{kind}.expert_count={get('expert_count')}: valid: 0 (no mixture of experts)")
    config = {ours: get(key) for ours, key in SIZES.items()}
    config["num_key_value_heads"] = get("attention.head_count_kv", config["num_attention_heads"])
    for key in ("num_attention_heads", "num_key_value_heads", "intermediate_size"):
        if not isinstance(config[key], int):
            raise ConfigError(f"{key} differs from layer to layer ({config[key]!s:.60}); valid: one number")
    head_dim = get("attention.key_length", config["hidden_size"] // config["num_attention_heads"])
    turning = get("rope.dimension_count", head_dim)
    if turning != head_dim or get("attention.value_length", head_dim) != head_dim:
        raise ConfigError(
            f"{kind}.rope.dimension_count={turning}, {kind}.attention.value_length="
            f"{get('attention.value_length', head_dim)}: valid: {head_dim}, the size of a head"
        )
    config |= {
        "model_type": {"gemma3": "gemma3_text"}.get(kind, kind),
        "vocab_size": shapes["token_embd.weight"][0],
        "head_dim": head_dim,
        "tie_word_embeddings": "output.weight" not in shapes,
        "rope_theta": get("rope.freq_base", 1000000.0 if kind == "gemma3" else 10000.0),
        "rope_scaling": rope_scaling(kind, get, rope_freqs, head_dim),
        "attention_bias": kind != "qwen2" and "blk.0.attn_q.bias" in shapes,
        "hidden_act": "silu",
    }
    return config | family(kind, get, config)


def family(kind: str, get: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """What one architecture adds."""
    added: dict[str, Any] = {}
    window = get("attention.sliding_window", 0)
    if kind in PATTERN and window:
        every = PATTERN[kind]
        flags = get("attention.sliding_window_pattern")
        local = (
            flags
            if isinstance(flags, list)
            else [(i + 1) % every != 0 for i in range(config["num_hidden_layers"])]
        )
        added["sliding_window"] = window
        added["layer_types"] = ["sliding_attention" if x else "full_attention" for x in local]
    elif kind in ("llama", "qwen2", "qwen3") and window:
        raise ConfigError(f"{kind}.attention.sliding_window={window}: valid: none in this architecture")
    if kind == "olmo2" and window:
        added["model_type"] = "olmo3"
    if kind.startswith("gemma"):
        largest = config["num_hidden_layers"] == LARGEST[kind]
        added |= {
            "hidden_activation": "gelu_pytorch_tanh",
            "hidden_act": "gelu_pytorch_tanh",
            "attn_logit_softcapping": get("attn_logit_softcapping"),
            "final_logit_softcapping": get("final_logit_softcapping"),
            "query_pre_attn_scalar": config["hidden_size"] // config["num_attention_heads"]
            if largest
            else config["head_dim"],
        }
    if kind == "gemma3":
        added["rope_local_base_freq"] = LOCAL_THETA
    return added


def rope_scaling(kind: str, get: Any, rope_freqs: np.ndarray | None, head_dim: int) -> dict[str, Any] | None:
    """How wavelengths are stretched, as config.json says it; None: they are not.

    Raises:
      ConfigError: a way of stretching that has no counterpart.
    """
    if rope_freqs is not None:
        return llama3_scaling(rope_freqs, get("rope.freq_base", 10000.0), head_dim)
    scaling = get("rope.scaling.type", "none")
    if scaling == "none":
        return None
    factor = get("rope.scaling.factor", 1.0)
    if scaling == "linear":
        return {"rope_type": "linear", "factor": factor}
    length = get("rope.scaling.original_context_length")
    if scaling == "yarn" and length:
        found = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": length}
        attention = get("rope.scaling.attn_factor") or get("rope.scaling.yarn_attn_factor")
        betas = {name: get(f"rope.scaling.yarn_{name}") for name in ("beta_fast", "beta_slow")}
        found |= {name: value for name, value in betas.items() if value}
        return found | ({"attention_factor": attention} if attention else {})
    raise ConfigError(
        f"{kind}.rope.scaling.type={scaling!r}: valid: none, linear, yarn with original_context_length"
    )


def llama3_scaling(rope_freqs: np.ndarray, theta: float, head_dim: int) -> dict[str, Any]:
    """The numbers of Llama 3's stretching, from what it makes of each wavelength.

    A file keeps the result only. The longest wavelengths are stretched by ``factor`` itself; the other
    numbers are the same in every Llama 3 (1, 4, 8192), and the result is compared with the file's.

    Raises:
      ConfigError: other numbers made it.
    """
    factor, low, high, length = float(rope_freqs.max()), 1.0, 4.0, 8192
    wavelength = 2 * np.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((length / wavelength - low) / (high - low), 0, 1)
    expected = 1 / ((1 - smooth) / factor + smooth)
    if rope_freqs.shape != expected.shape or not np.allclose(rope_freqs, expected, rtol=1e-3):
        raise ConfigError(
            f"rope_freqs.weight: not Llama 3's stretching (factor {factor:g}, low 1, high 4, length 8192); "
            "valid: that one"
        )
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": length,
    }


def plain(value: Any) -> Any:
    """A number of the metadata in plain Python; a float32 as the decimal that it was made from."""
    if isinstance(value, float):
        return float(str(np.float32(value)))
    return value
