"""What lies where in a run folder, and who may write there."""

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from sdd.config import ConfigError, RunConfig, to_dict
from sdd.logfile import PathLike, is_local
from sdd.typed import error_line
from sdd.writers import write_json_atomic

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numpy")


# What the file system answers when the disk is the trouble, and not the program.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
FORBIDDEN = (errno.EACCES, errno.EPERM)


def folder(workdir: PathLike) -> epath.Path:
    """The run folder, absolute: of this machine's file system, or of an object store (``gs://...``)."""
    path = epath.Path(workdir)
    return path.absolute() if is_local(path) else path


def data_folder(workdir: epath.Path) -> Path:
    """Where a task keeps its data, a folder of this machine in any case."""
    return Path(workdir) / "data" if is_local(workdir) else cached_data_folder(workdir)


def cached_data_folder(workdir: epath.Path) -> Path:
    """A folder for data in the user's cache, for a run folder that must not or cannot hold them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "sdd" / "data" / hashlib.sha256(os.fspath(workdir).encode()).hexdigest()[:16]


@contextlib.contextmanager
def locked(workdir: epath.Path) -> Iterator[Callable[[], None]]:
    """Holds the run folder for this run; what it yields is called before anything of weight is written.

    On a file system the lock ends with the process, however it ends. An object store has no such locks: there
    the newest run holds the folder, since a lock that a lost process left must not stop the next one, and an
    older one that is still alive notices.

    Yields:
      ``check()``, which raises ConfigError when another run has taken the folder over.

    Raises:
      ConfigError: another process is running there, or the folder cannot be written.
    """
    if jax.process_index() != 0:
        yield lambda: None
    elif is_local(workdir):
        with _locked_file(Path(workdir)):
            yield lambda: None
    else:
        yield _locked_object(workdir)


def _locked_object(workdir: epath.Path) -> Callable[[], None]:
    own = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "token": secrets.token_hex(8)})
    try:
        (workdir / ".lock").write_text(own)
    except Exception as error:  # each store has its own
        raise ConfigError(f"--workdir={workdir} cannot be written ({error_line(error)})") from None

    def check() -> None:
        found = (workdir / ".lock").read_text()
        if found != own:
            raise ConfigError(f"--workdir={workdir} was taken over by another run ({found}); this one ends")

    return check


@contextlib.contextmanager
def _locked_file(workdir: Path) -> Iterator[None]:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / ".lock", "w")  # noqa: SIM115 (closed below, with the lock)
    except OSError as error:
        raise ConfigError(f"--workdir={workdir} cannot be written ({error.strerror})") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"--workdir={workdir} is in use by another process") from None
        yield


@contextlib.contextmanager
def full_disk_in_one_line(workdir: epath.Path) -> Iterator[None]:
    """A disk that is full or read-only is not an error of the program.

    Raises:
      ConfigError: in place of an OSError, or of what orbax makes of one, with such a cause.
    """
    try:
        yield
    except Exception as error:
        own = [n for n in (*FULL, *FORBIDDEN) if isinstance(error, OSError) and n == error.errno]
        causes = own or [n for n in FULL if os.strerror(n) in str(error)]  # orbax wraps them in a text
        if not causes or isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{getattr(error, 'filename', None) or workdir} cannot be used ({os.strerror(causes[0])}); "
            "what was saved is still there, and the same command goes on from it"
        ) from error


def check_room(workdir: epath.Path, state: Any) -> None:
    """Refuses a disk that has no room for a checkpoint, before anything is trained.

    Args:
      workdir: the run folder.
      state: arrays, or their shapes, of what a checkpoint holds.

    Raises:
      ConfigError: what is free, and what is needed.
    """
    if jax.process_index() != 0 or not is_local(workdir):
        return
    needed = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise ConfigError(
            f"--workdir={workdir}: {free / 1e9:.2f} GB free, a checkpoint takes {needed / 1e9:.2f} GB; "
            "valid: a folder with more room"
        )


def check_owner(workdir: epath.Path, config: RunConfig) -> None:
    """Refuses a run folder that was begun with another config.

    Raises:
      ConfigError: the folder was begun with another config; names the first difference.
    """
    if jax.process_index() != 0:
        return
    path = workdir / "config.json"
    mine = flat(json.loads(json.dumps(to_dict(config))))
    if not path.exists():
        return
    try:
        theirs = flat(json.loads(path.read_text()))
    except ValueError:
        raise ConfigError(f"{path} is not JSON; use another --workdir") from None
    ignored = ("writers", "mesh")  # how a run is shown and laid out does not change what it is
    for key in sorted(set(mine) | set(theirs)):
        old, new = theirs.get(key), mine.get(key)
        if old != new and key.split(".")[0] not in ignored:
            raise ConfigError(
                f"config.{key}={new!r}: {workdir} was begun with {old!r}; "
                "use that value to go on, or another --workdir"
            )


def claim(workdir: epath.Path, config: RunConfig) -> None:
    """Writes the config and the environment: from now on the folder is this run's."""
    if jax.process_index() == 0:
        write_json_atomic(workdir / "config.json", to_dict(config))
        write_json_atomic(workdir / "environment.json", environment())


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dict -> dotted keys."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    joined = (flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in tree.items())
    return {key: value for part in joined for key, value in part.items()}


def environment() -> dict[str, Any]:
    """Versions and devices, for whoever wants to repeat the run."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    device = jax.devices()[0]
    return {
        "versions": versions,
        "device": device.device_kind,
        "num_devices": jax.device_count(),
        "python": platform.python_version(),
        "platform": device.platform,
    }


def rollouts_path(workdir: epath.Path, step: int, split: str) -> epath.Path:
    """Where the rollouts of an evaluation lie."""
    return workdir / "rollouts" / f"step_{step:06d}" / f"{split}.jsonl"


def details_path(workdir: epath.Path, step: int, split: str) -> epath.Path:
    """Where the tokens and drawings of those rollouts lie; see `sdd.details`."""
    return rollouts_path(workdir, step, split).with_name(f"{split}.details.npz")


def read_lines(path: Path | epath.Path) -> list[dict[str, Any]]:
    """The whole lines of a JSONL log; empty where there is none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def write_batch(workdir: epath.Path, step: int, batch: Any) -> epath.Path:
    """Keeps a batch that broke a step, as .npz with one array a field."""
    path = workdir / f"nonfinite_step_{step:06d}.npz"
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    arrays: dict[str, Any] = {
        jax.tree_util.keystr(p).strip("."): np.asarray(x) for p, x in leaves if x.is_fully_addressable
    }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path
