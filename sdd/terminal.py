"""What may be written on a terminal: texts of models, files and people, without what a terminal acts on."""


def printable(text: str) -> str:
    r"""``text`` with every character that a terminal would act on spelled out (``\x1b``, ``\n``)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shown(text: object) -> str:
    """Any value, with its line ends, as `printable` writes each line."""
    return "\n".join(map(printable, str(text).split("\n")))
