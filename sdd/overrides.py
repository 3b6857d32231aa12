"""``--config.KEY=VALUE`` on the command line -> changes of a ConfigDict."""

import ast
import re
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from sdd.config import ROOT, SECTIONS, with_module
from sdd.typed import ConfigError, describe, unknown_key

_OVERRIDE = re.compile(rf"--?(?P<no>no)?(?P<key>{ROOT}\.[^=]+)(?:=(?P<value>.*))?", re.DOTALL)


def split(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns (arguments that override a config's keys, the others), each in order."""
    ours = [arg for arg in args if _OVERRIDE.fullmatch(arg)]
    return ours, [arg for arg in args if not _OVERRIDE.fullmatch(arg)]


def apply(config: ml_collections.ConfigDict, args: Sequence[str]) -> ml_collections.ConfigDict:
    """Applies overrides to a config, in place, and locks it.

    ``--config.step.name=MODULE`` (or task) first puts that module's defaults into the section, so
    that the other overrides are of its keys. Tuples: ``--config.eval.ks=1,2,4``. Switches:
    ``--config.writers.tensorboard``, ``--noconfig.writers.progress``, or ``=true``, ``=false``.

    Args:
      config: as an experiment's ``get_config()`` returns it.
      args: overrides only, see `split`.

    Raises:
      ConfigError: an unknown key or a value of a wrong type.
    """
    parsed = [_parse(arg) for arg in args]
    with config.unlocked():
        for key, value in parsed:
            _swap_module(config, key, value)
    known = flatten(config)
    flags_of_config = []
    for (key, value), arg in zip(parsed, args):
        inside = [name for name in known if name.startswith(f"{key}.")]
        if inside:
            raise ConfigError(f"{key}={value!r}: a section; valid: its keys, such as --{inside[0]}=VALUE")
        if key not in known:
            raise unknown_key(key, value, known)
        if "=" not in arg and not isinstance(known[key], bool):
            raise ConfigError(f"{arg}: not a switch; valid: --{key}=VALUE, for example --{key}={known[key]}")
        if isinstance(known[key], tuple):
            value = _tuple_text(value)
        flags_of_config.append(f"--{key}={value}")
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict(ROOT, config, flag_values=values, sys_argv=flags_of_config)
        values(["sdd", *flags_of_config])
    except (flags.Error, TypeError, ValueError) as error:
        raise _one_line(error, config) from None
    return config


def flatten(config: ml_collections.ConfigDict, path: str = ROOT) -> dict[str, Any]:
    """Dotted path -> value of everything in a config that is no section."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        nested = isinstance(value, ml_collections.ConfigDict)
        flat |= flatten(value, f"{path}.{key}") if nested else {f"{path}.{key}": value}
    return flat


def _parse(arg: str) -> tuple[str, str]:
    match = _OVERRIDE.fullmatch(arg)
    if match is None:
        raise ConfigError(f"{arg}: valid: --{ROOT}.KEY=VALUE")
    key, value = match["key"], match["value"]
    if match["no"] and value is not None:
        raise ConfigError(f"{arg}: valid: --no{key} or --{key}=false")
    return key, value if value is not None else str(not match["no"]).lower()


def _swap_module(config: ml_collections.ConfigDict, key: str, value: str) -> None:
    *parents, section, name = key.split(".")[1:] if key.count(".") > 1 else ("", "")
    if name != "name" or section not in SECTIONS:
        return
    holder = config
    for parent in parents:
        if not isinstance(holder, ml_collections.ConfigDict) or parent not in holder:
            return  # an unknown key, which apply() refuses
        holder = holder[parent]
    if isinstance(holder, ml_collections.ConfigDict) and section in holder and holder[section].name != value:
        with_module(holder, section, value)


def _tuple_text(text: str) -> str:
    """``id,harder`` -> ``('id', 'harder')``; what Python reads as it is stays."""
    try:
        ast.literal_eval(text)
        return text
    except (ValueError, SyntaxError):
        return repr(tuple(part.strip() for part in text.split(",") if part.strip()))


def _one_line(error: Exception, config: ml_collections.ConfigDict) -> ConfigError:
    text = " ".join(str(error).split())
    match = re.match(rf"flag --({ROOT}\.[^=]+)=(.*?): ", text)
    if match is None:
        return ConfigError(text)
    key, value = match.groups()
    holder = config
    *parents, last = key.split(".")[1:]
    for parent in parents:
        holder = holder[parent]
    kind = holder.get_type(last)
    valid = "a tuple, such as 1,2,4" if kind is tuple else describe(kind)
    return ConfigError(f"{key}={value!r}: valid: {valid}")
