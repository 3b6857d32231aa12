"""Writes families.json: logits of tiny models of every family, as transformers computes them.

    python tests/golden/models/make.py

Needs torch and transformers; only after a change of CASES or `weights`, and then say why in the commit.
The weights come from a seed and the names in the decoder's tree of parameters, so only logits are stored.
`tests/model/test_golden_families.py` compares the decoder with them; `tests/parity/` compares more, where
torch and transformers are installed.
"""

import json
import zlib
from pathlib import Path

import jax
import numpy as np

from sdd.model import make as make_model
from sdd.model.presets import from_hf
from sdd.sampling.loop import left_padded_positions
from sdd.testing import tiny_mesh

GOLDEN = Path(__file__).with_name("families.json")
VOCAB, LENGTHS, P, T = 40, (21, 9), 21, 8  # prompts on P columns, then T more tokens
SHOWN = (P - 1, P + T - 1)  # columns whose logits are stored

# Odd on purpose: fewer kv heads than heads, heads not width / heads wide, windows shorter than prompts.
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 24,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 64,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"factor": 4.0, "original_max_position_embeddings": 16, "beta_fast": 4.0}
CASES = {
    "llama2": {**SIZES, "model_type": "llama", "rms_norm_eps": 1e-5},
    "llama3": {
        **SIZES,
        "model_type": "llama",
        "tie_word_embeddings": True,
        "rope_theta": 500.0,
        "rope_scaling": {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": 32},
    },
    "smollm2": {
        **SIZES,
        "model_type": "llama",
        "tie_word_embeddings": True,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "rope_theta": 100000.0,
    },
    "mistral": {**SIZES, "model_type": "mistral", "sliding_window": 6},
    "qwen2.5": {**SIZES, "model_type": "qwen2", "tie_word_embeddings": True, "rope_theta": 1000000.0},
    "qwen2.5_windows": {
        **SIZES,
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 6,
        "max_window_layers": 1,
        "rope_theta": 50.0,  # so that the ramp of yarn goes over several pairs of dimensions
        "rope_scaling": {"type": "yarn", **YARN, "original_max_position_embeddings": 64},
    },
    "qwen3": {**SIZES, "model_type": "qwen3", "rope_theta": 1000000.0},
    "olmo2": {**SIZES, "model_type": "olmo2", "rope_theta": 500000.0},
    "olmo3": {
        **SIZES,
        "model_type": "olmo3",
        "num_hidden_layers": 5,
        "sliding_window": 5,
        "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "yarn", **YARN},
    },
    "gemma2": {
        **SIZES,
        "model_type": "gemma2",
        "sliding_window": 5,
        "query_pre_attn_scalar": 7,
        "attn_logit_softcapping": 4.0,
        "final_logit_softcapping": 6.0,
    },
    "gemma3": {
        **SIZES,
        "model_type": "gemma3_text",
        "num_hidden_layers": 7,
        "sliding_window": 5,
        "query_pre_attn_scalar": 7,
        "rope_local_base_freq": 50.0,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    },
}
PRE = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
POST = {"attention_post_norm": "post_attention_layernorm", "mlp_post_norm": "post_feedforward_layernorm"}
BOTH = {**PRE, **POST, "mlp_norm": "pre_feedforward_layernorm"}


def build(values):
    """The decoder of a config.json, and its parameters as numpy arrays; call it under a mesh."""
    architecture = from_hf(values)
    model = make_model(architecture.config, architecture.vocab_size)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    return model, weights(shapes, architecture.config.norm_plus_one)


def weights(shapes, norm_plus_one):
    """Parameters of an ordinary size for the given shapes; each depends on its name alone."""

    def one(path, x):
        name = "/".join(p.key for p in path)
        value = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(x.shape)
        if name.endswith("scale"):
            value = 0.3 * value + (not norm_plus_one)
        elif name.endswith("kernel"):
            fan_in = np.prod(x.shape[1:-1]) if "/o/" in name else x.shape[name.startswith("layers")]
            value *= 1.3 * fan_in**-0.5
        return value.astype(np.float32)

    return jax.tree_util.tree_map_with_path(one, shapes)


def state_dict(params, config):
    """The parameters by the names and in the layout of transformers."""
    shell, layers = params["shell"], params["layers"]
    state = {
        "model.embed_tokens.weight": shell["embed"]["embedding"],
        "model.norm.weight": shell["final_norm"]["scale"],
    }
    state["lm_head.weight"] = (
        shell["unembed"]["kernel"].T if "unembed" in shell else shell["embed"]["embedding"]
    )
    norms = {"pre": PRE, "post": POST, "both": BOTH}[config.norm_placement]
    for i in range(config.num_layers):
        base = f"model.layers.{i}"
        for name, part in layers["attention"].items():
            if name.endswith("norm"):
                state[f"{base}.self_attn.{name}.weight"] = part["scale"][i].reshape(-1)
                continue
            kernel = part["kernel"][i]
            rows = kernel.reshape(-1, config.width) if name == "o" else kernel.reshape(config.width, -1)
            state[f"{base}.self_attn.{name}_proj.weight"] = rows.T
            if "bias" in part:
                state[f"{base}.self_attn.{name}_proj.bias"] = part["bias"][i].reshape(-1)
        for name in ("gate", "up", "down"):
            state[f"{base}.mlp.{name}_proj.weight"] = layers["mlp"][name]["kernel"][i].T
        for ours, theirs in norms.items():
            state[f"{base}.{theirs}.weight"] = layers[ours]["scale"][i]
    return state


def reference(values, params, config):
    """transformers' model of a config.json, with the parameters."""
    import torch
    import transformers

    values = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **values}
    theirs = transformers.AutoConfig.for_model(**values, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(theirs).float().eval()
    state = {k: torch.tensor(np.ascontiguousarray(v)) for k, v in state_dict(params, config).items()}
    model.load_state_dict(state, strict=True)
    return model


def inputs(columns=P + T, lengths=LENGTHS):
    """Left-padded tokens, and positions that are negative on the padding."""
    tokens = np.random.default_rng(0).integers(3, VOCAB, (len(lengths), columns)).astype(np.int32)
    positions = np.asarray(left_padded_positions(np.array(lengths, np.int32), max(lengths), columns))
    return np.where(positions < 0, 0, tokens), positions


def reference_logits(model, tokens, positions):
    """Logits of whole rows."""
    import torch

    with torch.no_grad():
        return model(
            input_ids=torch.tensor(tokens).long(),
            attention_mask=torch.tensor(positions >= 0).long(),
            position_ids=torch.tensor(positions).long().clamp(min=0),
            use_cache=False,
        ).logits.numpy()


def main():
    """Writes the file."""
    golden = {}
    with jax.set_mesh(tiny_mesh()):
        for name, values in CASES.items():
            model, params = build(values)
            logits = reference_logits(reference(values, params, model.config), *inputs())
            golden[name] = [[[round(float(x), 5) for x in row] for row in rows] for rows in logits[:, SHOWN]]
    lines = [
        f"{json.dumps(name)}: {json.dumps(rows, separators=(',', ':'))}" for name, rows in golden.items()
    ]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
