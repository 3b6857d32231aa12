"""GGUF files, written here as llama.cpp's converter does it, give the same parameters as the folder."""

import gguf
import jax
import numpy as np
import pytest

from sdd.model import make
from sdd.model.presets import from_hf
from sdd.testing import tiny_mesh
from sdd.weights import gguf as files
from sdd.weights import gguf_config, mapping
from sdd.weights.assemble import path_name
from sdd.weights.errors import WeightsError

# llama.cpp's names (its gguf-py/gguf/constants.py), by Hugging Face's.
LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
PRE = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
POST = {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}
BOTH = {**POST, "input_layernorm": "attn_norm", "pre_feedforward_layernorm": "ffn_norm"}
NAMES = {
    **{family: LAYER | PRE for family in ("llama", "smollm2", "qwen2", "qwen3")},
    **{family: LAYER | POST for family in ("olmo2", "olmo3")},
    **{family: LAYER | BOTH for family in ("gemma2", "gemma3_text")},
}
ARCHS = {"smollm2": "llama", "olmo3": "olmo2", "gemma3_text": "gemma3"}
# What llama.cpp knows of an architecture and does not write down.
KNOWN = {
    "gemma2": {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
    "gemma3_text": {"layer_types": ["sliding_attention"] * 3, "rope_local_base_freq": 10000.0},
    "olmo3": {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
}


def their_name(family, name):
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    whole["lm_head.weight"] = "output.weight"
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    stem, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[family][stem]}.{kind}"


def their_values(family, config, name, x):
    """LlamaModel.permute, and Gemma's ``data_torch + 1``, of llama.cpp's converter."""
    if family in ("llama", "smollm2") and ("q_proj" in name or "k_proj" in name):
        heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
        return x.reshape(heads, 2, x.shape[0] // heads // 2, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
    if family.startswith("gemma") and name.endswith("norm.weight"):
        return x + np.float32(1)
    return x


def write(
    path, family, config, tensors, quantise=None, extra=None, leave_out=(), parts=1, tokens=(), raw=None
):
    """A file as the converter writes it; matrices in the type ``quantise``; tokens of a byte-level BPE.

    ``raw``: name -> (bytes, type) of tensors whose blocks are written as they are.
    """
    arch = ARCHS.get(family, family)
    writer = gguf.GGUFWriter(path, arch)
    fields = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "attention.sliding_window": config.get("sliding_window"),
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": config["rope_theta"],
        "rope.dimension_count": config["head_dim"],
        "attn_logit_softcapping": config.get("attn_logit_softcapping"),
        "final_logit_softcapping": config.get("final_logit_softcapping"),
        "vocab_size": config["vocab_size"],
        **(extra or {}),
    }
    for key, value in fields.items():
        if isinstance(value, float):
            writer.add_float32(f"{arch}.{key}", value)
        elif isinstance(value, str):
            writer.add_string(f"{arch}.{key}", value)
        elif isinstance(value, list):
            writer.add_array(f"{arch}.{key}", value)
        elif value is not None and key not in leave_out:
            writer.add_uint32(f"{arch}.{key}", value)
    writer.add_eos_token_id(2)
    if tokens:
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokens)
        writer.add_token_types([3 if token.startswith("<") else 1 for token in tokens])
        writer.add_token_merges(["a b"])
    if parts > 1:
        writer.add_uint16("split.count", parts)
    for name, x in tensors.items():
        if name in (raw or {}):
            blocks, number = raw[name]
            writer.add_tensor(their_name(family, name), blocks, raw_dtype=number)
            continue
        if name.startswith("rope_freqs"):
            writer.add_tensor(name, x)
            continue
        values = np.ascontiguousarray(their_values(family, config, name, np.asarray(x, np.float32)))
        if quantise is not None and values.ndim == 2:
            values = gguf.quants.quantize(values, quantise)
            writer.add_tensor(their_name(family, name), values, raw_dtype=quantise)
        else:
            writer.add_tensor(their_name(family, name), values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def flat(params):
    return {path_name(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(params)}


def assert_same(found, expected, **tolerance):
    assert sorted(found) == sorted(expected)
    for path, x in expected.items():
        np.testing.assert_allclose(found[path], x, err_msg=path, **tolerance)


@pytest.mark.parametrize("family", NAMES)
def test_a_file_gives_what_the_folder_gives(tiny, tmp_path, family):
    config = tiny.CONFIGS[family] | KNOWN.get(family, {})
    tensors = tiny.random_tensors(tiny.hf_shapes(family))
    extra = {}
    if family == "olmo3":
        extra["attention.sliding_window_pattern"] = [x.startswith("sliding") for x in config["layer_types"]]
    path = write(tmp_path / "a.gguf", family, config, tensors, extra=extra)
    architecture = from_hf(config)
    assert files.architecture_of(files.open_file(path)) == architecture
    model = make(architecture.config, architecture.vocab_size)
    params = flat(files.load_gguf(path, model, tiny_mesh()))
    # 1 + w is rounded in a file of Gemma's; all else is there bit for bit.
    assert_same(params, tiny.truth(family, tensors), rtol=0, atol=1e-6 if "gemma" in family else 0)
    assert_same(flat(files.load_gguf(path, model, tiny_mesh(2, 2, 2))), params, rtol=0)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_types_of_numbers(tiny, tmp_path, monkeypatch, kind):
    """Dequantised before rows are put in order: blocks lie along rows, which stay whole."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "head_dim": 8}
    config = tiny.CONFIGS["llama"] | sizes
    architecture = from_hf(config)
    shapes = {e.name: e.stored_shape for e in mapping.entries(*architecture)}
    tensors = tiny.random_tensors(shapes)
    number = gguf.GGMLQuantizationType[kind]
    path = write(tmp_path / "a.gguf", "llama", config, tensors, quantise=number)
    rounded = {
        name: x if x.ndim == 1 else gguf.quants.dequantize(gguf.quants.quantize(x, number), number)
        for name, x in tensors.items()
    }
    monkeypatch.setitem(tiny.CONFIGS, "wide", config)
    monkeypatch.setitem(tiny.NORMS, "wide", tiny.NORMS["llama"])
    model = make(architecture.config, architecture.vocab_size)
    for mesh in (tiny_mesh(), tiny_mesh(2, 2, 2)):
        params = files.load_gguf(path, model, mesh)
        assert_same(flat(params), tiny.truth("wide", rounded), rtol=0)
    if kind.startswith("Q"):
        assert np.abs(rounded["lm_head.weight"] - tensors["lm_head.weight"]).max() > 0


# Of blocks of 256 numbers: where the factors lie that all of them have, 2 bytes each (ggml-common.h).
FACTORS = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
# As in the files that are called so: most tensors in the first type, those named here in another.
MIXED = {
    "Q4_K_M": ("Q4_K", {"v_proj": "Q6_K", "down_proj": "Q6_K", "lm_head": "Q6_K"}),
    "Q3_K_L": ("Q3_K", {"v_proj": "Q5_K", "o_proj": "Q5_K", "down_proj": "Q5_K", "lm_head": "Q6_K"}),
    "Q2_K": ("Q2_K", {"o_proj": "Q3_K", "v_proj": "Q4_K", "embed_tokens": "Q8_0"}),
    "Q6_K": ("Q6_K", {"embed_tokens": "Q8_0"}),
}


def random_blocks(rng, shape, kind):
    """Blocks of a matrix: any bytes are a block, as long as its factors are numbers."""
    number = gguf.GGMLQuantizationType[kind]
    if kind == "Q8_0":
        return gguf.quants.quantize(rng.standard_normal(shape).astype(np.float32), number), number
    _, num_bytes = gguf.GGML_QUANT_SIZES[number]
    blocks = rng.integers(0, 256, (shape[0], shape[1] // 256, num_bytes), np.uint8)
    for at in FACTORS[kind]:
        factors = rng.uniform(0.001, 0.02, blocks.shape[:2]).astype(np.float16)
        blocks[..., at : at + 2] = factors[..., None].view(np.uint8)
    return blocks.reshape(shape[0], -1), number


def naive_q6_k(row):
    """A row of Q6_K, a number at a time: 6 bits less 32, times one of 16 scales, times the factor."""
    found = []
    for block in row.reshape(-1, 210):
        low, high, scales = block[:128], block[128:192], block[192:208].view(np.int8)
        factor = block[208:].view(np.float16)[0]
        for i in range(256):
            half, quarter, at = i // 128, i % 128 // 32, i % 32
            four = low[64 * half + 32 * (quarter % 2) + at] >> (4 * (quarter // 2)) & 15
            two = high[32 * half + at] >> (2 * quarter) & 3
            found.append(np.float32(factor) * int(scales[i // 16]) * (int(four) + 16 * int(two) - 32))
    return np.array(found, np.float32)


@pytest.mark.parametrize("name", MIXED)
def test_a_whole_model_of_k_quants(tiny, tmp_path, monkeypatch, name):
    """Rows of Q and K are put in order after their blocks were read, on one device and where rows are cut."""
    usual, others = MIXED[name]
    sizes = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64, "num_hidden_layers": 2}
    config = tiny.CONFIGS["llama"] | sizes
    architecture = from_hf(config)
    tensors = tiny.random_tensors({e.name: e.stored_shape for e in mapping.entries(*architecture)})
    rng, raw, expected = np.random.default_rng(0), {}, dict(tensors)
    for tensor, x in tensors.items():
        if x.ndim == 1:
            continue
        kind = next((other for part, other in others.items() if f"{part}." in tensor), usual)
        blocks, number = raw[tensor] = random_blocks(rng, x.shape, kind)
        rows = gguf.quants.dequantize(blocks, number)
        if kind == "Q6_K":
            np.testing.assert_array_equal(rows[3], naive_q6_k(blocks[3]))
        if "q_proj" in tensor or "k_proj" in tensor:  # neighbours there are halves of a head here
            order = [
                h * 64 + 2 * i + half for h in range(len(rows) // 64) for half in (0, 1) for i in range(32)
            ]
            rows = rows[order]
        expected[tensor] = rows
    assert {number.name for _, number in raw.values()} == {usual, *others.values()}
    path = write(tmp_path / "a.gguf", "llama", config, tensors, raw=raw)
    monkeypatch.setitem(tiny.CONFIGS, "wide", config)
    monkeypatch.setitem(tiny.NORMS, "wide", tiny.NORMS["llama"])
    model = make(architecture.config, architecture.vocab_size)
    truth = tiny.truth("wide", expected)
    assert all(np.isfinite(x).all() and x.std() > 0 for x in truth.values())
    for mesh in (tiny_mesh(), tiny_mesh(2, 2, 2)):
        assert_same(flat(files.load_gguf(path, model, mesh)), truth, rtol=0)


def test_every_listed_type_is_one_that_the_package_dequantises():
    for name in files.TYPES:
        number = gguf.GGMLQuantizationType[name]
        block, num_bytes = gguf.GGML_QUANT_SIZES[number]
        raw = np.zeros((2, num_bytes), np.uint8)
        if name == "F32":
            raw = raw.view(np.float32)
        elif name == "F16":
            raw = raw.view(np.float16)
        assert gguf.quants.dequantize(raw, number).shape == (2, block), name


def llama3_factors(theta, head_dim, factor, low, high, length):
    """Llama3Model.generate_extra_tensors of llama.cpp's converter, one wavelength at a time."""
    factors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * np.pi * theta ** (i / head_dim)
        if wavelength < length / high:
            factors.append(1)
        elif wavelength > length / low:
            factors.append(factor)
        else:
            smooth = (length / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, np.float32)


def test_the_wavelengths_of_llama_3(tiny, tmp_path):
    numbers = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    scaling = {"rope_type": "llama3", "factor": 32.0, **numbers}
    sizes = {"head_dim": 64, "rope_theta": 500000.0, "rope_scaling": scaling}
    config = tiny.CONFIGS["smollm2"] | sizes
    tensors = tiny.random_tensors({e.name: e.stored_shape for e in mapping.entries(*from_hf(config))})
    factors = llama3_factors(500000.0, 64, 32.0, 1.0, 4.0, 8192)
    assert 1 < factors[16] < 32  # some wavelengths are stretched, some are not, some in part
    path = write(tmp_path / "a.gguf", "smollm2", config, tensors | {"rope_freqs.weight": factors})
    assert files.architecture_of(files.open_file(path)) == from_hf(config)
    model = make(*from_hf(config)[:2])
    assert flat(files.load_gguf(path, model, tiny_mesh()))

    other = llama3_factors(500000.0, 64, 32.0, 1.0, 4.0, 4096)
    path = write(tmp_path / "b.gguf", "smollm2", config, tensors | {"rope_freqs.weight": other})
    with pytest.raises(WeightsError, match=r"b.gguf: rope_freqs.weight: not Llama 3's stretching"):
        files.load_gguf(path, model, tiny_mesh())


@pytest.mark.parametrize(
    "family, extra, scaling",
    [
        (
            "gemma3_text",
            {"rope.scaling.type": "linear", "rope.scaling.factor": 8.0},
            {"rope_type": "linear", "factor": 8.0},
        ),
        (
            "olmo3",
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 8.0,
                "rope.scaling.attn_factor": 1.2079441541679836,
                "rope.scaling.original_context_length": 16,
            },
            {
                "rope_type": "yarn",
                "factor": 8.0,
                "attention_factor": 1.2079442,
                "original_max_position_embeddings": 16,
            },
        ),
    ],
)
def test_stretched_wavelengths(tiny, tmp_path, family, extra, scaling):
    config = tiny.CONFIGS[family] | KNOWN[family] | {"rope_scaling": scaling}
    if family == "olmo3":
        extra["attention.sliding_window_pattern"] = [x.startswith("sliding") for x in config["layer_types"]]
    heads = {"model.embed_tokens.weight": np.ones((40, 16), np.float32)}
    if not config["tie_word_embeddings"]:
        heads["lm_head.weight"] = np.ones((40, 16), np.float32)
    path = write(tmp_path / "a.gguf", family, config, heads, extra=extra)
    assert files.architecture_of(files.open_file(path)) == from_hf(config)


@pytest.mark.parametrize(
    "kind, layers, width, scalar",
    [
        ("gemma2", 46, 4608, 144),  # google/gemma-2-27b
        ("gemma2", 42, 4608, 128),
        ("gemma3", 62, 5376, 168),  # google/gemma-3-27b-pt
        ("gemma3", 48, 5376, 128),
    ],
)
def test_the_scale_of_gemma(kind, layers, width, scalar):
    """The largest models have another one than the smaller, whose heads are as large."""
    fields = {f"{kind}.{key}": 8 for key in gguf_config.REQUIRED[kind]}
    fields |= {
        "general.architecture": kind,
        f"{kind}.block_count": layers,
        f"{kind}.embedding_length": width,
        f"{kind}.attention.head_count": 32,
        f"{kind}.attention.key_length": 128,
    }
    config = gguf_config.hf_config(fields, {"token_embd.weight": (256, width)}, None)
    assert config["query_pre_attn_scalar"] == scalar


@pytest.mark.parametrize("kind, whole", [("gemma2", {1, 3, 5}), ("gemma3", {5}), ("olmo2", {3})])
def test_which_layers_see_everything(kind, whole):
    """As llama.cpp's set_swa_pattern has it where the file does not say: every 2nd, 6th, 4th layer."""
    fields = {f"{kind}.{key}": 8 for key in gguf_config.REQUIRED[kind]}
    fields |= {"general.architecture": kind, f"{kind}.block_count": 7}
    fields |= {f"{kind}.attention.sliding_window": 5}
    config = gguf_config.hf_config(fields, {"token_embd.weight": (256, 8)}, None)
    assert {i for i, x in enumerate(config["layer_types"]) if x == "full_attention"} == whole


# ---- what is wrong is said in one line -------------------------------------------------------------------


@pytest.fixture
def good(tiny, tmp_path):
    tensors = tiny.random_tensors(tiny.hf_shapes("llama"))
    architecture = from_hf(tiny.CONFIGS["llama"])
    return tensors, make(architecture.config, architecture.vocab_size), tmp_path / "a.gguf"


def error(path, model):
    with pytest.raises(WeightsError) as caught:
        files.load_gguf(path, model, tiny_mesh())
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("keep", [3, 30, 400, 5000, -1])
def test_a_file_cut_short(tiny, good, keep):
    tensors, model, path = good
    write(path, "llama", tiny.CONFIGS["llama"], tensors)
    path.write_bytes(path.read_bytes().rstrip(b"\0")[:keep])
    assert "valid: a " in error(path, model)


def test_tensors_that_are_missing_or_unexpected(tiny, good):
    tensors, model, path = good
    del tensors["model.layers.1.mlp.up_proj.weight"]
    more = {"model.layers.3.input_layernorm.weight": np.ones(16, np.float32)}
    write(path, "llama", tiny.CONFIGS["llama"], tensors | more)
    said = error(path, model)
    assert "1 missing: blk.1.ffn_up.weight (20, 16)" in said
    assert "1 unexpected: blk.3.attn_norm.weight (16,)" in said


def test_another_shape(tiny, good):
    tensors, model, path = good
    tensors["model.norm.weight"] = np.ones(8, np.float32)
    write(path, "llama", tiny.CONFIGS["llama"], tensors)
    assert "1 of another shape: output_norm.weight: expected (16,), found (8,)" in error(path, model)


def test_another_architecture_than_the_model_has(tiny, good):
    tensors, model, path = good
    write(path, "llama", tiny.CONFIGS["llama"] | {"rope_theta": 1e5}, tensors)
    assert "rope_theta=10000.0 (there: 100000.0); valid: that of the file" in error(path, model)


def test_metadata_that_does_not_suffice(tiny, good):
    tensors, model, path = good
    write(path, "llama", tiny.CONFIGS["llama"], tensors, leave_out=("block_count",))
    assert "no llama.block_count; the metadata must say it" in error(path, model)


def test_a_part_of_a_model(tiny, good):
    tensors, model, path = good
    write(path, "llama", tiny.CONFIGS["llama"], tensors, parts=3)
    assert "split.count=3; valid: a model in one file" in error(path, model)


@pytest.mark.parametrize(
    "extra, message",
    [
        ({"expert_count": 8}, "llama.expert_count=8: valid: 0"),
        ({"rope.dimension_count": 4}, "llama.rope.dimension_count=4"),
        ({"rope.scaling.type": "longrope"}, "llama.rope.scaling.type='longrope': valid: none, linear, yarn"),
        ({"attention.head_count": [4, 4, 2]}, "num_attention_heads differs from layer to layer ([4, 4, 2])"),
    ],
)
def test_options_that_are_not_built_here(tiny, good, extra, message):
    tensors, model, path = good
    write(path, "llama", tiny.CONFIGS["llama"], tensors, extra=extra)
    assert message in error(path, model)


def test_an_unknown_architecture(tiny, good):
    _, model, path = good
    writer = gguf.GGUFWriter(path, "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "general.architecture='mamba': valid: llama, qwen2, qwen3, olmo2, gemma2, gemma3" in error(
        path, model
    )


def test_no_gguf_at_all(good):
    _, model, path = good
    assert "No such file or directory" in error(path, model)
    path.write_bytes(b"PK\3\4 and more")
    assert "it begins with b'PK\\x03\\x04'" in error(path, model)
