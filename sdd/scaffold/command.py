"""``sdd init``: its arguments, what it writes, its exit code."""

import argparse
import importlib.util
import keyword
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from sdd.shell import FINISHED, Parser, UsageError, exit_codes, say

KINDS = ("method", "task", "metric")
FILES = {"{name}.py": "{kind}.py", "{name}_config.py": "{kind}_config.py", "test_{name}.py": "{kind}_test.py"}

HELP = f"""sdd init: the first files of a method, a task or a metric, complete and tested

usage:
  sdd init NAME [--kind=KIND] [--dir=DIR]

  NAME         of a new Python module: letters, digits and underscores
  --kind=KIND  method (default), task or metric
  --dir=DIR    where the files go, made if need be (default: here)

Writes NAME.py, NAME_config.py for sdd run, and test_NAME.py for pytest. They work as they are: change the
equation, then the code, then the tests. Nothing is overwritten.

examples:
  sdd init my_method
  sdd init my_task --kind=task --dir=tasks

{exit_codes(FINISHED, 2)}"""


def run(args: Sequence[str]) -> int:
    """``sdd init``: returns the exit code.

    Raises:
      UsageError: a name that cannot be a module here, or a file that is there already.
    """
    options = _parse(args)
    folder = Path(options.dir)
    path = module_path(options.name, folder)
    targets = {
        folder / to.format(name=options.name): of.format(kind=options.kind) for to, of in FILES.items()
    }
    for target in targets:
        if target.exists():
            raise UsageError(f"{target} exists already, nothing was written; valid: another name or --dir")
    _refuse_taken(options.name, path, folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for target, template in targets.items():
            text = resources.files("sdd.scaffold.templates").joinpath(template).read_text(encoding="utf-8")
            with target.open("x", encoding="utf-8") as file:
                file.write(text.replace("MY_PATH", path).replace("my_name", options.name))
    except OSError as error:
        return say(f"{error.filename}: {error.strerror}; valid: a --dir that can be written", 2)
    module, experiment, test = targets
    print(f"{module}\n{experiment}\n{test}\n\ntry:\n  {sys.executable} -m pytest {test}")
    print(f"  sdd run {experiment} --workdir=runs/{options.name}")
    return FINISHED


def module_path(name: str, folder: Path) -> str:
    """The dotted path by which a config names the module, as `sdd.experiment` will find it.

    Raises:
      UsageError: no name of a module, or a folder between it and its repository that has none.
    """
    from sdd.experiment import repository_root

    if not name.isidentifier() or not name.isascii() or keyword.iskeyword(name):
        raise UsageError(f"{name!r} is no name of a module; valid: letters, digits and _, such as my_method")
    file = folder.absolute() / f"{name}.py"
    root = repository_root(file)
    parts = file.with_suffix("").relative_to(root).parts
    for part in parts[:-1]:
        if not part.isidentifier() or keyword.iskeyword(part):
            raise UsageError(
                f"--dir={folder}: no config can name a module in {part!r}; valid: a folder like my_code"
            )
    return ".".join(parts)


def _refuse_taken(name: str, path: str, folder: Path) -> None:
    """A module of the same name would hide the new one, or be hidden by it."""
    from sdd.experiment import repository_root

    root = repository_root(folder.absolute() / f"{name}.py")
    for taken in dict.fromkeys((name, path.partition(".")[0])):
        if taken in sys.stdlib_module_names:
            raise UsageError(f"{taken!r} is a module of Python; valid: another name, such as my_{name}")
        spec = importlib.util.find_spec(taken)
        places = [spec.origin, *(spec.submodule_search_locations or [])] if spec else []
        if spec and not any(p and Path(p).absolute().is_relative_to(root) for p in places):
            raise UsageError(f"{taken!r} is an installed module; valid: another name, such as my_{name}")


def _parse(args: Sequence[str]) -> argparse.Namespace:
    parser = Parser("sdd init")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--kind", choices=KINDS, default="method")
    parser.add_argument("--dir", default=".")
    return parser.parse_intermixed_args(list(args))
