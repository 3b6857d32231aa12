"""Small things about files: JSON that must be an object, and a folder that appears whole or not at all."""

import contextlib
import importlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from sdd.typed import error_line
from sdd.weights.errors import WeightsError

SINGLE, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
DTYPES = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
}


def package(name: str) -> Any:
    """An optional package.

    Raises:
      WeightsError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        if error.name != top:
            raise
        raise WeightsError(f"the package {top} is not installed; pip install {top}") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      WeightsError: no such file, no JSON, or no object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: {error_line(error)}; valid: a JSON object") from None
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: a {type(found).__name__}; valid: a JSON object")
    return found


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its name when the block ends well.

    Raises:
      WeightsError: ``folder`` is there and not empty, or nothing can be written beside it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WeightsError(f"{folder}: it is there already; valid: a new or an empty folder")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in [*(path for path in temporary.rglob("*") if path.is_file()), temporary]:
            sync(path)
        os.rename(temporary, folder)
        sync(folder.parent)
    except OSError as error:
        raise WeightsError(f"{folder}: it cannot be written ({error_line(error)})") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
