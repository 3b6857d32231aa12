"""Folders as Hugging Face has them: config.json, and model.safetensors or its shards with an index."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from sdd.model import Model
from sdd.model.presets import Architecture, from_hf
from sdd.typed import error_line
from sdd.types import Params
from sdd.weights.assemble import (
    Source,
    Stored,
    abstract_params,
    assemble,
    check,
    check_architecture,
)
from sdd.weights.errors import WeightsError
from sdd.weights.files import CONFIG, DTYPES, INDEX, SINGLE, package, read_json
from sdd.weights.mapping import ROOTS, Index, entries, renamed

# What a multimodal model has beside its decoder.
OTHERS = ("vision_tower.", "multi_modal_projector.", "model.vision_tower.", "model.multi_modal_projector.")


def load(folder: str | Path, model: Model, mesh: Mesh, dtype: Any = None) -> Params:
    """Reads a folder's tensors into a model's parameters, sharded as ``model.init`` would have them.

    The files are memory-mapped, and a device gets the part that it keeps. On the host lies one
    tensor of one layer at a time.

    Args:
      folder: with config.json, and model.safetensors or model.safetensors.index.json with its shards.
      model: the decoder; its config must be that of config.json.
      mesh: where the parameters go.
      dtype: of the parameters; None: float32, which holds bfloat16 and float16 exactly.

    Raises:
      WeightsError: files that are missing or damaged, another architecture, or tensors that are
        missing, unexpected or of another shape or type. Nothing is ever filled in.
    """
    folder = Path(folder)
    architecture = read_architecture(folder)
    check_architecture(folder / CONFIG, architecture, model)
    template = abstract_params(model, mesh)
    with opened(folder) as source:
        parts = list(entries(model.config, model.vocab_size, architecture.family))
        check(source, parts, f"a {architecture.family} with the sizes of {CONFIG}")
        return assemble(source, parts, template, mesh, dtype)


def read_architecture(folder: Path) -> Architecture:
    """What config.json describes.

    Raises:
      WeightsError: it is missing, no JSON, or describes what the decoder cannot be.
    """
    path = folder / CONFIG
    config = read_json(path)
    try:
        return from_hf(config)
    except ValueError as error:  # a ConfigError
        raise WeightsError(f"{path}: {error_line(error)}") from None


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Source]:
    """The tensors of a folder, by their names in a model of text alone.

    Raises:
      WeightsError: a file that is missing, damaged or not as the index says.
    """
    safetensors = package("safetensors")

    with contextlib.ExitStack() as stack:
        files: dict[str, Any] = {}
        homes: dict[str, Stored] = {}
        for name in shard_names(folder):
            path = folder / name
            try:
                files[name] = stack.enter_context(safetensors.safe_open(path, framework="np"))
                # Headers are read here; what is said of the tensors' place must hold for the whole file.
                stored = {tensor: files[name].get_slice(tensor) for tensor in list(files[name].keys())}
            except (OSError, safetensors.SafetensorError) as error:
                raise WeightsError(
                    f"{path}: {error_line(error)}; valid: a whole safetensors file (cut short or damaged?)"
                ) from None
            for tensor, header in stored.items():
                if tensor in homes:
                    raise WeightsError(f"{path}: {tensor} is in {homes[tensor].file} too; valid: each once")
                homes[tensor] = Stored(tuple(header.get_shape()), header.get_dtype(), name)
        check_index(folder, homes)
        yield as_text_model(folder, homes, files)


def as_text_model(folder: Path, homes: Mapping[str, Stored], files: Mapping[str, Any]) -> Source:
    """Renames what lies under a multimodal model's prefix, and leaves its other parts out."""
    safetensors = package("safetensors")

    roots = [root for root in ROOTS if f"{root[0]}embed_tokens.weight" in homes]
    root = roots[0] if roots else ROOTS[0]
    inner, outer = root
    short = {
        name: "model." + name.removeprefix(inner) if name.startswith(inner) else name.removeprefix(outer)
        for name in homes
    }
    short |= {name: "lm_head.weight" for name in homes if name == renamed("lm_head.weight", root)}
    long = {new: old for old, new in short.items()}
    multimodal = root in ROOTS[1:3]
    others = {short[name] for name in homes if multimodal and name.startswith(OTHERS)}

    def read(name: str, index: Index) -> np.ndarray:
        home = homes[long[name]]
        try:
            return files[home.file].get_slice(long[name])[index]
        except (OSError, safetensors.SafetensorError) as error:
            raise WeightsError(f"{folder / home.file}: {long[name]}: {error_line(error)}") from None

    stored = {short[name]: home for name, home in homes.items()}
    label = lambda name: renamed(name, root)  # noqa: E731
    return Source(str(folder), stored, read, tuple(DTYPES), frozenset(others), label)


def shard_names(folder: Path) -> list[str]:
    """The files of a folder that hold tensors."""
    if (folder / INDEX).is_file():
        return sorted(set(weight_map(folder).values()))
    if not (folder / SINGLE).is_file():
        others = sorted(path.name for path in folder.glob("*") if path.suffix in (".bin", ".safetensors"))
        raise WeightsError(
            f"{folder}: no {SINGLE} and no {INDEX}{'; there is ' + ', '.join(others[:3]) if others else ''}"
        )
    return [SINGLE]


def weight_map(folder: Path) -> dict[str, str]:
    """Tensor -> shard, as the index says."""
    found = read_json(folder / INDEX).get("weight_map")
    if not isinstance(found, dict) or not found or not all(isinstance(x, str) for x in found.values()):
        raise WeightsError(f"{folder / INDEX}: weight_map: valid: an object of tensor: file name")
    missing = sorted({name for name in found.values() if not (folder / name).is_file()})
    if missing:
        there = sorted(path.name for path in folder.glob("*.safetensors"))
        raise WeightsError(
            f"{folder / INDEX}: weight_map names {len(missing)} files that are not there: "
            f"{', '.join(missing[:3])}; there is {', '.join(there[:3]) or 'no .safetensors file'}"
        )
    return found


def check_index(folder: Path, homes: Mapping[str, Stored]) -> None:
    """Raises WeightsError where a tensor is not in the shard that the index names."""
    if not (folder / INDEX).is_file():
        return
    for tensor, name in weight_map(folder).items():
        if tensor not in homes or homes[tensor].file != name:
            where = f"it is in {homes[tensor].file}" if tensor in homes else "it is in no shard"
            raise WeightsError(f"{folder / INDEX}: {tensor} should be in {name}; {where}")
