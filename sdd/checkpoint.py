"""Checkpoints with orbax: state, teacher, data position; asynchronous, atomic, verified on the way back.

A checkpoint holds three items: ``params`` (so that another run can start from them
alone), ``rest`` (optimizer, teacher, counters) and ``meta`` (JSON: the data position
and a digest of every array); a fourth, ``ahead``, where rollouts were sampled ahead.
The digest is what notices a damaged file that still decodes; the newest checkpoint
that reads back whole is the one that is used.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from orbax.checkpoint import multihost

from sdd import runfolder
from sdd.config import ConfigError
from sdd.mesh import rows
from sdd.typed import error_line
from sdd.types import Params, Rollouts, TrainState


class Restored(NamedTuple):
    """Attributes:
    state: the training state, sharded like the template.
    meta: what :func:`save` was given.
    ahead: rollouts of the next step, where `save` was given them.
    damaged: steps of newer checkpoints that could not be used, with the reason.
    """

    state: TrainState
    meta: dict[str, Any]
    ahead: Rollouts | None
    damaged: tuple[tuple[int, str], ...]


@contextlib.contextmanager
def open_manager(workdir: epath.PathLike, keep: int) -> Iterator[ocp.CheckpointManager]:
    """Opens ``<workdir>/checkpoints``, keeping the newest ``keep``, for the time of the block.

    Of several processes one that fails does not close it: there it would wait for the others.
    """
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        enable_async_checkpointing=True,
        async_options=ocp.AsyncOptions(barrier_sync_fn=_barrier if jax.process_count() > 1 else None),
    )
    manager = ocp.CheckpointManager(runfolder.folder(workdir) / "checkpoints", options=options)
    try:
        yield manager
    except BaseException:
        if jax.process_count() == 1:
            manager.close()
        raise
    manager.close()


def _barrier(*, key: str, timeout_ms: int) -> None:
    """Orbax's own, but not while an error is on its way: the other processes would not come."""
    if error := sys.exc_info()[1]:
        raise error
    multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def save(
    manager: ocp.CheckpointManager, state: TrainState, meta: dict[str, Any], ahead: Rollouts | None = None
) -> None:
    """Starts to write a checkpoint of ``state``; training may go on meanwhile.

    ``ahead`` are rollouts of the next step that older parameters drew: nothing else could repeat them.

    One that is there already stays. An error of the write before is raised here.
    """
    step = int(state.step)
    if step in manager.all_steps():
        return
    params, rest = state.params, state._replace(params=())
    items = {"params": ocp.args.StandardSave(params), "rest": ocp.args.StandardSave(rest._asdict())}
    if ahead is not None:
        items["ahead"] = ocp.args.StandardSave(ahead._asdict())
    meta = meta | {"digest": digest(state), "digest_ahead": digest(ahead)}
    manager.save(step, args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(meta)))


def restore_newest(manager: ocp.CheckpointManager, template: TrainState) -> Restored | None:
    """The newest checkpoint that reads back whole, or None where there is none.

    Damaged ones are moved aside (``damaged_<step>``), never deleted. The template's shapes and shardings
    are enough; see `sdd.mesh.abstract`.

    Raises:
      ConfigError: there are checkpoints and none of them can be read.
    """
    damaged: list[tuple[int, str]] = []
    manager.reload()
    for step in sorted(manager.all_steps(), reverse=True):
        try:
            state, meta, ahead = _restore(manager, step, template)
        except Exception as error:  # orbax and tensorstore raise many kinds; each means: unreadable
            damaged.append((step, error_line(error)))
            continue
        _set_aside(manager, [bad for bad, _ in damaged])
        return Restored(state, meta, ahead, tuple(damaged))
    if damaged:
        raise ConfigError(
            f"no checkpoint in {manager.directory} can be read (newest: step {damaged[0][0]}: "
            f"{damaged[0][1]}); move the folder away to start again"
        )
    return None


