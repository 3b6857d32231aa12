"""Small pieces of HTML. Whatever comes out of a file goes through `text`."""

import base64
import html
from collections.abc import Sequence

from sdd.claims.compare import Interval
from sdd.progress import printable

CSS = """
:root { color-scheme: light dark; --fg: #1b1b1b; --bg: #fff; --dim: #666; --line: #d8d8d8; --box: #f6f6f4;
  --good: #0a6b4b; --bad: #b3360b; --warn: #fff4e0; }
@media (prefers-color-scheme: dark) { :root { --fg: #e6e6e6; --bg: #161616; --dim: #a0a0a0; --line: #3a3a3a;
  --box: #212121; --good: #55c79b; --bad: #ff9263; --warn: #3a2d14; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--fg); background: var(--bg); max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } h3 { font-size: 1rem; }
.headline { font-size: 1.1rem; } .dim { color: var(--dim); font-size: .9rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
small { color: var(--dim); white-space: nowrap; }
img { max-width: 100%; background: #fff; border-radius: 4px; }
.right { color: var(--good); } .wrong { color: var(--bad); }
.warn { background: var(--warn); border-left: 4px solid var(--bad); padding: .5rem 1rem; margin: .6rem 0; }
pre { background: var(--box); padding: .5rem .7rem; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .82rem; unicode-bidi: isolate; margin: .3rem 0; }
"""


class Markup(str):
    """Text that is HTML already."""


def text(value: object, limit: int = 2000) -> Markup:
    r"""Any value as HTML text: escaped, control characters spelled out (``\x1b``), cut at a length.

    Line ends stay; every other character that is not printable, among them those
    that reorder or hide text, shows as its code.
    """
    full = str(value)
    cut = full if len(full) <= limit else full[:limit] + f" ... ({len(full) - limit} more characters)"
    return Markup(html.escape("\n".join(printable(line) for line in cut.split("\n"))))


def as_html(value: object) -> str:
    return value if isinstance(value, Markup) else text(value)


def tag(name: str, content: object, css: str = "", **attributes: object) -> Markup:
    """<name class=css ...>content</name>; content is escaped unless it is Markup, and so is every attribute.

    ``data_method="x"`` becomes ``data-method="x"``; True an attribute without a value, None and False none.
    """
    given = ({"class": css} if css else {}) | attributes
    shown = [
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{text(value)}"')
        for key, value in given.items()
        if value is not None and value is not False
    ]
    return Markup(f"<{name}{''.join(shown)}>{as_html(content)}</{name}>")


def join(parts: Sequence[object], between: str = "\n") -> Markup:
    return Markup(between.join(as_html(part) for part in parts))


def table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> Markup:
    head = tag("tr", join([tag("th", cell) for cell in header], ""))
    body = [tag("tr", join([tag("td", cell) for cell in row], "")) for row in rows]
    return Markup(f'<div class="scroll"><table>\n{head}\n{join(body)}\n</table></div>')


def image(png: bytes, description: str) -> Markup:
    data = base64.b64encode(png).decode()
    return Markup(f'<img alt="{text(description)}" src="data:image/png;base64,{data}">')


def page(title: str, parts: Sequence[object]) -> str:
    """A whole document that asks the network for nothing."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{join(parts)}\n</body>\n</html>\n"
    )


def number(value: float | None, signed: bool = False) -> str:
    """Three decimals, with a real minus; a dash where there is none."""
    if value is None:
        return "–"
    return f"{value:{'+' if signed else ''}.3f}".replace("-", "−")


def ends(estimate: Interval, signed: bool = False) -> str:
    """The interval as "low to high"; empty where there is none."""
    if estimate.get("low") is None or estimate.get("high") is None:
        return ""
    return f"{number(estimate['low'], signed)} to {number(estimate['high'], signed)}"
