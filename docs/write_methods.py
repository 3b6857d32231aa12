"""Writes what docs/methods.md says of the zoo, from docstrings: python docs/write_methods.py"""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

PAGE = Path(__file__).with_name("methods.md")
BEGIN, END = "<!-- written by docs/write_methods.py -->", "<!-- end of what is written -->"
METHODS = (
    *("pass_at_k", "entropy_bonus", "grpo_anchored", "dph", "simko"),
    *("sdpo", "opsd", "sdft", "beta_opsd", "sc_sdpo", "eopd", "pmi_residual"),
    *("rlcsd", "anti_sd", "ida_opd", "csd"),
)


def described(cls: type) -> dict[str, str]:
    """Field -> what the docstrings of a Config and of those it extends say of it."""
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__):
        _, _, attributes = (inspect.cleandoc(part.__dict__.get("__doc__") or "")).partition("Attributes:\n")
        for names, text in re.findall(r"^([\w, ]+): (.*(?:\n  +.*)*)", attributes, re.MULTILINE):
            found |= dict.fromkeys(names.split(", "), " ".join(text.split()))
    return found


def prose(text: str) -> str:
    """Docstring markup as markdown."""
    text = re.sub(r":mod:`(?:~)?([\w.]+)`", r"`\1`", text.replace("``", "`"))
    return re.sub(r"(?<![\d.])(\d{4}\.\d{5})(?!\d)", r"[\1](https://arxiv.org/abs/\1)", text)


def section(name: str) -> str:
    """A method's heading, equation, prose, and the options that are its own."""
    module = importlib.import_module(f"sdd.steps.{name}")
    title, *parts = inspect.cleandoc(module.__doc__).split("\n\n")
    lines, math = [f"## {name}", "", prose(f"`sdd.steps.{name}`: {title}"), ""], []
    for part in [*parts, ""]:
        if part.startswith(".. math::") or (math and part.startswith(" ")):
            math += inspect.cleandoc(part.removeprefix(".. math::")).splitlines()
            continue
        if math:
            lines, math = [*lines, "```math", *filter(None, math), "```", ""], []
        lines += [prose(part), ""] if part else []
    own = [f for f in dataclasses.fields(module.Config) if f.name in module.Config.__annotations__]
    text = described(module.Config)
    lines += ["| option | default | |", "| --- | --- | --- |"]
    cell = lambda text: prose(text).replace("|", r"\|")  # noqa: E731
    lines += [f"| `{f.name}` | {str(f.default).lower()} | {cell(text[f.name])} |" for f in own]
    return "\n".join([*lines, ""])


def written() -> str:
    """All sections, between their marks."""
    return "\n".join([BEGIN, "", *(section(name) for name in METHODS), END])


def current(page: str) -> str:
    """The page with the sections as the docstrings have them now."""
    before, _, rest = page.partition(BEGIN)
    return before + written() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text()))
