"""Presets and config.json files: sizes against published numbers of parameters, spellings, refusals."""

import dataclasses
import json
import math
import runpy
from pathlib import Path

import jax
import pytest

from sdd.config import ConfigError, ModelConfig
from sdd.model import make as make_model
from sdd.model.presets import PRESETS, Architecture, from_hf, preset, recognise, to_hf
from sdd.testing import tiny_mesh

CASES = runpy.run_path(str(Path(__file__).parents[1] / "golden" / "models" / "make.py"))["CASES"]

# Parameters that the makers' safetensors files hold (of Gemma 3 4B, those of its text model).
PUBLISHED = {
    "llama-2-7b": 6738415616,
    "llama-3.1-8b": 8030261248,
    "llama-3.2-1b": 1235814400,
    "smollm2-135m": 134515008,
    "smollm2-360m": 361821120,
    "smollm2-1.7b": 1711376384,
    "qwen2.5-0.5b": 494032768,
    "qwen2.5-1.5b": 1543714304,
    "qwen2.5-7b": 7615616512,
    "qwen3-0.6b": 596049920,
    "qwen3-1.7b": 1720574976,
    "qwen3-4b": 4022468096,
    "qwen3-8b": 8190735360,
    "olmo-2-7b": 7298617344,
    "olmo-3-7b": 7298011136,
    "gemma-2-2b": 2614341888,
    "gemma-3-1b": 999885952,
    "gemma-3-4b": 3880263168,
}


def test_presets_have_the_published_number_of_parameters():
    found = {}
    with jax.set_mesh(tiny_mesh()):
        for name in PRESETS:
            architecture = preset(name)
            model = make_model(architecture.config, architecture.vocab_size)
            shapes = jax.eval_shape(model.init, jax.random.key(0))
            found[name] = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
    assert found == PUBLISHED


def test_presets_hold_what_parameters_do_not_show():
    assert preset("Qwen3-8B") == preset("qwen3-8b")
    olmo = preset("olmo-3-7b").config
    assert olmo.windows == (4096, 4096, 4096, 0) and olmo.rope_local_theta == olmo.rope_theta == 500000.0
    gemma = preset("gemma-3-4b").config
    assert gemma.windows == (1024,) * 5 + (0,) and (gemma.rope_theta, gemma.rope_local_theta) == (1e6, 1e4)
    assert preset("gemma-3-1b").config.rope_scaling == "none"
    two = preset("gemma-2-2b").config
    assert (two.attention_softcap, two.final_softcap, two.windows) == (50.0, 30.0, (4096, 0))
    with pytest.raises(
        ConfigError, match=r"preset 'qwen3-80b': not known \(nearest: qwen3-8b.*valid: llama-2-7b"
    ):
        preset("qwen3-80b")


@pytest.mark.parametrize("name", [*PRESETS, *CASES])
def test_what_is_written_is_read_back(name):
    architecture = preset(name) if name in PRESETS else from_hf(CASES[name])
    written = json.loads(json.dumps(to_hf(architecture)))
    assert from_hf(written) == architecture
    old = {k: v for k, v in written.items() if k != "rope_parameters"}
    new = {
        k: v for k, v in written.items() if k not in ("rope_theta", "rope_scaling", "rope_local_base_freq")
    }
    assert from_hf(old) == from_hf(new) == architecture
    assert to_hf(recognise(architecture.config, 5))["vocab_size"] == 5


def test_an_attention_scale_of_its_own_is_kept():
    gemma = {**CASES["gemma2"], "query_pre_attn_scalar": 144}
    assert from_hf(gemma).config.attention_scale == 144**-0.5
    assert to_hf(from_hf(gemma))["query_pre_attn_scalar"] == 144
    assert from_hf({**gemma, "query_pre_attn_scalar": gemma["head_dim"]}).config.attention_scale == 0


def test_a_file_of_text_and_images_gives_its_text_model():
    """As google/gemma-3-4b-it has it: what equals transformers' defaults is left out."""
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 1024,
    }
    assert from_hf({"model_type": "gemma3", "text_config": text, "vision_config": {}}) == preset("gemma-3-4b")


