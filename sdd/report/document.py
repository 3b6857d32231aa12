"""The page around its parts: one file that asks the network for nothing and runs only its own scripts."""

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any, NamedTuple

from sdd.report import html
from sdd.report.figures import Figure, vl_version
from sdd.report.tables import Table, to_csv, to_latex


class Part(NamedTuple):
    """A section: its anchor, title and content; ``listed`` is its name in the table of contents.

    Without a title the content is the section, with its own heading and anchor.
    """

    anchor: str
    title: str
    content: Sequence[object]
    listed: str = ""


def document(
    title: str,
    head: Sequence[object],
    controls: html.Markup,
    parts: Sequence[Part],
    data: str,
    extra: Sequence[tuple[str, str, str]] = (),
) -> str:
    """The whole page.

    Args:
      head: what stands under the title.
      controls: the bar that filters figures and tables.
      data: JSON for page.js, from `page_data`.
      extra: (css, js, further script elements of data) of sections that bring their own.
    """
    css = "\n".join([asset("page.css"), *(part[0] for part in extra)])
    scripts = [s for s in [bundle(), asset("page.js"), *(part[1] for part in extra)] if s]
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    listed = [html.tag("li", html.tag("a", p.listed or p.title, href=f"#{p.anchor}")) for p in parts]
    sections = [
        html.tag(
            "section",
            html.join([html.tag("h2", p.title, id=f"{p.anchor}-title"), *p.content]),
            id=p.anchor,
            aria_labelledby=f"{p.anchor}-title",
        )
        if p.title
        else html.join(p.content)
        for p in parts
    ]
    body = [
        html.tag("a", "Skip to the report", "skip", href="#main"),
        html.tag("header", html.join([html.tag("h1", title), _theme_button()]), "top"),
        html.tag("nav", html.tag("ul", html.join(listed)), aria_label="Sections"),
        controls,
        html.tag("main", html.join([*head, *sections]), id="main", tabindex="-1"),
        html.tag("p", "", "unseen", id="status", role="status"),
        html.Markup(f'<script type="application/json" id="report-data">{data}</script>'),
        *(html.Markup(part[2]) for part in extra),
        *(html.Markup(f"<script>{script}</script>") for script in scripts),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.text(policy, len(policy))}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.text(title)}</title>\n<style>{css}</style>\n</head>\n<body>\n{html.join(body)}\n</body>\n</html>\n"
    )


def page_data(name: str, figures: Sequence[Figure], tables: Sequence[Table]) -> str:
    """What page.js needs, as JSON that is safe inside a script element."""
    return script_json(
        {
            "name": name,
            "figures": {f.name: {"paper": f.spec, "live": f.live} for f in figures},
            "datasets": {f.name: columns(f.records) for f in figures},
            "tables": {t.name: {"csv": to_csv(t), "tex": to_latex(t)} for t in tables},
        }
    )


def script_json(value: Any) -> str:
    """JSON in ASCII without the characters that could end a script element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def columns(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Records as columns, in a fifth of the room: texts as numbers of a list, numbers with five digits."""
    packed: dict[str, Any] = {}
    for key in dict.fromkeys(key for record in records for key in record):
        values = [record.get(key) for record in records]
        if any(isinstance(value, str) for value in values):
            levels = list(dict.fromkeys(values))
            place = {level: i for i, level in enumerate(levels)}
            packed[key] = {"levels": levels, "codes": [place[value] for value in values]}
        else:
            packed[key] = [float(f"{v:.5g}") if isinstance(v, float) else v for v in values]
    return packed


@functools.cache
def bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, as vl_convert brings them."""
    import vl_convert

    make: Any = vl_convert.javascript_bundle  # its types ask for the snippet that has a default
    return make(vl_version=vl_version()).replace("</script", "<\\/script")


def asset(name: str) -> str:
    """A file of this package's ``assets`` folder."""
    return resources.files("sdd.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _theme_button() -> html.Markup:
    return html.tag("button", "Dark theme", id="theme", type="button", aria_pressed="false")
