"""Answers and steps of worked problems: extraction, comparison by math-verify, and a normal form."""

import itertools
import re
from decimal import Decimal, InvalidOperation

from sdd.tasks._answers import after_thinking, tagged_answer

_NUMBER = r"-?(?:\d[\d,]*(?:\.\d+)?|\.\d+)"
_PLAIN = re.compile(rf"^\s*\$?\s*({_NUMBER})\s*$")
# A number that stands alone: not the first of a further operation.
_RIGHT_SIDE = re.compile(rf"^\s*[({{]?\s*({_NUMBER})(?!\d|[.,]\d)(?!\s*[-+*/]\s*\(?\s*[\d.])")
# Two numbers, and an operator between them among words and units.
_LEFT_SIDE = re.compile(rf"{_NUMBER}[^\d=]{{0,40}}?[-+*/][^\d=]{{0,40}}?(?:{_NUMBER})")
_ANNOTATION = re.compile(r"<<[^<>]*>>")  # of the reference's calculator
_FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
_SIGNS = {
    **dict.fromkeys(("\\times", "\\cdot", "×", "·", "∗"), "*"),
    **dict.fromkeys(("\\div", "÷"), "/"),
    **dict.fromkeys(("−", "–"), "-"),
    **dict.fromkeys(("\\$", "$", "€", "£", "\\,", "\\!", "\\left", "\\right", "**"), ""),
    "{,}": ",",
    " times ": " * ",
    " multiplied by ": " * ",
    " plus ": " + ",
    " minus ": " - ",
    " divided by ": " / ",
    " equals ": " = ",
}


def final_answer(text: str, anywhere: bool = False) -> str | None:
    r"""The answer that a solution marks: in its last ``\boxed{}``, after ``####``, or in ``<answer>``.

    Args:
      text: the response; what comes before ``</think>`` is not looked at.
      anywhere: take the last number of a text that marks none.

    Returns:
      The answer as it stands there; None without one.
    """
    text = after_thinking(text)
    marked = _last_boxed(text)
    if marked is None and "####" in text:
        marked = text.rpartition("####")[2].strip().partition("\n")[0].strip()
    if marked is None:
        marked = tagged_answer(text)
    if marked is None and anywhere:
        numbers = re.findall(_NUMBER, text)
        marked = numbers[-1].rstrip(",") if numbers else None
    return marked


def plain_number(text: str) -> Decimal | None:
    """The value of a text that is one number and nothing else (``$`` and thousands commas may stand)."""
    found = _PLAIN.match(text)
    return _decimal(found[1]) if found else None


def equal(gold: str, answer: str) -> bool:
    """Whether an answer is the right one, by math-verify. It has no time limit of its own."""
    from math_verify import parse, verify

    cleaned = answer.replace("{,}", ",").replace("\\,", "").replace("\\!", "").strip().strip("$")
    # A second look at what is no formula ("18 dollars"), but only where one number is named.
    looks = [f"${cleaned}$"] + ([cleaned] if len(re.findall(_NUMBER, cleaned)) == 1 else [])
    target = parse(gold, parsing_timeout=None)
    return any(
        bool(verify(target, parse(look, parsing_timeout=None), timeout_seconds=None)) for look in looks
    )


def prepare() -> None:
    """Loads what the first comparison needs, so that its time limit does not pay for it."""
    equal("1", "\\frac{2}{2}")


def computed_results(text: str) -> tuple[str, ...]:
    """The intermediate results of a worked solution, in the order in which they are first computed.

    A result is the number after ``=`` where the other side holds an operation on two numbers:
    ``16 - 3 - 4 = 9`` gives 9. Wording, units, notation and repetition do not matter, so two
    solutions that calculate the same way have the same results.
    """
    for old, new in _SIGNS.items():
        text = text.replace(old, new)
    text = _FRACTION.sub(r"\1/\2", _ANNOTATION.sub("", text))
    text = re.sub(r"(?<=\d)[xX](?=[\d.])|(?<=\s)[xX](?=\s+\(?[\d.])", "*", text)
    results: list[str] = []
    for line in text.splitlines():
        sides = line.split("=")
        for left, right in itertools.pairwise(sides):
            found = _RIGHT_SIDE.match(right)
            value = _decimal(found[1]) if found and _LEFT_SIDE.search(left) else None
            if value is not None and (shown := _shown(value)) not in results:
                results.append(shown)
    return tuple(results)


def _shown(value: Decimal) -> str:
    """The same text for 9, 9.0 and 9.00."""
    return f"{value.normalize():f}"


def _decimal(text: str) -> Decimal | None:
    try:
        return Decimal(text.replace(",", ""))
    except InvalidOperation:
        return None


def _last_boxed(text: str) -> str | None:
    r"""The contents of the last ``\boxed{}``, braces inside included; of one that is cut off, None."""
    _, found, rest = text.rpartition("\\boxed{")
    depth = 1
    for i, sign in enumerate(rest if found else ""):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return rest[:i].strip()
    return None