def _restore(manager: ocp.CheckpointManager, step: int, template: TrainState):
    wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    items = {
        "params": ocp.args.StandardRestore(wanted.params),
        "rest": ocp.args.StandardRestore(wanted._replace(params=())._asdict()),
    }
    folder = epath.Path(manager.directory) / str(step) / "ahead"
    if folder.exists():
        items["ahead"] = ocp.args.StandardRestore(_saved_rows(folder))
    found = manager.restore(step, args=ocp.args.Composite(**items, meta=ocp.args.JsonRestore()))
    state = TrainState(**found.rest)._replace(params=found.params)
    ahead = Rollouts(**found.ahead) if "ahead" in items else None
    for tree, name in ((state, "digest"), (ahead, "digest_ahead")):
        expected, bits = found.meta.pop(name, {}), digest(tree)
        wrong = [path for path in expected if bits.get(path) != expected[path]]
        if wrong:
            raise ValueError(f"{len(wrong)} arrays differ from what was saved, first {wrong[0]}")
    return state, found.meta, ahead


def _saved_rows(folder: epath.Path) -> dict[str, jax.ShapeDtypeStruct]:
    """Shapes of arrays of rows, as they were saved, with their sharding on the mesh in use."""
    mesh = jax.sharding.get_mesh()
    with ocp.StandardCheckpointer() as reader:
        saved = reader.metadata(folder).item_metadata
    return {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, rows(len(x.shape))))
        for name, x in saved.items()
    }


def _set_aside(manager: ocp.CheckpointManager, steps: list[int]) -> None:
    """Renames checkpoints so that the run, which will come to their steps again, can write them anew."""
    folder = epath.Path(manager.directory)
    for step in steps if jax.process_index() == 0 else ():
        taken = sum(1 for _ in folder.glob(f"damaged_{step}*"))
        (folder / str(step)).rename(folder / (f"damaged_{step}" + (f"_{taken + 1}" if taken else "")))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("damaged checkpoints are set aside")
    if steps:
        manager.reload()


def steps_of(run_folder: epath.PathLike) -> list[int]:
    """The steps that a run has checkpoints of, ascending.

    Raises:
      ConfigError: there is none.
    """
    folder = runfolder.folder(run_folder) / "checkpoints"
    steps = sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []
    if not steps:
        raise ConfigError(
            f"{run_folder}: there is no checkpoint; valid: the folder of a run that has saved one"
        )
    return steps


def restore_params(run_folder: epath.PathLike, template: Params, step: int | None = None) -> Params:
    """The parameters of another run's checkpoint, the newest one unless ``step`` names another.

    Raises:
      ConfigError: there is no such checkpoint, it is damaged, or its parameters are not the template's.
    """
    step = steps_of(run_folder)[-1] if step is None else step
    newest = runfolder.folder(run_folder) / "checkpoints" / str(step)
    said = f"{run_folder}: checkpoint {step}"
    wanted = jax.tree.map(ocp.utils.to_shape_dtype_struct, template)
    try:
        with ocp.StandardCheckpointer() as reader:
            params = reader.restore(newest / "params", wanted)
        saved = json.loads((newest / "meta" / "metadata").read_text())["digest"]
    except Exception as error:  # as in restore_newest
        raise ConfigError(
            f"{said} is damaged, or cannot be read into this model ({error_line(error)}); "
            "valid: a whole one of a run whose config.model and task are the same"
        ) from None
    found = {f".params{path}": bits for path, bits in digest(params).items()}
    if found != {path: bits for path, bits in saved.items() if path.startswith(".params[")}:
        raise ConfigError(
            f"{said} is damaged; its parameters are not those that were saved; valid: a whole one"
        )
    return params


def digest(tree: Any) -> dict[str, int]:
    """A 32-bit sum of the bits of every array, by path; the same on every mesh."""
    sums = jax.device_get(_bit_sums(tree))
    return {jax.tree_util.keystr(path): int(x) for path, x in jax.tree_util.tree_leaves_with_path(sums)}


@jax.jit
def _bit_sums(tree: Any) -> Any:
    def one(x):
        if x.dtype == jnp.bool_ or x.dtype.itemsize not in (2, 4):
            bits = x.astype(jnp.uint32)
        else:
            bits = jax.lax.bitcast_convert_type(x, {2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize])
        return jnp.sum(bits.astype(jnp.uint32), dtype=jnp.uint32)

    return jax.tree.map(one, tree)


def wait(manager: ocp.CheckpointManager) -> None:
    """Returns when every started checkpoint is on the disk."""
    manager.wait_until_finished()
