"""Mappings -> frozen dataclasses by their annotations, with errors that name key, value and what is valid."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")

_NAMES = {
    bool: "True or False (bool)",
    int: "a whole number (int)",
    float: "a number (float)",
    str: "text (str)",
}


class ConfigError(ValueError):
    """A config that cannot be run: one line with the key, its value and what is valid."""


def error_line(error: BaseException, longest: int = 200) -> str:
    """What another package's error says, in one line; its type where it says nothing.

    Of an error of the system without the path, which the caller names.
    """
    said = getattr(error, "strerror", None) or " ".join(str(error).split())
    return str(said)[:longest] or type(error).__name__


def build(cls: type[T], values: Mapping[str, Any], path: str) -> T:
    """Returns an instance of a dataclass; fields without a value take their default.

    Args:
      cls: a dataclass whose fields are bool, int, float, str, Literal, ``tuple[X, ...]``,
        one of these or None, or another such dataclass.
      values: field -> value, as from a ConfigDict or JSON (a list does for a tuple, an int for a float).
      path: dotted path of ``values``, for errors.

    Raises:
      ConfigError: an unknown or missing field, a value of another type, or one that ``cls`` refuses.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}  # type: ignore[arg-type]
    for key, value in values.items():
        if key not in fields:
            raise unknown_key(f"{path}.{key}", value, [f"{path}.{name}" for name in fields])
    for name, field in fields.items():
        if name not in values and not has_default(field):
            raise ConfigError(f"{path}.{name}: no value; valid: {describe(hints[name])}")
    converted = {name: convert(hints[name], value, f"{path}.{name}") for name, value in values.items()}
    try:
        return cls(**converted)
    except ConfigError:
        raise
    except ValueError as error:  # of the dataclass's own __post_init__
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from None


def convert(annotation: Any, value: Any, path: str) -> Any:
    """Returns ``value`` as the annotation has it; raises ConfigError where it is of another type."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        if any(value == choice and type(value) is type(choice) for choice in args):
            return value
        raise ConfigError(f"{path}={value!r}: {_choices(value, args)}")
    if origin in (typing.Union, types.UnionType) and type(None) in args and len(args) == 2:
        inner = args[0] if args[1] is type(None) else args[1]
        return None if value is None else convert(inner, value, path)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis and isinstance(value, list | tuple):
        return tuple(convert(args[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if dataclasses.is_dataclass(annotation) and isinstance(value, Mapping):
        return build(typing.cast(type, annotation), value, path)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is float and number:
        if not math.isfinite(value):
            raise ConfigError(f"{path}={value!r}: valid: a finite number")
        return float(value)
    plain = annotation in (bool, int, str) and isinstance(value, annotation)
    if plain and (annotation is bool or not isinstance(value, bool)):  # a bool is an int to Python
        return value
    raise ConfigError(
        f"{path}={value!r}: a value of type {type(value).__name__}; valid: {describe(annotation)}"
    )


def describe(annotation: Any) -> str:
    """What values an annotation takes, in words."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _NAMES:
        return _NAMES[annotation]
    if origin is Literal:
        return ", ".join(map(repr, args))
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return f"a tuple, each entry {describe(args[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join("None" if arg is type(None) else describe(arg) for arg in args)
    if dataclasses.is_dataclass(annotation):
        return "a section with keys"
    return f"nothing that a config can hold (its annotation is {annotation})"


def unknown_key(path: str, value: Any, known: Iterable[str]) -> ConfigError:
    """The error for a key that does not exist, with the known keys most like it.

    A key of the same name in another section comes first: sections are what people confuse.
    """
    known = sorted(set(known))
    leaf = path.rpartition(".")[2]
    near = [key for key in known if key.rpartition(".")[2] == leaf]
    near += [key for key in difflib.get_close_matches(path, known, n=3, cutoff=0.8) if key not in near]
    near = near[:3] or difflib.get_close_matches(path, known, n=1, cutoff=0.0)
    return ConfigError(f"{path}={value!r}: unknown key; nearest: {', '.join(near) or 'none'}")


def has_default(field: dataclasses.Field) -> bool:
    """Whether a field of a dataclass may be left out."""
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _choices(value: Any, choices: tuple[Any, ...]) -> str:
    close = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    near = f"nearest: {close[0]!r}; " if close else ""
    return f"{near}valid: {', '.join(map(repr, choices))}"
