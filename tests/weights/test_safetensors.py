"""Folders of Hugging Face's: what is read equals a naive reading, and what cannot be read says why."""

import json
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sdd.mesh import P
from sdd.model import make
from sdd.model.presets import from_hf
from sdd.testing import tiny_mesh
from sdd.weights import export
from sdd.weights import safetensors as folders
from sdd.weights.assemble import path_name
from sdd.weights.errors import WeightsError

FAMILIES = ("llama", "smollm2", "mistral", "qwen2", "qwen3", "olmo2", "olmo3", "gemma2", "gemma3_text")


def model_of(tiny, family, **changes):
    architecture = from_hf(tiny.CONFIGS[family] | changes)
    return make(architecture.config, architecture.vocab_size), architecture


def flat(params):
    return {path_name(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(params)}


def assert_equal(found, expected):
    """Bit for bit, signs of zeros included."""
    assert sorted(found) == sorted(expected)
    for path, x in expected.items():
        assert found[path].shape == x.shape and found[path].dtype == x.dtype, path
        assert found[path].tobytes() == x.tobytes(), path


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip(tiny, tmp_path, family):
    """A folder is read as the layers' formulas have it, on a mesh too; written and read again, bits stay."""
    tensors = tiny.random_tensors(tiny.hf_shapes(family))
    folder = tiny.write_folder(tmp_path / "a", family, tensors)
    model, architecture = model_of(tiny, family)
    params = folders.load(folder, model, tiny_mesh())
    assert_equal(flat(params), tiny.truth(family, tensors))

    mesh = tiny_mesh(2, 2, 2)
    spread = folders.load(folder, model, mesh)
    assert_equal(flat(spread), flat(params))
    assert any(x.sharding.spec != P(*(None,) * x.ndim) for x in jax.tree.leaves(spread))

    export.save(spread, architecture, tmp_path / "b", extra={"eos_token_id": 7})
    assert_equal(load_file(tmp_path / "b" / "model.safetensors"), tensors)
    said = json.loads((tmp_path / "b" / "config.json").read_text())
    assert (said["dtype"], said["eos_token_id"]) == ("float32", 7)
    again = folders.load(tmp_path / "b", model, tiny_mesh())
    assert_equal(flat(again), flat(params))


def test_the_layout_is_that_of_init(tiny, tmp_path):
    folder = tiny.write_folder(tmp_path / "a", "qwen2", tiny.random_tensors(tiny.hf_shapes("qwen2")))
    model, _ = model_of(tiny, "qwen2")
    mesh = tiny_mesh(2, 2, 2)
    with jax.set_mesh(mesh):
        drawn = model.init(jax.random.key(0))
    read = folders.load(folder, model, mesh)
    for x, y in zip(jax.tree.leaves(read), jax.tree.leaves(drawn), strict=True):
        assert (x.sharding, x.dtype) == (y.sharding, y.dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_held_exactly(tiny, tmp_path, dtype):
    """Every bit pattern of 16 bits that is a number: denormals and signed zeros too."""
    number = np.dtype(dtype)
    bits = np.arange(2**16, dtype=np.uint16).view(number)
    bits = np.where(np.isfinite(bits.astype(np.float32)), bits, number.type(0))
    tensors = tiny.random_tensors(tiny.hf_shapes("llama"), dtype=number)
    tensors["model.embed_tokens.weight"] = np.resize(bits, (4100, 16))
    tensors["lm_head.weight"] = np.resize(bits[::-1], (4100, 16))
    folder = tiny.write_folder(tmp_path / "a", "llama", tensors, vocab_size=4100)
    model, architecture = model_of(tiny, "llama", vocab_size=4100)
    params = folders.load(folder, model, tiny_mesh(2, 2, 2))
    assert {x.dtype.name for x in jax.tree.leaves(params)} == {"float32"}
    export.save(params, architecture, tmp_path / "b", dtype=dtype)
    assert_equal(load_file(tmp_path / "b" / "model.safetensors"), tensors)

    kept = folders.load(folder, model, tiny_mesh(), dtype=number)
    assert {x.dtype for x in jax.tree.leaves(kept)} == {number}
    assert_equal({k: v.astype(np.float32) for k, v in flat(kept).items()}, flat(params))


def test_shards(tiny, tmp_path):
    tensors = tiny.random_tensors(tiny.hf_shapes("qwen3"))
    model, architecture = model_of(tiny, "qwen3")
    params = folders.load(tiny.write_folder(tmp_path / "a", "qwen3", tensors), model, tiny_mesh())
    export.save(params, architecture, tmp_path / "b", max_shard_bytes=6000)
    names = sorted(path.name for path in (tmp_path / "b").iterdir())
    count = len(names) - 2
    assert count > 3 and f"model-00001-of-{count:05d}.safetensors" in names
    index = json.loads((tmp_path / "b" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in tensors.values())
    for name in sorted(set(index["weight_map"].values())):
        held = load_file(tmp_path / "b" / name)
        assert sum(x.nbytes for x in held.values()) <= 6000 or len(held) == 1
        assert_equal(held, {k: tensors[k] for k, home in index["weight_map"].items() if home == name})
    assert_equal(flat(folders.load(tmp_path / "b", model, tiny_mesh(2, 2, 2))), flat(params))


@pytest.mark.parametrize(
    "inner, outer, config",
    [("language_model.model.", "language_model.", {}), ("model.language_model.", "", {})],
)
def test_the_text_model_of_a_multimodal_one(tiny, tmp_path, inner, outer, config):
    tensors = tiny.random_tensors(tiny.hf_shapes("gemma3_text"))
    named = {inner + name.removeprefix("model."): x for name, x in tensors.items()}
    vision = "model.vision_tower.x.weight" if not outer else "vision_tower.x.weight"
    named[vision] = np.ones((2, 2), np.float32)
    folder = tiny.write_folder(tmp_path / "a", "gemma3_text", named)
    config = {"model_type": "gemma3", "text_config": tiny.CONFIGS["gemma3_text"], "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    model, _ = model_of(tiny, "gemma3_text")
    assert_equal(flat(folders.load(folder, model, tiny_mesh())), tiny.truth("gemma3_text", tensors))
    del named[inner + "norm.weight"]
    save_file(named, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=f"1 missing: {inner}norm.weight "):
        folders.load(folder, model, tiny_mesh())


def test_parameters_do_not_change_with_the_file(tiny, tmp_path):
    tensors = tiny.random_tensors(tiny.hf_shapes("llama"))
    folder = tiny.write_folder(tmp_path / "a", "llama", tensors)
    params = folders.load(folder, model_of(tiny, "llama")[0], tiny_mesh())
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(b"\0" * (folder / "model.safetensors").stat().st_size)
    assert_equal(flat(params), tiny.truth("llama", tensors))


def test_a_copy_of_a_tied_head_and_old_buffers_are_no_surprise(tiny, tmp_path):
    tensors = tiny.random_tensors(tiny.hf_shapes("smollm2"))
    more = {
        "lm_head.weight": tensors["model.embed_tokens.weight"].copy(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32),
    }
    model, _ = model_of(tiny, "smollm2")
    folder = tiny.write_folder(tmp_path / "a", "smollm2", tensors | more)
    assert_equal(flat(folders.load(folder, model, tiny_mesh())), tiny.truth("smollm2", tensors))


def test_memory_of_the_host_is_that_of_one_tensor(tiny, tmp_path):
    """64 layers of 5 MB (bfloat16): reading them takes no more than a few tensors of one layer."""
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 64, "vocab_size": 64}
    config = tiny.CONFIGS["llama"] | sizes
    architecture = from_hf(config)
    model = make(architecture.config, architecture.vocab_size)
    parts = list(export.entries(*architecture))
    rng = np.random.default_rng(0)
    tensors = {e.name: rng.standard_normal(e.stored_shape).astype(ml_dtypes.bfloat16) for e in parts}
    largest = 4 * max(x.size for x in tensors.values())
    total = 4 * sum(x.size for x in tensors.values())
    folder = tiny.write_folder(tmp_path / "a", "llama", tensors, **sizes)
    del tensors
    folders.load(folder, model, tiny_mesh())  # compiles
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    params = folders.load(folder, model, tiny_mesh())
    peak = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert sum(x.nbytes for x in jax.tree.leaves(params)) == total
    assert total > 50 * largest
    assert peak < 3 * largest + 2e6, (peak, largest, total)


# ---- what is wrong is said in one line, and nothing is filled in -----------------------------------------


def damaged(tiny, tmp_path, change):
    """The error of a llama's folder after ``change(folder, tensors)``; what it returns is written."""
    tensors = tiny.random_tensors(tiny.hf_shapes("llama"))
    folder = tiny.write_folder(tmp_path / "a", "llama", tensors)
    tensors = change(folder, tensors)
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors")
    with pytest.raises(WeightsError) as caught:
        folders.load(folder, model_of(tiny, "llama")[0], tiny_mesh())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_and_unexpected(tiny, tmp_path):
    def change(folder, tensors):
        name = "model.layers.1.self_attn.q_proj.weight"
        tensors["model.layers.1.self_attn.query_proj.weight"] = tensors.pop(name)
        return tensors

    said = damaged(tiny, tmp_path, change)
    assert said.startswith(f"{tmp_path / 'a'}: not the 30 tensors of a llama with the sizes of config.json: ")
    assert (
        "1 missing: model.layers.1.self_attn.q_proj.weight (24, 16) "
        "(nearest: model.layers.1.self_attn.query_proj.weight); "
        "1 unexpected: model.layers.1.self_attn.query_proj.weight (24, 16) "
        "(nearest: model.layers.1.self_attn.q_proj.weight)"
    ) in said


def test_many_missing(tiny, tmp_path):
    said = damaged(tiny, tmp_path, lambda folder, t: {k: x for k, x in t.items() if ".2." not in k})
    assert "9 missing: model.layers.2." in said and ", and 6 more" in said


def test_an_unexpected_layer(tiny, tmp_path):
    change = lambda folder, t: t | {k.replace(".2.", ".3."): x for k, x in t.items() if ".2." in k}  # noqa: E731
    assert "9 unexpected: model.layers.3." in damaged(tiny, tmp_path, change)


def test_an_untied_head_that_is_missing(tiny, tmp_path):
    change = lambda folder, t: {k: x for k, x in t.items() if k != "lm_head.weight"}  # noqa: E731
    assert "1 missing: lm_head.weight (40, 16)" in damaged(tiny, tmp_path, change)


def test_another_shape_and_another_type(tiny, tmp_path):
    def change(folder, tensors):
        tensors["model.norm.weight"] = np.ones(15, np.float32)
        tensors["model.layers.0.mlp.up_proj.weight"] = np.ones((20, 16), np.int8)
        return tensors

    said = damaged(tiny, tmp_path, change)
    assert "1 of another shape: model.norm.weight: expected (16,), found (15,)" in said
    assert (
        "1 of a type that cannot be read: model.layers.0.mlp.up_proj.weight: I8 (valid: BF16, F16, F32, F64)"
        in said
    )


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_a_file_cut_short(tiny, tmp_path, keep):
    def change(folder, tensors):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:keep])

    said = damaged(tiny, tmp_path, change)
    assert said.startswith(f"{tmp_path / 'a' / 'model.safetensors'}: ") and "cut short" in said


def sharded(folder, tensors):
    """Rewrites a folder as two shards with an index."""
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"one.safetensors": names[:10], "two.safetensors": names[10:]}
    for file, held in halves.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    weight_map = {name: file for file, held in halves.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return weight_map


def test_a_shard_that_is_missing(tiny, tmp_path):
    def change(folder, tensors):
        sharded(folder, tensors)
        (folder / "two.safetensors").unlink()

    said = damaged(tiny, tmp_path, change)
    assert "index.json: weight_map names 1 files that are not there: two.safetensors" in said


def test_an_index_that_is_wrong(tiny, tmp_path):
    def change(folder, tensors):
        weight_map = sharded(folder, tensors)
        weight_map["model.norm.weight"] = "one.safetensors"
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    said = damaged(tiny, tmp_path, change)
    assert "model.norm.weight should be in one.safetensors; it is in two.safetensors" in said


def test_an_index_with_a_tensor_that_no_shard_has(tiny, tmp_path):
    def change(folder, tensors):
        weight_map = sharded(folder, tensors) | {"model.more.weight": "one.safetensors"}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    assert "model.more.weight should be in one.safetensors; it is in no shard" in damaged(
        tiny, tmp_path, change
    )


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none(tiny, tmp_path, text):
    change = lambda folder, t: (folder / "model.safetensors.index.json").write_text(text) and None  # noqa: E731
    said = damaged(tiny, tmp_path, change)
    assert said.startswith(f"{tmp_path / 'a' / 'model.safetensors.index.json'}: ") and "valid: " in said


def test_no_weights_at_all(tiny, tmp_path):
    def change(folder, tensors):
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    assert "no model.safetensors and no model.safetensors.index.json; there is pytorch_model.bin" in damaged(
        tiny, tmp_path, change
    )


@pytest.mark.parametrize(
    "config, message",
    [
        (None, "config.json: No such file or directory"),
        ("{", "config.json: "),
        ('{"model_type": "llame"}', "config.json: model_type='llame'"),
    ],
)
def test_a_config_that_cannot_be_read(tiny, tmp_path, config, message):
    def change(folder, tensors):
        (folder / "config.json").unlink()
        if config:
            (folder / "config.json").write_text(config)

    assert message in damaged(tiny, tmp_path, change)


def test_another_config_than_the_model_has(tiny, tmp_path):
    """Sizes alone do not make a model: another base of wavelengths would give nonsense without an error."""

    def change(folder, tensors):
        config = tiny.CONFIGS["llama"] | {"rope_theta": 5e5, "vocab_size": 48}
        (folder / "config.json").write_text(json.dumps(config))

    said = damaged(tiny, tmp_path, change)
    assert "rope_theta=10000.0 (there: 500000.0), vocab_size=40 (there: 48); valid: that of the file" in said


# ---- what is written is whole or not there ---------------------------------------------------------------


@pytest.fixture
def loaded(tiny, tmp_path):
    folder = tiny.write_folder(tmp_path / "a", "llama", tiny.random_tensors(tiny.hf_shapes("llama")))
    model, architecture = model_of(tiny, "llama")
    return folders.load(folder, model, tiny_mesh()), architecture


def test_an_interrupted_export_leaves_nothing(loaded, tmp_path, monkeypatch):
    params, architecture = loaded
    calls = []
    cast = export.cast

    def failing(*args):
        calls.append(args)
        if len(calls) > 20:
            raise KeyboardInterrupt
        return cast(*args)

    monkeypatch.setattr(export, "cast", failing)
    with pytest.raises(KeyboardInterrupt):
        export.save(params, architecture, tmp_path / "b", max_shard_bytes=3000)
    assert len(calls) > 20
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    monkeypatch.setattr(export, "cast", cast)
    export.save(params, architecture, tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_folder_that_is_there_stays(loaded, tmp_path):
    (tmp_path / "b").mkdir()
    export.save(*loaded, tmp_path / "b")
    kept = (tmp_path / "b" / "model.safetensors").read_bytes()
    with pytest.raises(WeightsError, match=f"^{tmp_path / 'b'}: it is there already; valid: a new or"):
        export.save(*loaded, tmp_path / "b")
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == kept


def test_a_place_that_cannot_be_written(loaded, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match=r"file/b: it cannot be written \(Not a directory\)"):
        export.save(*loaded, tmp_path / "file" / "b")


def test_what_cannot_be_exported(tiny, loaded, tmp_path):
    params, architecture = loaded
    with pytest.raises(WeightsError, match=r"^dtype='int8': valid: bfloat16, float16, float32"):
        export.save(params, architecture, tmp_path / "b", dtype="int8")
    large = jax.tree.map(lambda x: x * 1e6, params)
    with pytest.raises(WeightsError, match=r"^model.embed_tokens.weight: .* does not fit dtype='float16'"):
        export.save(large, architecture, tmp_path / "b", dtype="float16")
    tied = from_hf(tiny.CONFIGS["smollm2"])
    with pytest.raises(WeightsError, match=r"^parameter shell/unembed/kernel: llama has it as None, found"):
        export.save(params, tied, tmp_path / "b")
    assert not (tmp_path / "b").exists()
