"""Families of models: what their members share, and what transformers takes for granted of them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sdd.config import ModelConfig


class Architecture(NamedTuple):
    """A decoder, and what its makers call it.

    Attributes:
      config: the decoder; its max_length is the longest sequence that its makers trained for.
      vocab_size: V, rows of the embedding; may be more than its tokenizer has tokens.
      family: a key of `FAMILIES`.
    """

    config: ModelConfig
    vocab_size: int
    family: str


class Family(NamedTuple):
    """What the models of a family share.

    Attributes:
      model_type: of a config.json with a text model.
      architecture: the class in transformers.
      shared: fields of `ModelConfig`.
      defaults: what transformers takes for keys that a config.json leaves out.
      period: every how many layers one sees everything where layer_types is left out; 0: no such rule.
      nested_rope: whether windowed layers have a rotary embedding of their own.
    """

    model_type: str
    architecture: str
    shared: Mapping[str, Any]
    defaults: Mapping[str, Any]
    period: int = 0
    nested_rope: bool = False


COMMON: Mapping[str, Any] = {
    "num_key_value_heads": None,
    "head_dim": None,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
}
_QWEN: Mapping[str, Any] = {
    "num_key_value_heads": 32,
    "max_position_embeddings": 32768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
_OLMO: Mapping[str, Any] = {"norm_placement": "post", "qk_norm": "projection"}
_GEMMA: Mapping[str, Any] = {"norm_placement": "both", "norm_plus_one": True, "embed_scale": True}
_GEMMA_SIZES: Mapping[str, Any] = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
FAMILIES: Mapping[str, Family] = {
    "llama": Family("llama", "LlamaForCausalLM", {}, {}),
    "mistral": Family(
        "mistral",
        "MistralForCausalLM",
        {},
        {"num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096},
    ),
    "qwen2": Family("qwen2", "Qwen2ForCausalLM", {"attention_bias": True}, _QWEN),
    "qwen3": Family("qwen3", "Qwen3ForCausalLM", {"qk_norm": "head"}, {**_QWEN, "head_dim": 128}),
    "olmo2": Family("olmo2", "Olmo2ForCausalLM", _OLMO, {"rms_norm_eps": 1e-5}),
    "olmo3": Family(
        "olmo3",
        "Olmo3ForCausalLM",
        _OLMO,
        {"rms_norm_eps": 1e-5, "sliding_window": 4096, "rope_theta": 500000.0},
        period=4,
        nested_rope=True,
    ),
    "gemma2": Family(
        "gemma2",
        "Gemma2ForCausalLM",
        _GEMMA,
        {
            **_GEMMA_SIZES,
            "vocab_size": 256000,
            "max_position_embeddings": 8192,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
        period=2,
    ),
    "gemma3": Family(
        "gemma3_text",
        "Gemma3ForCausalLM",
        {**_GEMMA, "qk_norm": "head"},
        {
            **_GEMMA_SIZES,
            "vocab_size": 262208,
            "max_position_embeddings": 131072,
            "rope_theta": 1000000.0,
            "rope_local_base_freq": 10000.0,
        },
        period=6,
        nested_rope=True,
    ),
}
ACTIVATIONS: Mapping[str, str] = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
SIZES: Mapping[str, str] = {
    "num_hidden_layers": "num_layers",
    "hidden_size": "width",
    "num_attention_heads": "num_heads",
    "intermediate_size": "mlp_dim",
}
WINDOWED, WHOLE = "sliding_attention", "full_attention"
