"""The other frameworks that sdd is measured against, with sdd's weights in their models.

All of them are optional. The decoder is the one that all can build: Llama's, as many heads of keys and values
as of queries, an unembedding of its own, and 10 ** 6 as the base of its rotations (the Llama of Tunix 0.1.7
knows no other, whatever its config says).
"""

import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from sdd.settings import ModelConfig

INSTALL = {
    "tunix": "pip install google-tunix==0.1.7",
    "transformers": "pip install torch==2.13.0 transformers==5.24.0",
}
MODULES = {"tunix": ("tunix.models.llama3.model",), "transformers": ("torch", "transformers")}
PACKAGES = {"tunix": ("google-tunix", "flax"), "transformers": ("torch", "transformers")}
VOCABULARY = 512
DECODER: dict[str, Any] = dict(rope_theta=1e6, norm_eps=1e-6, tied_embeddings=False)
FULL = ModelConfig(4, 256, 8, 8, 32, 1024, **DECODER)
TINY = ModelConfig(1, 32, 2, 2, 16, 64, **DECODER)


class Numbers:
    """A tokenizer of texts that are numbers already, as Tunix's sampler asks for one."""

    def encode(self, text: str, **_: Any) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))

    def bos_id(self) -> int:
        return 0  # none

    def eos_id(self) -> int:
        return VOCABULARY  # never drawn

    def pad_id(self) -> int:
        return VOCABULARY  # never drawn


def installed(script: str, wanted: Sequence[str] = tuple(MODULES)) -> tuple[str, ...]:
    """The names of the peers that are here; a line on stderr for each that is not, and how to get it."""
    here = []
    for name in wanted:
        try:
            for module in MODULES[name]:
                importlib.import_module(module)
        except ImportError as error:
            print(f"benchmarks/{script}: {name} is not measured ({error}); {INSTALL[name]}", file=sys.stderr)
        else:
            here.append(name)
    return tuple(here)


def versions(peer: str) -> dict[str, str]:
    """Versions of a peer's packages."""
    return {package: importlib.metadata.version(package) for package in PACKAGES[peer]}


def by_layer(params: Any) -> list[dict[str, np.ndarray]]:
    """sdd's stacked layers one by one, each from path to array."""
    paths = jax.tree_util.tree_flatten_with_path(params["layers"])[0]
    flat = {"/".join(str(p.key) for p in path): np.asarray(x) for path, x in paths}
    return [{path: x[i] for path, x in flat.items()} for i in range(len(flat["mlp/up/kernel"]))]


def tunix_model(config: ModelConfig, params: Any) -> Any:
    """Tunix's Llama with the parameters of sdd's decoder."""
    from flax import nnx
    from tunix.models.llama3 import model as llama

    shape = llama.ModelConfig(
        num_layers=config.num_layers,
        vocab_size=VOCABULARY,
        embed_dim=config.width,
        hidden_dim=config.mlp_dim,
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        num_kv_heads=config.num_kv_heads,
        rope_theta=int(config.rope_theta),
        norm_eps=config.norm_eps,
    )
    model = llama.Llama3(shape, rngs=nnx.Rngs(0))
    shell = jax.tree.map(np.asarray, params["shell"])
    pairs = [
        (model.embedder.input_embedding, shell["embed"]["embedding"]),
        (model.final_norm.w, shell["final_norm"]["scale"]),
        (model.lm_head.w, shell["unembed"]["kernel"]),
    ]
    for layer, ours in zip(model.layers, by_layer(params)):
        pairs += [(getattr(layer.attn, f"{x}_proj").w, ours[f"attention/{x}/kernel"]) for x in "qkvo"]
        pairs += [
            (getattr(layer.mlp, f"{x}_proj").kernel, ours[f"mlp/{x}/kernel"]) for x in ("gate", "up", "down")
        ]
        pairs += [
            (layer.input_layernorm.w, ours["attention_norm/scale"]),
            (layer.post_attention_layernorm.w, ours["mlp_norm/scale"]),
        ]
    for variable, value in pairs:
        assert variable[...].shape == value.shape
        variable[...] = jax.numpy.asarray(value)
    return model


def torch_model(config: ModelConfig, params: Any) -> Any:
    """transformers' LlamaForCausalLM with the parameters of sdd's decoder."""
    import torch
    import transformers

    torch.set_num_threads(1)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=config.width,
            intermediate_size=config.mlp_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    shell = jax.tree.map(np.asarray, params["shell"])
    weights = {
        "model.embed_tokens.weight": shell["embed"]["embedding"],
        "model.norm.weight": shell["final_norm"]["scale"],
        "lm_head.weight": shell["unembed"]["kernel"].T,
    }
    E = config.width
    for i, ours in enumerate(by_layer(params)):
        weights |= {
            f"model.layers.{i}.self_attn.{x}_proj.weight": ours[f"attention/{x}/kernel"].reshape(E, -1).T
            for x in "qkv"
        }
        weights[f"model.layers.{i}.self_attn.o_proj.weight"] = ours["attention/o/kernel"].reshape(-1, E).T
        weights |= {
            f"model.layers.{i}.mlp.{x}_proj.weight": ours[f"mlp/{x}/kernel"].T for x in ("gate", "up", "down")
        }
        weights[f"model.layers.{i}.input_layernorm.weight"] = ours["attention_norm/scale"]
        weights[f"model.layers.{i}.post_attention_layernorm.weight"] = ours["mlp_norm/scale"]
    copies = {name: torch.from_numpy(np.array(value, order="C")) for name, value in weights.items()}
    model.load_state_dict(copies)
    return model
