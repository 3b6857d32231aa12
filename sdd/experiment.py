"""Loads experiment files: Python files with ``get_config()``, and ``run`` where they are studies.

An experiment imports what lies in its own repository by full path, wherever the command is run
(``from experiments.concept_graph import base``): the folder that holds the nearest ``pyproject.toml``
or ``.git`` above the file, or else the file's own folder, goes on ``sys.path`` and stays there, so
that tasks and steps named by dotted path are found too.
"""

import difflib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections

from sdd.typed import ConfigError


def repository_root(file: Path) -> Path:
    """The nearest folder above ``file`` with ``pyproject.toml`` or ``.git``, or else the file's folder."""
    for folder in file.parents:
        if (folder / "pyproject.toml").exists() or (folder / ".git").exists():
            return folder
    return file.parent


def load(path: str | Path) -> ModuleType:
    """Returns the module of an experiment file; its repository stays on ``sys.path``.

    Raises:
      ConfigError: no such file, a file that fails on import, or one without ``get_config``.
    """
    file = Path(path).absolute()
    if not file.is_file():
        raise ConfigError(f"no config file {str(path)!r}{_neighbours(file)}")
    root = str(repository_root(file))
    if root not in sys.path:
        sys.path.insert(0, root)
    spec = importlib.util.spec_from_file_location(f"sdd_experiment_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"config file {str(path)!r}: valid: a Python file, its name ending in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise _in_one_line(error, file) from error
    if not callable(getattr(module, "get_config", None)):
        raise ConfigError(
            f"{path} has no get_config(); valid: a file that defines get_config() -> ConfigDict"
        )
    return module


def get_config(module: ModuleType) -> ml_collections.ConfigDict:
    """Returns the experiment's config.

    Raises:
      ConfigError: ``get_config`` fails, or returns something else.
    """
    file = Path(str(module.__file__))
    try:
        config: Any = module.get_config()
    except Exception as error:
        raise _in_one_line(error, file) from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(
            f"{file}: get_config() returned a value of type {type(config).__name__}; "
            "valid: an ml_collections.ConfigDict, for example from sdd.config.default"
        )
    return config


def _neighbours(file: Path) -> str:
    """What else there is where a file was looked for, as the end of an error."""
    if not file.parent.is_dir():
        return f" (there is no folder {str(file.parent)!r})"
    names = sorted(p.name for p in file.parent.glob("*.py"))
    close = difflib.get_close_matches(file.name, names, n=1)
    if close:
        return f"; nearest: {close[0]!r}"
    return f"; that folder holds: {', '.join(names[:20]) or 'no .py files'}"


def _in_one_line(error: Exception, file: Path) -> ConfigError:
    """What a file raised, with the last of its own lines that took part."""
    text = " ".join(str(error).split())
    if isinstance(error, ConfigError):
        return ConfigError(f"{file}: {text}")
    if isinstance(error, SyntaxError):
        return ConfigError(f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}")
    own = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)]
    where = f"{file}:{own[-1]}" if own else str(file)
    return ConfigError(f"{where}: {type(error).__name__}: {text}")
