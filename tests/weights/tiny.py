"""Tiny models of every family: their config.json, random tensors by Hugging Face's names, and the truth.

The names and shapes come from transformers (`make_names.py`), the parameters from a naive reading here.
"""

import json
from pathlib import Path

import numpy as np

BASE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LOCAL = ["sliding_attention", "sliding_attention", "full_attention"]
GEMMA = {"tie_word_embeddings": True, "hidden_activation": "gelu_pytorch_tanh", "sliding_window": 5}
CONFIGS = {
    "llama": BASE,
    "smollm2": BASE | {"tie_word_embeddings": True, "model_type": "llama"},
    "mistral": BASE | {"sliding_window": None},
    "qwen2": BASE | {"head_dim": 4, "hidden_size": 16},  # its heads fill the width
    "qwen3": BASE,
    "olmo2": BASE | {"head_dim": 4},
    "olmo3": BASE | {"head_dim": 4, "sliding_window": 5, "layer_types": LOCAL},
    "gemma2": BASE
    | GEMMA
    | {
        "query_pre_attn_scalar": 6,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "gemma3_text": BASE
    | GEMMA
    | {"query_pre_attn_scalar": 6, "rope_local_base_freq": 1000.0, "layer_types": LOCAL},
}
CONFIGS = {name: {"model_type": name} | config for name, config in CONFIGS.items()}
NAMES = Path(__file__).parent / "names.json"


def hf_shapes(family: str) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, as transformers has them."""
    found = json.loads(NAMES.read_text())[family]
    every = {}
    for name, shape in found.items():
        for i in range(CONFIGS[family]["num_hidden_layers"] if "{i}" in name else 1):
            every[name.replace("{i}", str(i))] = tuple(shape)
    return every


def random_tensors(
    shapes: dict[str, tuple[int, ...]], seed: int = 0, dtype=np.float32
) -> dict[str, np.ndarray]:
    """Random numbers under each name; they hold what bfloat16 and float16 hold."""
    rng = np.random.default_rng(seed)
    return {
        name: (np.round(rng.standard_normal(shape) * 64) / 64).astype(np.float32).astype(dtype)
        for name, shape in shapes.items()
    }


def write_folder(folder: Path, family: str, tensors: dict[str, np.ndarray], **changes) -> Path:
    """A folder as transformers saves it, in one file."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[family] | changes))
    save_file(
        {name: np.ascontiguousarray(x) for name, x in tensors.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def truth(family: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters by path, read out one number at a time as the formulas of the layers have them."""
    config = CONFIGS[family]
    L, C = config["num_hidden_layers"], config["head_dim"]
    x = {name: np.asarray(t, np.float32) for name, t in tensors.items()}
    stack = lambda name: np.stack([x[f"model.layers.{i}.{name}"] for i in range(L)])  # noqa: E731
    heads = lambda name: stack(name).shape[1] // C  # noqa: E731
    params = {
        "shell/embed/embedding": x["model.embed_tokens.weight"],
        "shell/final_norm/scale": x["model.norm.weight"],
    }
    if not config["tie_word_embeddings"]:
        params["shell/unembed/kernel"] = x["lm_head.weight"].T
    for part in "qkv":
        w_LOE = stack(f"self_attn.{part}_proj.weight")
        n = heads(f"self_attn.{part}_proj.weight")
        params[f"layers/attention/{part}/kernel"] = np.stack(
            [
                [[[w[h * C + c, e] for c in range(C)] for h in range(n)] for e in range(w.shape[1])]
                for w in w_LOE
            ]
        )
        if family == "qwen2":
            b_LO = stack(f"self_attn.{part}_proj.bias")
            params[f"layers/attention/{part}/bias"] = np.stack([np.split(b, n) for b in b_LO])
    o_LEO = stack("self_attn.o_proj.weight")
    n = o_LEO.shape[2] // C
    params["layers/attention/o/kernel"] = np.stack(
        [[[w[:, h * C + c] for c in range(C)] for h in range(n)] for w in o_LEO]
    )
    for ours in ("gate", "up", "down"):
        params[f"layers/mlp/{ours}/kernel"] = np.stack([w.T for w in stack(f"mlp.{ours}_proj.weight")])
    if family in ("qwen3", "gemma3_text", "olmo2", "olmo3"):
        for part in "qk":
            scale_L = stack(f"self_attn.{part}_norm.weight")
            if family.startswith("olmo"):
                scale_L = np.stack([np.split(s, s.size // C) for s in scale_L])
            params[f"layers/attention/{part}_norm/scale"] = scale_L
    for ours, theirs in NORMS[family].items():
        params[f"layers/{ours}/scale"] = stack(f"{theirs}.weight")
    return params


# As the forward passes of transformers use them (modeling_llama.py, modeling_olmo2.py, modeling_gemma2.py).
LLAMA_NORMS = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
OLMO_NORMS = {
    "attention_post_norm": "post_attention_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
GEMMA_NORMS = {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}
NORMS = {
    **dict.fromkeys(("llama", "smollm2", "mistral", "qwen2", "qwen3"), LLAMA_NORMS),
    **dict.fromkeys(("olmo2", "olmo3"), OLMO_NORMS),
    **dict.fromkeys(("gemma2", "gemma3_text"), GEMMA_NORMS),
}
