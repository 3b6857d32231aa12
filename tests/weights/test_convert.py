"""One kind of weights to another, and ``sdd convert``; `tests/weights/test_gguf.py` writes GGUF files."""

import dataclasses
import gc
import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from sdd import checkpoint, weights
from sdd.config import ConfigError
from sdd.model import make
from sdd.model.presets import from_hf
from sdd.testing import tiny_mesh, tiny_model
from sdd.text.load import load as load_tokenizer
from sdd.types import TrainState
from sdd.weights import command, convert
from sdd.weights.assemble import path_name
from sdd.weights.errors import WeightsError


@pytest.fixture(scope="module")
def maker():
    """The functions of test_gguf.py."""
    spec = importlib.util.spec_from_file_location("gguf_maker", Path(__file__).with_name("test_gguf.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def hf(tiny, tmp_path):
    """``(family, **changes of the config) -> (folder, tensors)``"""

    def write(family, dtype=np.float32, **changes):
        tensors = tiny.random_tensors(tiny.hf_shapes(family), dtype=dtype)
        return tiny.write_folder(tmp_path / "source", family, tensors, **changes), tensors

    return write


def run_folder(folder, model, seed=0):
    """What a run leaves behind, as far as weights go."""
    with jax.set_mesh(tiny_mesh()):
        params = model.init(jax.random.key(seed))
    zero = np.zeros((), np.int32)
    for step in (1, 2):
        step = np.asarray(step, np.int32)
        params = jax.tree.map(lambda x: x + 0.25, params)
        with checkpoint.open_manager(folder, 2) as manager:
            checkpoint.save(manager, TrainState(step, params, (), (), zero, zero), {})
    config = {"model": dataclasses.asdict(model.config), "task": {"name": "x"}}
    (folder / "config.json").write_text(json.dumps(config))
    return params


def model_of(tiny, family):
    return make(*from_hf(tiny.CONFIGS[family])[:2])


def flat(params):
    return {path_name(p): np.asarray(x) for p, x in jax.tree_util.tree_leaves_with_path(params)}


def assert_equal(found, expected):
    assert sorted(found) == sorted(expected)
    for name, x in expected.items():
        assert found[name].dtype == x.dtype and found[name].tobytes() == x.tobytes(), name


def test_a_folder_to_a_folder(tiny, hf, tmp_path):
    """The type of the numbers stays, special tokens and the tokenizer's files come along."""
    folder, tensors = hf("qwen3", dtype=ml_dtypes.bfloat16, eos_token_id=[5, 6])
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("not this one")
    done = convert.convert(folder, tmp_path / "b", max_shard_bytes=3000)
    assert (done.architecture, done.dtype) == (from_hf(tiny.CONFIGS["qwen3"]), "bfloat16")
    assert done.num_bytes == sum(x.nbytes for x in tensors.values()) and done.num_tensors == len(tensors)
    shards = sorted((tmp_path / "b").glob("*.safetensors"))
    assert len(shards) > 3
    assert_equal({k: x for shard in shards for k, x in load_file(shard).items()}, tensors)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert (config["eos_token_id"], config["bos_token_id"], config["dtype"]) == ([5, 6], 1, "bfloat16")
    assert from_hf(config) == from_hf(tiny.CONFIGS["qwen3"])
    assert (tmp_path / "b" / "tokenizer.json").read_text() == "{}"
    assert not (tmp_path / "b" / "README.md").exists()


def test_mixed_types_become_float32(tiny, tmp_path):
    tensors = tiny.random_tensors(tiny.hf_shapes("llama"), dtype=ml_dtypes.bfloat16)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float32)
    folder = tiny.write_folder(tmp_path / "a", "llama", tensors)
    assert convert.convert(folder, tmp_path / "b").dtype == "float32"
    expected = {name: x.astype(np.float32) for name, x in tensors.items()}
    assert_equal(load_file(tmp_path / "b" / "model.safetensors"), expected)


def test_a_gguf_to_a_folder(tiny, maker, tmp_path):
    """Its tokenizer comes along; tests/text/test_gguf_files.py reads it closely."""
    tensors = tiny.random_tensors(tiny.hf_shapes("llama"))
    tokens = ["a", "b", "<end>", "ab"]
    path = maker.write(tmp_path / "a.gguf", "llama", tiny.CONFIGS["llama"], tensors, tokens=tokens)
    done = convert.convert(path, tmp_path / "b")
    assert (done.dtype, done.no_tokenizer) == ("float32", "")
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {p.name for p in (tmp_path / "b").iterdir()} == names | {"generation_config.json"}
    tokenizer = load_tokenizer(str(tmp_path / "b"), 40)
    assert tokenizer.encode("abb<end>").tolist() == [3, 1, 2]
    assert (tokenizer.stop_ids, tokenizer.vocab_size) == ((2,), 40)
    assert_equal(load_file(tmp_path / "b" / "model.safetensors"), tensors)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["eos_token_id"] == 2


@pytest.mark.parametrize(
    "tokens, message",
    [
        ((), "tokenizer.ggml.model is None; valid: gpt2, llama"),
        (["a", "b", "<end>", "ab", *map(str, range(40))], "the tokenizer has 44"),  # the embedding: 40 rows
    ],
)
def test_a_gguf_whose_tokenizer_is_not_written(tiny, maker, tmp_path, capsys, tokens, message):
    """The weights are, and a line says so."""
    tensors = tiny.random_tensors(tiny.hf_shapes("llama"))
    path = maker.write(tmp_path / "a.gguf", "llama", tiny.CONFIGS["llama"], tensors, tokens=tokens)
    assert command.run([str(path), str(tmp_path / "b")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "float32" in first
    assert second.startswith(f"{tmp_path / 'b'}: no tokenizer: {path}: ") and message in second
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["config.json", "model.safetensors"]


def test_a_multimodal_folder_to_its_text_model(tiny, tmp_path):
    tensors = tiny.random_tensors(tiny.hf_shapes("gemma3_text"))
    named = {"model.language_model." + k.removeprefix("model."): x for k, x in tensors.items()}
    named["model.vision_tower.x.weight"] = np.ones(3, np.float16)
    folder = tiny.write_folder(tmp_path / "a", "gemma3_text", named)
    text = tiny.CONFIGS["gemma3_text"]
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    assert convert.convert(folder, tmp_path / "b").dtype == "float32"
    assert_equal(load_file(tmp_path / "b" / "model.safetensors"), tensors)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["model_type"] == "gemma3_text"


@pytest.mark.parametrize("family", ["qwen2", "gemma3_text"])
def test_a_run_to_a_folder_and_back(tiny, tmp_path, family):
    """The newest checkpoint; the family is found from config.model."""
    model = model_of(tiny, family)
    params = run_folder(tmp_path / "run", model)
    done = convert.convert(tmp_path / "run", tmp_path / "b")
    assert make(*done.architecture[:2]).config.windows == model.config.windows
    read = weights.load_params(tmp_path / "b", model, tiny_mesh(2, 2, 2))
    assert_equal(flat(read), flat(params))


def test_a_folder_to_parameters_that_a_run_starts_from(tiny, hf, tmp_path):
    folder, tensors = hf("olmo2")
    convert.convert(folder, tmp_path / "b", to="params")
    mesh = tiny_mesh(2, 2, 2)
    model = model_of(tiny, "olmo2")
    template = weights.assemble.abstract_params(model, mesh)
    params = checkpoint.restore_params(tmp_path / "b", template)  # what config.train.init_from does
    assert_equal(flat(params), tiny.truth("olmo2", tensors))
    assert [x.sharding for x in jax.tree.leaves(params)] == [x.sharding for x in jax.tree.leaves(template)]
    # and it can be converted again
    convert.convert(tmp_path / "b", tmp_path / "c")
    assert_equal(load_file(tmp_path / "c" / "model.safetensors"), tensors)


def test_all_kinds_are_loaded(tiny, maker, hf, tmp_path):
    folder, tensors = hf("llama")
    path = maker.write(tmp_path / "a.other", "llama", tiny.CONFIGS["llama"], tensors)  # told by what it holds
    convert.convert(folder, tmp_path / "params", to="params")
    model = model_of(tiny, "llama")
    for place in (folder, path, str(tmp_path / "params")):
        assert_equal(flat(weights.load_params(place, model, tiny_mesh())), tiny.truth("llama", tensors))
        assert convert.architecture_of(place) == from_hf(tiny.CONFIGS["llama"])


def test_a_run_of_any_model_is_loaded_and_not_every_one_converted(tmp_path):
    """Token shift is of no family: such a run starts another, and no other program could read it."""
    model = tiny_model()
    params = run_folder(tmp_path / "run", model)
    assert_equal(flat(weights.load_params(tmp_path / "run", model, tiny_mesh(2, 2, 2))), flat(params))
    with pytest.raises(WeightsError, match=r"run/config.json: model: .*token_shift=True"):
        convert.convert(tmp_path / "run", tmp_path / "b")
    assert not (tmp_path / "b").exists()


# ---- what is wrong is said in one line -------------------------------------------------------------------


def test_places_without_weights(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("")
    (tmp_path / "begun" / "checkpoints").mkdir(parents=True)
    for name, message in (
        ("nothing", "there is nothing; valid: a folder with config.json and model.safetensors"),
        ("empty", "no weights there (it is empty); valid: "),
        ("text.gguf", "it is no GGUF file; valid: "),
        ("other", "no weights there (notes.txt); valid: "),
        ("begun", "there is no checkpoint"),
    ):
        for call in (lambda p: weights.load_params(p, tiny_model(), tiny_mesh()), convert.architecture_of):
            with pytest.raises(ConfigError) as caught:
                call(tmp_path / name)
            assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def whole_run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    run_folder(folder, model_of(tiny, "qwen2"))
    return folder


def truncate(newest):
    file = max((newest / "params").glob("**/d/*"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def forge(newest):
    meta = json.loads((newest / "meta" / "metadata").read_text())
    meta["digest"][next(path for path in meta["digest"] if path.startswith(".params"))] += 1
    (newest / "meta" / "metadata").write_text(json.dumps(meta))


def lose_all(newest):
    for step in newest.parent.iterdir():
        shutil.rmtree(step)


# orbax leaves coroutines behind when a read fails, and Python says so when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage, to, message",
    [
        (truncate, "hf", "run: checkpoint 2 is damaged, or cannot be read into this model ("),
        (forge, "hf", "run: checkpoint 2 is damaged; its parameters are not those that were saved; valid: "),
        (
            forge,
            "params",
            "run: checkpoint 2 is damaged; its parameters are not those that were saved; valid: ",
        ),
        (lambda newest: shutil.rmtree(newest / "meta"), "hf", "run: checkpoint 2 is damaged, or cannot be"),
        (lambda newest: shutil.rmtree(newest / "params"), "hf", "run/checkpoints/2/params: "),
        (lose_all, "hf", "run: there is no checkpoint; valid: the folder of a run that has saved one"),
    ],
)
def test_a_damaged_run(whole_run, tmp_path, monkeypatch, capsys, damage, to, message):
    """What is named is what was given, not a key of a config that nobody set."""
    shutil.copytree(whole_run, tmp_path / "run")
    damage(tmp_path / "run" / "checkpoints" / "2")
    monkeypatch.chdir(tmp_path)
    assert command.run(["run", "b", f"--to={to}"]) == 2
    said = capsys.readouterr().err.splitlines()[0]
    assert said.startswith(f"sdd: {message}") and "init_from" not in said
    assert not Path("b").exists()
    gc.collect()


def test_another_model_than_the_checkpoint_has(tiny, tmp_path):
    run_folder(tmp_path / "run", tiny_model())
    with pytest.raises(ConfigError, match="cannot be read into this model"):
        weights.load_params(tmp_path / "run", tiny_model(width=40), tiny_mesh())


def test_an_interrupted_conversion_leaves_nothing(hf, tmp_path, monkeypatch):
    folder, _ = hf("llama")

    def failing(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        convert.convert(folder, tmp_path / "b", to="params")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_types_that_cannot_be_written(hf, tmp_path):
    folder, _ = hf("llama")
    with pytest.raises(WeightsError, match=r"^dtype='int8': valid: auto, bfloat16, float16, float32"):
        convert.convert(folder, tmp_path / "b", dtype="int8")
    with pytest.raises(WeightsError, match=r"^dtype='bfloat16': parameters of a run are float32"):
        convert.convert(folder, tmp_path / "b", to="params", dtype="bfloat16")


# ---- the command -----------------------------------------------------------------------------------------


def test_the_command(hf, tmp_path, capsys):
    folder, tensors = hf("llama")
    assert command.run([str(folder), str(tmp_path / "b"), "--dtype=bfloat16"]) == 0
    said = capsys.readouterr()
    numbers = sum(x.size for x in tensors.values())
    assert said.out == f"{tmp_path / 'b'}: llama, 30 tensors, bfloat16, {2 * numbers / 1e6:.3g} MB\n"
    assert said.err == ""
    assert command.run([str(folder), str(tmp_path / "b")]) == 2
    assert capsys.readouterr().err == (
        f"sdd: {tmp_path / 'b'}: it is there already; valid: a new or an empty folder\n"
    )


@pytest.mark.parametrize(
    "args, message",
    [
        ([], "the following arguments are required: SRC, DST (see sdd convert --help)"),
        (["a"], "the following arguments are required: DST (see sdd convert --help)"),
        (["a", "b", "--to=zip"], "argument --to: invalid choice: 'zip'"),
        (["a", "b", "--max-shard-gb=0"], "argument --max-shard-gb: '0'; valid: a number above 0"),
        (["/nowhere/a", "b"], "/nowhere/a: there is nothing; valid: "),
        (["/dev/null", "b"], "/dev/null: it is no GGUF file; valid: "),
    ],
)
def test_the_command_refuses(args, message, capsys):
    assert command.run(args) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"sdd: {message}") and said.err.count("\n") == 1 and said.out == ""


def test_the_help_is_quick_and_complete():
    """Neither arrays nor orbax are imported for ``sdd --help``."""
    code = "import sys, sdd.weights.command as c; print([m for m in ('jax', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    for word in ("SRC", "DST", "--to=hf", "--to=params", "--dtype=TYPE", "--max-shard-gb=X"):
        assert word in command.HELP
