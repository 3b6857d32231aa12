"""The data sets of the package reasoning-gym: made by name, options checked, a harder one, scored."""

import contextlib
import dataclasses
import functools
import io
import json
from collections.abc import Mapping
from typing import Any

from sdd import lookup
from sdd.typed import ConfigError

KEY = "config.task"
# In version 0.1.25 a level more makes questions that take minutes, are never found, or have no solution.
_NO_CURRICULUM = ("jugs", "number_sequence", "puzzle24")


def prepare() -> None:
    """Imports the package; called in the verifier's process."""
    import reasoning_gym  # noqa: F401


def score(name: str, options: Mapping[str, Any], answer: str, entry: Mapping[str, Any]) -> float:
    """The package's score of an answer: 1.0 is right, less is partial credit.

    Args:
      name: of the data set.
      options: its options.
      answer: of the response.
      entry: the question, as the data set made it.
    """
    return float(_cached(name, json.dumps(options, sort_keys=True)).score_answer(answer, dict(entry)))


@functools.cache  # in the verifier's process there are one or two of them
def _cached(name: str, options: str) -> Any:
    return build(name, {**json.loads(options), "seed": 0, "size": 8})


def build(name: str, options: Mapping[str, Any]) -> Any:
    """The data set; what the package prints meanwhile is swallowed."""
    from reasoning_gym import create_dataset

    with contextlib.redirect_stdout(io.StringIO()):
        return create_dataset(name, **options)


def item(data: Any, index: int) -> dict[str, Any]:
    """A question: ``question``, ``answer`` (None where many are right) and ``metadata``."""
    with contextlib.redirect_stdout(io.StringIO()):
        return data[index]


def first_items(name: str, options: Mapping[str, Any], count: int) -> list[dict[str, Any]]:
    """The first questions of a data set with these options; without those that it cannot make."""
    found = []
    data = build(name, {**options, "seed": 0, "size": count})
    for i in range(count):
        with contextlib.suppress(Exception):  # the package gives up on some seeds
            found.append(item(data, i))
    return found


def parse_options(text: str, key: str) -> dict[str, Any]:
    """The options of a JSON object.

    Raises:
      ConfigError: it is none.
    """
    try:
        options = json.loads(text or "{}")
    except ValueError as error:
        raise ConfigError(
            f'{KEY}.{key}={text!r}: not JSON ({error}); valid: for example {{"max_terms": 5}}'
        ) from None
    if not isinstance(options, dict):
        raise ConfigError(f"{KEY}.{key}={text!r}: valid: a JSON object")
    return options


def check(name: str, options: Mapping[str, Any], key: str) -> None:
    """Refuses a data set that the package does not have, and options that it does not take.

    Raises:
      ConfigError: one line with the nearest names.
    """
    config_class = _config_class(name)
    known = [f.name for f in dataclasses.fields(config_class) if f.name not in ("seed", "size")]
    for option in options:
        if option not in known:
            why = "is set by the task" if option in ("seed", "size") else "is no option of it"
            raise ConfigError(
                f"{KEY}.{key}: {option!r} {why}{lookup.nearest(option, known)}; {name} has {', '.join(known)}"
            )
    try:
        build(name, {**options, "seed": 0, "size": 8})
    except Exception as error:  # the package asserts
        raise ConfigError(f"{KEY}.{key}={dict(options)!r}: {name} refuses that ({_line(error)})") from None


def harder_options(name: str, options: Mapping[str, Any], levels: int) -> dict[str, Any] | None:
    """Options some levels above the given ones, by the package's curriculum.

    Each attribute of the curriculum goes ``levels`` above the level whose value is nearest to what
    the options (or the defaults) have; ranges keep the top level only, where that is possible.

    Returns:
      None where the package has no curriculum for the data set, or none that goes higher.
    """
    from reasoning_gym.coaching.base_curriculum import DefaultCurriculumContext, RangeAttributeMode
    from reasoning_gym.factory import create_curriculum, has_curriculum

    if not has_curriculum(name) or name in _NO_CURRICULUM:
        return None
    base = _config_class(name)(**options)
    curriculum, fields = create_curriculum(name), []
    for attribute in curriculum.attributes.values():
        lower = getattr(attribute, "lower_field_name", None)
        field = attribute.field_name if lower is None else attribute.upper_field_name
        fields += [field] if lower is None else [lower, field]
        level = _nearest_level(attribute.levels, getattr(base, field), attribute.default_level)
        curriculum.set_attr_level(attribute.name, min(level + levels, len(attribute.levels) - 1))
    for mode in (RangeAttributeMode.UPPER_BOUND, RangeAttributeMode.INCLUSIVE):
        try:
            made = curriculum.generate_configuration(dict(options), DefaultCurriculumContext(mode))
            found = {field: getattr(made, field) for field in fields}
            build(name, {**options, **found, "seed": 0, "size": 8})
        except Exception:  # values that do not go together
            continue
        changed = any(found[field] != getattr(base, field) for field in fields)
        return {**options, **found} if changed else None
    return None


def _nearest_level(levels: list[Any], value: Any, default: int) -> int:
    if value in levels:
        return levels.index(value)
    numbers = [x for x in [value, *levels] if isinstance(x, int | float) and not isinstance(x, bool)]
    if len(numbers) < len(levels) + 1:
        return default
    return min(range(len(levels)), key=lambda i: abs(levels[i] - value))


def _config_class(name: str) -> Any:
    from reasoning_gym.factory import DATASETS

    names = sorted(set(DATASETS) - {"composite"})  # that one is made of others
    if name not in names:
        near = lookup.nearest(name, names)
        raise ConfigError(
            f"{KEY}.dataset={name!r}: reasoning-gym has no such data set{near}; valid: {', '.join(names)}"
        )
    return DATASETS[name][1]


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