def test_layer_types_of_any_order_are_read():
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention", "full_attention"]
    values = {**CASES["olmo3"], "layer_types": kinds}
    architecture = from_hf(values)
    assert architecture.config.windows == (0, 5, 5, 0, 0)[: len(architecture.config.windows)]
    assert to_hf(architecture)["layer_types"] == kinds
    whole = from_hf({**values, "layer_types": ["full_attention"] * 5}).config
    assert whole.windows == () and whole.rope_local_theta == 0


@pytest.mark.parametrize(
    ("case", "changes", "said"),
    [
        (
            "llama2",
            {"model_type": "lama"},
            "model_type='lama': not built here (nearest: llama); valid: llama, ",
        ),
        ("llama2", {"model_type": "mixtral"}, "model_type='mixtral': not built here"),
        ("llama2", {"model_type": None}, "model_type=None: not built here"),
        ("llama2", {"hidden_size": None}, "hidden_size=None: valid: a whole number"),
        ("llama2", {"hidden_size": "24"}, "hidden_size='24': valid: a whole number"),
        ("llama2", {"rms_norm_eps": True}, "rms_norm_eps=True: valid: a number"),
        ("llama2", {"attention_bias": True}, "attention_bias=True: not built here for model_type='llama'"),
        ("llama2", {"mlp_bias": True}, "mlp_bias=True: not built here"),
        ("llama2", {"hidden_act": "gelu"}, "hidden_act='gelu': valid: silu, gelu_pytorch_tanh"),
        ("llama2", {"num_key_value_heads": 3}, "llama.num_kv_heads=3: it must divide llama.num_heads=4"),
        (
            "llama3",
            {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_type='dynamic': not built here",
        ),
        ("llama3", {"rope_scaling": {"rope_type": "linear"}}, "factor: no value; valid: a number"),
        ("llama2", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5: not built here"),
        ("olmo3", {"rope_parameters": {"rope_theta": 1.0}}, "valid for model_type='olmo3': an object with"),
        (
            "olmo3",
            {"rope_scaling": {**CASES["olmo3"]["rope_scaling"], "mscale": 2.0}},
            "mscale=2.0: not built",
        ),
        ("olmo3", {"layer_types": ["full_attention"]}, "layer_types: 1 entries; valid: num_hidden_layers=5"),
        ("gemma2", {"layer_types": ["chunked"] * 3}, "layer_types[0]='chunked': valid: sliding_attention"),
        ("gemma2", {"sliding_window": None}, "sliding_window=None: valid: a whole number"),
        ("gemma3", {"attn_logit_softcapping": 5.0}, "attn_logit_softcapping=5.0: not built here"),
        ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention=True: not built here"),
        ("gemma3", {"model_type": "gemma3"}, "text_config=None: valid: an object"),
    ],
)
def test_what_is_not_built_here_is_refused_in_one_line(case, changes, said):
    with pytest.raises(ConfigError) as error:
        from_hf({**CASES[case], **changes})
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_size_that_is_left_out_is_named():
    values = {key: value for key, value in CASES["llama2"].items() if key != "intermediate_size"}
    with pytest.raises(ConfigError, match="intermediate_size: no value; valid: a whole number"):
        from_hf(values)


def test_a_model_that_no_family_has_cannot_be_written():
    config = ModelConfig(token_shift=True, rope_fraction=0.5)
    with pytest.raises(ConfigError) as error:
        to_hf(Architecture(config, 40, "llama"))
    assert "family llama cannot have rope_fraction=0.5 (valid: 1.0); token_shift=True (valid: False)" in str(
        error.value
    )
    with pytest.raises(
        ConfigError, match=r"transformers has no such model; nearest: .*llama.*token_shift=True"
    ):
        recognise(config, 40)
    with pytest.raises(
        ConfigError, match=r"family olmo2 cannot have .*norm_placement='pre' \(valid: 'post'\)"
    ):
        to_hf(Architecture(ModelConfig(), 40, "olmo2"))
    two_windows = dataclasses.replace(from_hf(CASES["gemma2"]).config, windows=(5, 0, 7))
    with pytest.raises(ConfigError, match=r"windows=\(5, 0, 7\) \(valid: \(7, 0\)\)"):
        to_hf(Architecture(two_windows, 40, "gemma2"))


def test_a_decoder_of_ones_own_is_recognised():
    assert recognise(ModelConfig(), 40).family == "llama"
    assert recognise(ModelConfig(qk_norm="head", windows=(8, 0)), 40).family == "qwen3"
