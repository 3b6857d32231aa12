"""A run's settings: ConfigDict -> frozen dataclasses, once; what cannot work is refused in one line.

An experiment file offers ``get_config() -> ConfigDict``, usually `default` with a few values changed.
`resolve` turns it into a `RunConfig`, which everything else reads. The sections ``task`` and ``step``
name a module by dotted path and hold the fields of that module's own ``Config`` beside the name.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ml_collections
from ml_collections import config_dict

from sdd import lookup
from sdd.ranges import check_ranges
from sdd.settings import (
    EvalConfig,
    LayoutConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    SamplingConfig,
    Section,
    TrainConfig,
    WriterConfig,
)
from sdd.typed import ConfigError, build, convert, unknown_key

__all__ = [
    "ConfigError",
    "EvalConfig",
    "LayoutConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "SamplingConfig",
    "Section",
    "TrainConfig",
    "WriterConfig",
    "check",
    "check_lengths",
    "check_splits",
    "default",
    "from_dict",
    "known_keys",
    "resolve",
    "to_dict",
    "with_module",
]

ROOT = "config"  # errors and flags name keys as config.train.num_steps
SECTIONS = ("task", "step")  # those that name a module


def default(task: str, step: str) -> ml_collections.ConfigDict:
    """Returns the config of a task and a method with every other value at its default.

    Args:
      task: dotted path of a task module, for example "sdd.tasks.concept_graph".
      step: dotted path of a step module, for example "sdd.steps.sdsd".

    Raises:
      ConfigError: no such module, or one without ``Config`` and ``make``.
    """
    names = {"task": task, "step": step}
    sections = {name: _section_defaults(f"{ROOT}.{name}.name", names[name]) for name in SECTIONS}
    hints = typing.get_type_hints(RunConfig).items()
    shared = {
        k: _defaults(hint) for k, hint in hints if dataclasses.is_dataclass(hint) and hint is not Section
    }
    return ml_collections.ConfigDict({"seed": RunConfig.seed, **sections, **shared})


def with_module(config: ml_collections.ConfigDict, section: str, name: str) -> None:
    """Puts another module into a section, in place, with that module's defaults.

    Args:
      config: an unlocked config, as `default` returns it.
      section: "task" or "step".
      name: dotted path of the module.
    """
    config[section] = ml_collections.ConfigDict(_section_defaults(f"{ROOT}.{section}.name", name))


def resolve(config: ml_collections.ConfigDict) -> RunConfig:
    """Returns the checked, frozen form of a config.

    Raises:
      ConfigError: an unknown key, a value of a wrong type, an invalid choice or a value out of range:
        one line with the key's full path, the value and what is valid.
    """
    return from_dict(config.to_dict())


def from_dict(values: Mapping[str, Any]) -> RunConfig:
    """`resolve` for a nested dict, as `to_dict` returns it and config.json holds it."""
    known = set(known_keys(RunConfig, ROOT))
    for section in SECTIONS:
        given = values.get(section)
        if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
            shown = given.get("name") if isinstance(given, Mapping) else given
            raise ConfigError(
                f"{ROOT}.{section}.name={shown!r}: valid: the dotted path of a module with Config and make"
            )
        options_class = _options_class(f"{ROOT}.{section}.name", given["name"])
        known |= {f"{ROOT}.{section}.name", *known_keys(options_class, f"{ROOT}.{section}")}
    _refuse_unknown(values, ROOT, known)
    sections: dict[str, Any] = {}
    for section in SECTIONS:
        options = dict(values[section])
        name = options.pop("name")
        options_class = _options_class(f"{ROOT}.{section}.name", name)
        sections[section] = Section(name, build(options_class, options, f"{ROOT}.{section}"))
    hints = typing.get_type_hints(RunConfig)
    rest = {k: convert(hints[k], v, f"{ROOT}.{k}") for k, v in values.items() if k not in SECTIONS}
    run = RunConfig(**sections, **rest)
    check(run)
    return run


def to_dict(run: RunConfig) -> dict[str, Any]:
    """The nested dict of a run's config; with ``json.dumps`` and `from_dict` it makes a round trip."""
    values = dataclasses.asdict(run)
    for section in SECTIONS:
        values[section] = {"name": values[section]["name"], **values[section]["options"]}
    return values


