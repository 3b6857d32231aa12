"""Reading the files of tokenizers: every trouble is one line that names the file."""

import importlib
import json
from types import ModuleType
from typing import Any

from etils import epath


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def read_text(path: epath.Path) -> str:
    """Returns the text of a file.

    Raises:
      ValueError: no such file, or not UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {first_line(error)}; valid: a text file in UTF-8") from None


def read_json(path: epath.Path) -> dict[str, Any]:
    """Returns the object in a JSON file; an empty one where there is no file.

    Raises:
      ValueError: the file is no JSON, or holds something else than an object.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno}: {error.msg}; valid: a JSON object") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: a {type(found).__name__}; valid: a JSON object")
    return found


def package(name: str, where: str) -> ModuleType:
    """Returns an optional package.

    Raises:
      ValueError: it is not installed; the line says for which file it is needed, and what to install.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise ValueError(f"{where}: needs the package {name!r}, not installed; pip install {name}") from None
