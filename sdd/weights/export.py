"""Folders as Hugging Face has them, written: config.json and safetensors, whole or not at all."""

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from sdd.mesh import P
from sdd.model.presets import Architecture, to_hf
from sdd.types import Params
from sdd.weights.assemble import path_name
from sdd.weights.errors import WeightsError
from sdd.weights.files import CONFIG, DTYPES, INDEX, SINGLE, new_folder, package
from sdd.weights.mapping import Entry, entries, shapes, to_theirs

EXPORTS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def save(
    params: Params,
    architecture: Architecture,
    folder: str | Path,
    max_shard_bytes: float = 5e9,
    dtype: str = "float32",
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Writes parameters as a folder that transformers loads: config.json and safetensors.

    The folder appears whole or not at all. On the host lies one shard at a time. Where several
    processes share the parameters, all of them call this, and the first one writes.

    Args:
      params: of a model with this architecture.
      architecture: what config.json says.
      folder: does not exist, or is empty.
      max_shard_bytes: a larger model is cut into files of at most this size, if its tensors allow.
      dtype: of the tensors: "float32", "bfloat16" or "float16".
      extra: more keys of config.json, as eos_token_id.

    Raises:
      WeightsError: parameters of another architecture, a folder that is there, an unknown dtype, or
        numbers that float16 cannot hold.
    """
    leaves = {path_name(p): x for p, x in jax.tree_util.tree_leaves_with_path(params)}
    parts = list(entries(*architecture))
    expected = shapes(architecture.config, architecture.vocab_size)
    for path in sorted(expected | leaves):
        shape = tuple(leaves[path].shape) if path in leaves else None
        if shape != expected.get(path):
            raise WeightsError(
                f"parameter {path}: {architecture.family} has it as {expected.get(path)}, found {shape}"
            )
    make = lambda e: to_theirs(fetch(leaves[e.path], e.layer), e.row)  # noqa: E731
    config = to_hf(architecture) | dict(extra or {})
    write(parts, make, config, Path(folder), max_shard_bytes, dtype)


def fetch(x: Any, layer: int | None) -> np.ndarray:
    """A parameter, or one layer of it, whole on this host."""
    sharding = getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):  # on one device
        return np.asarray(x if layer is None else x[layer])
    with jax.set_mesh(sharding.mesh):
        one = whole(x) if layer is None else whole_layer(x, layer)
    return np.asarray(one.addressable_data(0))


@jax.jit
def whole(x: jax.Array) -> jax.Array:
    """The array, on every device."""
    return jax.sharding.reshard(x, P())


@jax.jit
def whole_layer(x_Lx: jax.Array, layer: int) -> jax.Array:
    """A slice of a stacked parameter, on every device."""
    return jax.sharding.reshard(jax.lax.dynamic_index_in_dim(x_Lx, layer, 0, keepdims=False), P())


def write(
    parts: Sequence[Entry],
    make: Callable[[Entry], np.ndarray],
    config: Mapping[str, Any],
    folder: Path,
    max_shard_bytes: float,
    dtype: str,
    files: Mapping[str, bytes] | None = None,
) -> None:
    """Writes tensors, as `save` does.

    Args:
      parts: the tensors, in the order in which they are written.
      make: an entry's tensor, in the file's layout; called once, when its shard is written.
      config: what config.json says, but for the dtype.
      folder, max_shard_bytes, dtype: see `save`.
      files: others that are written beside them: name -> content.

    Raises:
      WeightsError: see `save`.
    """
    numpy_format = package("safetensors.numpy")

    if dtype not in EXPORTS:
        raise WeightsError(f"dtype={dtype!r}: valid: {', '.join(EXPORTS)}")
    number = DTYPES[EXPORTS[dtype]]
    shards = plan(parts, max_shard_bytes, number.itemsize)
    names = [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    names = [SINGLE] if len(shards) == 1 else names
    first = jax.process_index() == 0
    with new_folder(folder) if first else contextlib.nullcontext(folder) as temporary:
        for name, shard in zip(names, shards):
            made = {e.name: cast(e, make(e), number) for e in shard}  # collectives: every process makes them
            if first:
                numpy_format.save_file(made, temporary / name, metadata={"format": "pt"})
        if first and len(shards) > 1:
            total = sum(size(e) for e in parts) * number.itemsize
            index = {e.name: name for name, shard in zip(names, shards) for e in shard}
            text = json.dumps(
                {"metadata": {"total_size": total}, "weight_map": index}, indent=2, sort_keys=True
            )
            (temporary / INDEX).write_text(text + "\n")
        if first:
            for name, content in (files or {}).items():
                (temporary / name).write_bytes(content)
            said = {**config, "dtype": dtype, "torch_dtype": dtype}
            (temporary / CONFIG).write_text(json.dumps(said, indent=2) + "\n")


def plan(parts: Sequence[Entry], max_bytes: float, itemsize: int) -> list[list[Entry]]:
    """Tensors in order, cut where the next one would make a file larger than ``max_bytes``."""
    shards: list[list[Entry]] = [[]]
    held = 0
    for entry in parts:
        more = size(entry) * itemsize
        if shards[-1] and held + more > max_bytes:
            shards.append([])
            held = 0
        shards[-1].append(entry)
        held += more
    return shards


def size(entry: Entry) -> int:
    """Numbers in a tensor."""
    return math.prod(entry.stored_shape)


def cast(entry: Entry, x: np.ndarray, number: np.dtype) -> np.ndarray:
    """The array in the file's number type; float16 must not turn a large number into infinity."""
    with np.errstate(over="ignore"):
        out = np.ascontiguousarray(x, dtype=number)
    if number == np.float16 and np.isinf(out).sum() != np.isinf(x).sum():
        raise WeightsError(
            f"{entry.name}: {np.abs(x).max():.3g} does not fit dtype='float16'; valid: bfloat16, float32"
        )
    return out
