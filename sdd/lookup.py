"""Dotted path -> module or attribute; what cannot be found is answered with what there is."""

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

_SHOWN = 20  # names listed in an error


class PathError(ValueError):
    """A dotted path that leads nowhere; one line."""


def resolve(path: str) -> Any:
    """Returns the module or attribute that a dotted path names, importing what it must.

    Args:
      path: for example ``"sdd.steps.sdsd"`` or ``"my_package.my_step.Config"``.

    Raises:
      PathError: nothing is there; one line with the nearest names and what the last part that exists offers.
      ImportError: a module on the path exists, and an import inside it fails.
    """
    parts = path.split(".")
    if not all(part.isidentifier() for part in parts):
        raise PathError(f"{path!r} is not a dotted path; it must look like package.module")
    found: Any = _import(parts[0])
    if found is None:
        known = {*sys.modules, *(module.name for module in pkgutil.iter_modules())}
        near = nearest(parts[0], (name for name in known if "." not in name))
        raise PathError(
            f"no module {parts[0]!r} (of {path!r}){near}; it must be installed, or lie in the repository "
            "of the config file or on PYTHONPATH"
        )
    for i, part in enumerate(parts[1:], start=1):
        owner = ".".join(parts[:i])
        child = getattr(found, part, None)
        if child is None and isinstance(found, ModuleType):
            child = _import(f"{owner}.{part}")
        if child is None and not hasattr(found, part):
            names = offers(found)
            listed = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            raise PathError(
                f"{owner!r} has no {part!r}{nearest(part, names)}; it offers: {listed or 'nothing'}"
            )
        found = child
    return found


def offers(thing: Any) -> list[str]:
    """The public names of a module or an object, sorted; of a package its modules too."""
    if not isinstance(thing, ModuleType):
        return sorted(name for name in dir(thing) if not name.startswith("_"))
    public = getattr(thing, "__all__", None) or [
        name for name, value in vars(thing).items() if not isinstance(value, ModuleType)
    ]
    modules = (module.name for module in pkgutil.iter_modules(getattr(thing, "__path__", ())))
    return sorted(name for name in {*public, *modules} if not name.startswith("_"))


def nearest(name: str, names: Iterable[str]) -> str:
    """`` (nearest: ...)`` with the names most like ``name``, or an empty text where none is."""
    close = difflib.get_close_matches(name, sorted(set(names)), n=3)
    return f" (nearest: {', '.join(close)})" if close else ""


def _import(name: str) -> ModuleType | None:
    """The module, or None where there is none; an error inside a module that exists is passed on."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # "a.b is not a package" names a.b.c; a missing import inside the module names something else.
        if error.name == name:
            return None
        raise
