"""Architectures by their makers' names, and from and to the config.json of Hugging Face."""

from collections.abc import Mapping
from typing import Any

from sdd.config import ConfigError
from sdd.lookup import nearest
from sdd.model.families import FAMILIES, Architecture
from sdd.model.hf_export import recognise, to_hf
from sdd.model.hf_import import from_hf

__all__ = ["FAMILIES", "PRESETS", "Architecture", "from_hf", "preset", "recognise", "to_hf"]


def _sizes(layers: int, width: int, heads: int, kv_heads: int, mlp: int, vocab: int) -> dict[str, int]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
        "vocab_size": vocab,
    }


def _llama3(factor: float, tied: bool, **sizes: int) -> dict[str, Any]:
    scaling = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    return {
        "model_type": "llama",
        **sizes,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "rope_scaling": scaling,
        "tie_word_embeddings": tied,
        "max_position_embeddings": 131072,
    }


def _smollm2(theta: float, **sizes: int) -> dict[str, Any]:
    shared = {"rms_norm_eps": 1e-5, "tie_word_embeddings": True, "max_position_embeddings": 8192}
    return {"model_type": "llama", **sizes, "rope_theta": theta, **shared}


def _qwen(model_type: str, length: int, tied: bool, **sizes: int) -> dict[str, Any]:
    shared = {"rope_theta": 1000000.0, "tie_word_embeddings": tied, "max_position_embeddings": length}
    return {"model_type": model_type, **sizes, **shared}


def _olmo(model_type: str, length: int, **sizes: int) -> dict[str, Any]:
    shared = {"rope_theta": 500000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": length}
    return {"model_type": model_type, **sizes, **shared}


_OLMO3_YARN: Mapping[str, Any] = {
    "rope_type": "yarn",
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "beta_fast": 32,
    "beta_slow": 1,
    "attention_factor": 1.2079441541679836,
}
# What the makers' config.json says of the numbers, of their base models where these differ from the others.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "llama-2-7b": {
        "model_type": "llama",
        **_sizes(32, 4096, 32, 32, 11008, 32000),
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 4096,
    },
    "llama-3.1-8b": _llama3(8.0, False, **_sizes(32, 4096, 32, 8, 14336, 128256)),
    "llama-3.2-1b": _llama3(32.0, True, **_sizes(16, 2048, 32, 8, 8192, 128256)),
    "smollm2-135m": _smollm2(100000.0, **_sizes(30, 576, 9, 3, 1536, 49152)),
    "smollm2-360m": _smollm2(100000.0, **_sizes(32, 960, 15, 5, 2560, 49152)),
    "smollm2-1.7b": _smollm2(130000.0, **_sizes(24, 2048, 32, 32, 8192, 49152)),
    "qwen2.5-0.5b": _qwen("qwen2", 32768, True, **_sizes(24, 896, 14, 2, 4864, 151936)),
    "qwen2.5-1.5b": _qwen("qwen2", 131072, True, **_sizes(28, 1536, 12, 2, 8960, 151936)),
    "qwen2.5-7b": _qwen("qwen2", 131072, False, **_sizes(28, 3584, 28, 4, 18944, 152064)),
    "qwen3-0.6b": _qwen("qwen3", 40960, True, **_sizes(28, 1024, 16, 8, 3072, 151936)),
    "qwen3-1.7b": _qwen("qwen3", 40960, True, **_sizes(28, 2048, 16, 8, 6144, 151936)),
    "qwen3-4b": _qwen("qwen3", 40960, True, **_sizes(36, 2560, 32, 8, 9728, 151936)),
    "qwen3-8b": _qwen("qwen3", 40960, False, **_sizes(36, 4096, 32, 8, 12288, 151936)),
    "olmo-2-7b": _olmo("olmo2", 4096, **_sizes(32, 4096, 32, 32, 11008, 100352)),
    "olmo-3-7b": {
        **_olmo("olmo3", 65536, **_sizes(32, 4096, 32, 32, 11008, 100278)),
        "rope_scaling": _OLMO3_YARN,
        "sliding_window": 4096,
    },
    "gemma-2-2b": {"model_type": "gemma2", **_sizes(26, 2304, 8, 4, 9216, 256000)},
    "gemma-3-1b": {
        "model_type": "gemma3_text",
        **_sizes(26, 1152, 4, 1, 6912, 262144),
        "sliding_window": 512,
        "max_position_embeddings": 32768,
    },
    "gemma-3-4b": {
        "model_type": "gemma3_text",
        **_sizes(34, 2560, 8, 4, 10240, 262208),
        "sliding_window": 1024,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
}


def preset(name: str) -> Architecture:
    """The architecture of a published model, without its weights.

    Args:
      name: as "qwen3-8b"; upper and lower case are the same.

    Raises:
      ConfigError: no such name; the line lists the nearest and all.
    """
    values = PRESETS.get(name.lower())
    if values is None:
        near = nearest(name.lower(), PRESETS)
        raise ConfigError(f"preset {name!r}: not known{near}; valid: {', '.join(PRESETS)}")
    return from_hf(values)
