"""What the last word of a command line may become; the table of commands and their help texts say it."""

import contextlib
import glob
import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sdd.commands import COMMANDS


class Takes(NamedTuple):
    """What the words of a command are: a key of `FINDERS` for each in turn, the last one for all further."""

    words: tuple[str, ...] = ()
    config: bool = False  # --config.KEY of the config file


TAKES = {
    "run": Takes(("config", "none"), config=True),
    "plan": Takes(("config", "none"), config=True),
    "doctor": Takes(("config", "none"), config=True),
    "watch": Takes(("run", "none")),
    "eval": Takes(("run", "none")),
    "sample": Takes(("run", "none")),
    "report": Takes(("run",)),
    "theory": Takes(("run",)),
    "measure": Takes(("file",)),
    "convert": Takes(("file",)),
    "completion": Takes(("shell", "none")),
}
FOLDERS = ("--workdir", "--out", "--dir", "--config.train.init_from")  # options whose values are folders
CHOICES = {
    "--kind": ("method", "task", "metric"),
    "--to": ("hf", "params"),
    "--dtype": ("auto", "float32", "bfloat16", "float16"),
    "--format": ("auto", "sdd", "verl", "trl", "openai"),
    "--topology": ("v5p:2x2x1", "v5p:4x4x4", "v5e:2x2", "v5e:8x8", "v6e:2x2", "v6e:4x4", "gpu:h100:8"),
}


def complete(words: Sequence[str]) -> list[str]:
    """The candidates for the last of the words that follow ``sdd``; nothing where anything goes wrong."""
    *before, word = words or [""]
    with contextlib.suppress(Exception), contextlib.redirect_stdout(sys.stderr):
        return sorted(dict.fromkeys(c for c in _candidates(before, word) if c.startswith(word)))
    return []


def _candidates(before: Sequence[str], word: str) -> Iterator[str]:
    if not before:
        yield from (*COMMANDS, "--help", "--version")
        return
    name, *given = before
    takes = TAKES.get(name, Takes(("file",)))
    option, equals, value = word.partition("=")
    if equals:
        yield from (f"{option}={candidate}" for candidate in _values(takes, given, option, value))
    elif word.startswith("-"):
        yield from _options(name)
        if takes.config and word.startswith(("--c", "--n")):
            yield from _keys(given)
    else:
        place = sum(not each.startswith("-") for each in given)
        kinds = takes.words or ("none",)
        yield from FINDERS[kinds[min(place, len(kinds) - 1)]](word)


def _options(name: str) -> Iterator[str]:
    """Those that a command's help lists; with = where it shows a value."""
    command = COMMANDS[name]
    text = getattr(importlib.import_module(command.module), command.help)
    for option, equals in re.findall(r"^  (--[a-z][\w-]*)(=?)", text, re.MULTILINE):
        yield option + equals
    yield "--help"


def _values(takes: Takes, given: Sequence[str], option: str, value: str) -> Iterator[str]:
    if option in FOLDERS:
        yield from _run_folders(value)
    elif option in CHOICES:
        yield from CHOICES[option]
    elif takes.config and option.startswith("--config."):
        held = _config(given).get(option[2:])
        if isinstance(held, bool):
            yield from ("true", "false")
        elif option.endswith(".step.name"):
            yield from _modules("sdd.steps")
        elif option.endswith(".task.name"):
            yield from _modules("sdd.tasks")
        elif held is not None:
            yield ",".join(map(str, held)) if isinstance(held, tuple) else str(held)


def _keys(given: Sequence[str]) -> Iterator[str]:
    for key, value in _config(given).items():
        yield f"--{key}="
        if value is True:
            yield f"--no{key}"


def _config(given: Sequence[str]) -> dict[str, object]:
    """Dotted key -> value of the config file on the command line, with the changes given so far."""
    from sdd import experiment, overrides

    changes, rest = overrides.split(given)
    file = next(each for each in rest if not each.startswith("-"))
    named = [change for change in changes if ".name=" in change]  # they change which keys there are
    return overrides.flatten(overrides.apply(experiment.get_config(experiment.load(file)), named))


def _modules(package: str) -> Iterator[str]:
    """The modules of a package with a ``make``; none is imported."""
    folder = Path(str(importlib.import_module("sdd").__file__)).parent / package.rpartition(".")[2]
    for path in folder.glob("[a-z]*.py"):
        if re.search(r"^def make\(", path.read_text(encoding="utf-8"), re.MULTILINE):
            yield f"{package}.{path.stem}"


def _paths(start: str) -> Iterator[tuple[str, Path]]:
    """What lies in the folder that a word names so far, hidden things only if asked for: (word, path)."""
    head, tail = os.path.split(start)
    for path in sorted(Path(os.path.expanduser(head or ".")).iterdir()):
        if path.name.startswith(tail) and (not path.name.startswith(".") or tail.startswith(".")):
            yield os.path.join(head, path.name), path


def _files(start: str) -> Iterator[str]:
    for word, path in _paths(start):
        yield f"{word}/" if path.is_dir() else word


def _config_files(start: str) -> Iterator[str]:
    """Folders with Python files somewhere in them, and Python files that have ``get_config``."""
    for word, path in _paths(start):
        if path.is_dir() and (any(path.glob("*.py")) or any(path.glob("*/*.py"))):
            yield f"{word}/"
        elif path.suffix == ".py" and "def get_config(" in path.read_text(encoding="utf-8", errors="replace"):
            yield word


def _run_folders(start: str) -> Iterator[str]:
    """Folders; one that is a run ends there, a study may go on to its runs."""
    for word, path in _paths(start):
        if not path.is_dir():
            continue
        if (path / "config.json").exists():
            yield word
            continue
        if glob.glob(f"{glob.escape(str(path))}/seed_*/*/config.json"):
            yield word
        yield f"{word}/"


def _shells(start: str) -> Iterator[str]:
    from sdd.completion.command import SHELLS

    yield from SHELLS


FINDERS = {
    "config": _config_files,
    "run": _run_folders,
    "file": _files,
    "shell": _shells,
    "none": lambda start: iter(()),
}
