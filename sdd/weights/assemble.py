"""From tensors of any kind of file to parameters on the mesh, one layer's tensor at a time."""

import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from sdd import mesh as mesh_lib
from sdd.mesh import P
from sdd.model import Model
from sdd.model.hf_export import FREE, every_window
from sdd.model.presets import Architecture
from sdd.settings import ModelConfig
from sdd.types import Params
from sdd.weights.errors import WeightsError
from sdd.weights.mapping import Entry, Index, read_ours

SHOWN = 3  # tensors of each kind that an error lists

# Buffers that old exports hold and that a model computes by itself.
BUFFERS = re.compile(r"(^|\.)rotary_emb\.inv_freq$")


class Stored(NamedTuple):
    """What a header says about a tensor: its shape in the file, its number type, and the file."""

    shape: tuple[int, ...]
    dtype: str
    file: str


class Source(NamedTuple):
    """Tensors that can be read in parts, by the names that :class:`Entry` gives them.

    Attributes:
      where: the folder or file, for errors.
      stored: name -> what there is, in the order of the file.
      read: ``(name, index) -> numpy array`` of any float type; raises WeightsError.
      dtypes: number types that `read` can read.
      ignored: names that are there and are not used.
      label: ``name -> the file's own name of it``, for errors.
    """

    where: str
    stored: Mapping[str, Stored]
    read: Callable[[str, Index], np.ndarray]
    dtypes: tuple[str, ...]
    ignored: frozenset[str] = frozenset()
    label: Callable[[str], str] = str


def check(source: Source, entries: Iterable[Entry], what: str) -> None:
    """Compares a file with what the model needs, before anything is read.

    Args:
      source: the file.
      entries: the tensors of the model.
      what: the model's name, for the error.

    Raises:
      WeightsError: tensors are missing, unexpected, of another shape or of a type that cannot be read.
    """
    expected = {entry.name: entry.stored_shape for entry in entries}
    stored = source.stored
    names = set(stored) - source.ignored
    extra = [name for name in stored if name in names - set(expected) and not BUFFERS.search(name)]
    tied = [name for name in extra if name == "lm_head.weight"]  # a copy of the embedding, as some write it
    extra = [name for name in extra if name not in tied]
    missing = [name for name in expected if name not in stored]
    shaped = [name for name in expected if name in stored and stored[name].shape != expected[name]]
    dtypes = [name for name in expected if name in stored and stored[name].dtype not in source.dtypes]
    label, near = source.label, lambda name, others: nearest(source.label(name), map(source.label, others))
    problems = [
        listed("missing", missing, lambda x: f"{label(x)} {expected[x]}{near(x, extra)}"),
        listed("unexpected", extra, lambda x: f"{label(x)} {stored[x].shape}{near(x, missing)}"),
        listed(
            "of another shape",
            shaped,
            lambda x: f"{label(x)}: expected {expected[x]}, found {stored[x].shape}",
        ),
        listed(
            "of a type that cannot be read",
            dtypes,
            lambda x: f"{label(x)}: {stored[x].dtype} (valid: {', '.join(source.dtypes)})",
        ),
    ]
    found = [problem for problem in problems if problem]
    if found:
        raise WeightsError(f"{source.where}: not the {len(expected)} tensors of {what}: {'; '.join(found)}")


def listed(what: str, names: list[str], line: Callable[[str], str]) -> str:
    """``2 missing: a, b`` with no more than SHOWN of them; empty where there is none."""
    if not names:
        return ""
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {what}: {', '.join(map(line, names[:SHOWN]))}{more}"


def nearest(name: str, others: Iterable[str]) -> str:
    """`` (nearest: ...)``; names that differ in their last part only are the most alike."""
    near = difflib.get_close_matches(name, list(others), n=1, cutoff=0.8)
    return f" (nearest: {near[0]})" if near else ""


def abstract_params(model: Model, mesh: Mesh) -> Params:
    """The parameters' shapes and shardings, as ``model.init`` lays them out; nothing is computed."""
    with jax.set_mesh(mesh):
        return mesh_lib.abstract(model.init, jax.random.key(0))