def check(run: RunConfig) -> None:
    """Refuses values out of range and values that do not fit each other.

    Raises:
      ConfigError: one line with key, value and what is valid.
    """
    check_ranges(run, ROOT)
    for section in SECTIONS:
        options = getattr(run, section).options
        if hasattr(options, "check"):
            options.check(run)


def check_lengths(
    run: RunConfig, context_length: int, response_length: int, teacher_context_length: int
) -> None:
    """Refuses sequences longer than ``config.model.max_length``; for when the task is built.

    Args:
      run: the config.
      context_length: most tokens of a prompt.
      response_length: most tokens of a response.
      teacher_context_length: most tokens of a prompt with a demonstration.

    Raises:
      ConfigError: a context and a response together are longer.
    """
    limit = run.model.max_length
    what, context = max(
        ("context", context_length), ("demonstration context", teacher_context_length), key=lambda x: x[1]
    )
    needed = context + response_length
    if limit and needed > limit:
        raise ConfigError(
            f"{ROOT}.model.max_length={limit}: the task's {what} of {context} tokens and response of "
            f"{response_length} need {needed}; valid: {needed} or more, or 0 (as long as the task needs)"
        )


def check_splits(run: RunConfig, splits: Sequence[str]) -> None:
    """Refuses an evaluation split that the task does not have; for when the task is built.

    Args:
      run: the config.
      splits: the task's evaluation splits.

    Raises:
      ConfigError: names the split and the nearest that there is.
    """
    for i, split in enumerate(run.eval.splits):
        if split not in splits:
            raise ConfigError(
                f"{ROOT}.eval.splits[{i}]={split!r}: {run.task.name} has no such split"
                f"{lookup.nearest(split, splits)}; valid: {', '.join(splits)}"
            )


def known_keys(cls: type, path: str) -> list[str]:
    """The dotted paths of a dataclass's fields, sections and what is in them."""
    keys = []
    for name, hint in typing.get_type_hints(cls).items():
        keys.append(f"{path}.{name}")
        if dataclasses.is_dataclass(hint) and hint is not Section:
            keys += known_keys(typing.cast(type, hint), f"{path}.{name}")
    return keys


def _refuse_unknown(values: Mapping[str, Any], path: str, known: set[str]) -> None:
    for key, value in values.items():
        if f"{path}.{key}" not in known:
            raise unknown_key(f"{path}.{key}", value, known)
        if isinstance(value, Mapping):
            _refuse_unknown(value, f"{path}.{key}", known)


def _options_class(key: str, name: str) -> type:
    try:
        module = lookup.resolve(name)
    except lookup.PathError as error:
        raise ConfigError(f"{key}={name!r}: {error}") from None
    missing = [part for part in ("Config", "make") if not hasattr(module, part)]
    if missing or not dataclasses.is_dataclass(module.Config):
        lacks = " and no ".join(missing) or "dataclass named Config"
        raise ConfigError(
            f"{key}={name!r}: it has no {lacks}; valid: a module with a dataclass Config and make"
        )
    return typing.cast(type, module.Config)


def _section_defaults(key: str, name: str) -> dict[str, Any]:
    return {"name": name, **_defaults(_options_class(key, name))}


def _defaults(cls: Any) -> dict[str, Any]:
    """Field -> default, of the annotated type: ``x: float = 1`` gives 1.0, so that a flag may set 0.5."""
    hints, values = typing.get_type_hints(cls), {}
    for field in dataclasses.fields(cls):
        value = None
        if dataclasses.is_dataclass(hints[field.name]):  # a section within the section
            values[field.name] = _defaults(hints[field.name])
            continue
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            value = field.default
        if value is not None:
            value = convert(hints[field.name], value, field.name)
        # ConfigDict takes the type of a value from its default; a placeholder gives one to None.
        values[field.name] = (
            config_dict.placeholder(_plain_type(hints[field.name])) if value is None else value
        )
    return values


def _plain_type(hint: Any) -> type:
    args = [arg for arg in typing.get_args(hint) if arg is not type(None)]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return _plain_type(args[0])
    if typing.get_origin(hint) is Literal:
        return type(args[0])
    return typing.get_origin(hint) or hint
