"""GGUF files, of llama.cpp: float tensors as they are, quantised ones dequantised, a block at a time."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from sdd.model import Model
from sdd.model.presets import Architecture, from_hf
from sdd.typed import error_line
from sdd.types import Params
from sdd.weights.assemble import Source, Stored, abstract_params, assemble, check, check_architecture
from sdd.weights.errors import WeightsError
from sdd.weights.files import package
from sdd.weights.gguf_config import hf_config
from sdd.weights.mapping import Entry, Index, entries

MAGIC = b"GGUF"

# Of the architectures in REQUIRED: those whose Q and K rows lie so that RoPE turns neighbours, where
# Hugging Face's turn the halves of a head; and those whose norms are stored as 1 + w.
INTERLEAVED = ("llama",)
PLUS_ONE = ("gemma2", "gemma3")

# Those that gguf.quants.dequantize knows.
TYPES = (
    *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
    *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "MXFP4"),
    *("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS"),
)

IGNORED = frozenset({"rope_freqs.weight"})  # numbers that follow from the metadata; see `gguf_config`


class File(NamedTuple):
    """An open file.

    Attributes:
      path: where it lies.
      fields: metadata, by its keys; of the tokenizer, only which tokens are special.
      tensors: name -> the reader's tensor, memory-mapped.
    """

    path: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, Any]


def load_gguf(path: str | Path, model: Model, mesh: Mesh, dtype: Any = None) -> Params:
    """Reads a GGUF file into a model's parameters, sharded as ``model.init`` would have them.

    The file is memory-mapped. On the host lies one tensor of one layer at a time, dequantised.

    Args:
      path: of the file; one that is split into several is not read.
      model: the decoder; its config must be what the metadata says.
      mesh: where the parameters go.
      dtype: of the parameters; None: float32.

    Raises:
      WeightsError: no GGUF, a damaged one, an architecture that is not built here or not the model's,
        or tensors that are missing, unexpected, of another shape or of a type that cannot be read.
    """
    file = open_file(Path(path))
    architecture = architecture_of(file)
    check_architecture(file.path, architecture, model)
    template = abstract_params(model, mesh)
    parts = list(entries(model.config, model.vocab_size, architecture.family))
    source = as_source(file, architecture)
    check(source, parts, f"a {architecture.family} with the sizes of its metadata")
    return assemble(source, parts, template, mesh, dtype)


def open_file(path: Path) -> File:
    """Reads a file's header.

    Raises:
      WeightsError: it is no GGUF, or cut short.
    """
    gguf = package("gguf")
    try:
        with path.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        raise WeightsError(f"{path}: {error_line(error)}; valid: a .gguf file") from None
    if magic != MAGIC:
        raise WeightsError(
            f"{path}: it begins with {magic!r}; valid: a .gguf file, which begins with {MAGIC!r}"
        )
    try:
        reader = gguf.GGUFReader(path)
        fields = {
            key: field.contents()
            for key, field in reader.fields.items()
            if not key.startswith("tokenizer.") or key.endswith("_token_id")
        }
    except Exception as error:  # the reader indexes past the end of a file that is cut short: many kinds
        raise WeightsError(
            f"{path}: {error_line(error)}; valid: a whole GGUF file (cut short or damaged?)"
        ) from None
    if fields.get("split.count", 1) > 1:
        raise WeightsError(f"{path}: split.count={fields['split.count']}; valid: a model in one file")
    return File(path, fields, {tensor.name: tensor for tensor in reader.tensors})


def architecture_of(file: File) -> Architecture:
    """What the metadata describes.

    Raises:
      WeightsError: an architecture that is not built here, or metadata that does not suffice.
    """
    shapes = {name: tuple(int(n) for n in reversed(x.shape)) for name, x in file.tensors.items()}
    rope_freqs = file.tensors.get("rope_freqs.weight")
    freqs = None if rope_freqs is None else np.asarray(rope_freqs.data, np.float32)
    try:
        return from_hf(hf_config(file.fields, shapes, freqs))
    except ValueError as error:  # a ConfigError
        raise WeightsError(f"{file.path}: {error_line(error)}") from None


def as_source(file: File, architecture: Architecture) -> Source:
    """The tensors of a file under Hugging Face's names, layout and values."""
    gguf = package("gguf")
    kind = str(file.fields["general.architecture"])
    config = architecture.config
    names = gguf_names(kind, architecture)
    back = {theirs: name for name, theirs in names.items()}

    def read(name: str, index: Index) -> np.ndarray:
        tensor = file.tensors[names[name]]
        rows, *rest = index
        start, stop, _ = rows.indices(int(tensor.shape[-1]))
        # A copy: float32 would stay a view of the file, and parameters would change with it.
        x = gguf.quants.dequantize(np.array(tensor.data[start:stop]), tensor.tensor_type)
        if kind in INTERLEAVED and name.endswith(("q_proj.weight", "k_proj.weight")):
            x = halves(x, config.head_dim)  # a block is of whole heads
        if kind in PLUS_ONE and name.endswith("norm.weight"):
            x = x - np.float32(1)
        return x[(slice(None), *rest)]

    stored = {
        back.get(name, name): Stored(
            tuple(int(n) for n in reversed(x.shape)), x.tensor_type.name, file.path.name
        )
        for name, x in file.tensors.items()
    }
    return Source(str(file.path), stored, read, TYPES, IGNORED, lambda name: names.get(name, name))


def gguf_names(kind: str, architecture: Architecture) -> dict[str, str]:
    """Hugging Face's name of each tensor -> GGUF's, as the package has them for this architecture."""
    gguf = package("gguf")
    arch = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[kind]
    table = gguf.get_tensor_name_map(arch, architecture.config.num_layers)
    parts: list[Entry] = list(entries(*architecture))
    found = {}
    for entry in parts:
        theirs = table.get_name(entry.name, try_suffixes=(".weight", ".bias"))
        if theirs is None:
            raise WeightsError(f"{entry.name}: the package gguf has no name for it in {kind!r}")
        found[entry.name] = theirs
    return found


def halves(x_RE: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows of whole heads, from "RoPE turns rows 2r and 2r+1" to "RoPE turns rows r and r+C/2"."""
    split = x_RE.reshape(-1, head_dim // 2, 2, *x_RE.shape[1:])
    return split.swapaxes(1, 2).reshape(x_RE.shape)