def path_name(path: tuple[Any, ...]) -> str:
    """A path of jax.tree_util through nested dicts, as text."""
    return "/".join(str(key.key) for key in path)


def assemble(source: Source, entries: Iterable[Entry], template: Params, mesh: Mesh, dtype: Any) -> Params:
    """Reads every entry into the template's layout.

    A device gets only the part of a tensor that it keeps. On the host lies one tensor of one
    layer at a time, or as much of it as this process's devices need.

    Args:
      source: the file, which `check` has found whole.
      entries: every parameter, or every layer of it, once.
      template: shapes and shardings.
      mesh: the mesh of those shardings.
      dtype: of the parameters; None: the template's.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(template)
    abstract = {path_name(path): x for path, x in leaves}
    types = {path: np.dtype(dtype or x.dtype) for path, x in abstract.items()}
    params: dict[str, jax.Array] = {}
    with jax.set_mesh(mesh):
        for entry in entries:
            spec = abstract[entry.path].sharding.spec
            if entry.layer is None:
                params[entry.path] = put(source, entry, NamedSharding(mesh, spec), types[entry.path])
                continue
            if entry.layer == 0:
                shape = abstract[entry.path].shape
                params[entry.path] = jnp.zeros(shape, types[entry.path], out_sharding=spec)
            one = put(source, entry, NamedSharding(mesh, P(*spec[1:])), types[entry.path])
            params[entry.path] = write_layer(params[entry.path], one, entry.layer)
            params[entry.path].block_until_ready()  # or the host would read ahead without a bound
    return jax.tree_util.tree_unflatten(treedef, [params[path_name(path)] for path, _ in leaves])


@functools.partial(jax.jit, donate_argnums=0)
def write_layer(stacked_Lx: jax.Array, one_x: jax.Array, layer: int) -> jax.Array:
    """Writes a slice of a stacked parameter in place."""
    return jax.lax.dynamic_update_index_in_dim(stacked_Lx, one_x, layer, 0)


def put(source: Source, entry: Entry, sharding: NamedSharding, dtype: np.dtype) -> jax.Array:
    """One tensor on the mesh; blocks that several devices keep are read once."""
    blocks: dict[tuple[tuple[int, int, int], ...], np.ndarray] = {}

    def block(index: Index | None) -> np.ndarray:
        whole = index or (slice(None),) * len(entry.shape)
        key = tuple(s.indices(n) for s, n in zip(whole, entry.shape))
        if key not in blocks:
            read = functools.partial(source.read, entry.name)
            blocks[key] = np.ascontiguousarray(read_ours(read, entry, whole), dtype=dtype)
        return blocks[key]

    return jax.make_array_from_callback(entry.shape, sharding, block, dtype=dtype)


def check_architecture(where: Path, architecture: Architecture, model: Model) -> None:
    """Compares a model's config with the one that the weights were trained with.

    Raises:
      WeightsError: they differ in more than FREE; the line names the fields.
    """
    found, wanted = comparable(architecture.config), comparable(model.config)
    found["vocab_size"], wanted["vocab_size"] = architecture.vocab_size, model.vocab_size
    wrong = [key for key in wanted if not same(found[key], wanted[key])]
    if wrong:
        lines = ", ".join(f"{key}={wanted[key]!r} (there: {found[key]!r})" for key in wrong)
        raise WeightsError(
            f"{where}: a {architecture.family} of another config.model: {lines}; valid: that of the file"
        )


def comparable(config: ModelConfig) -> dict[str, Any]:
    """The fields that weights depend on; windows layer by layer, however the pattern was written."""
    fields = {key: value for key, value in dataclasses.asdict(config).items() if key not in FREE}
    return fields | {"windows": every_window(config)}


def same(a: Any, b: Any) -> bool:
    """Equality; of floats as far as a GGUF's float32 tells."""
    return math.isclose(a, b, rel_tol=1e-6) if isinstance(a, float) and isinstance(b, float) else a == b
