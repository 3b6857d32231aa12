"""The rollout browser: a section of the report's page that shows single rollouts.

It embeds as many prompts as fit, those first that lost most strategies on the way, so that a page stays one
file. Its script needs nothing else, takes texts as texts and works under a strict content security policy.
"""

import html
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sdd.claims.runs import Study
from sdd.progress import printable
from sdd.report.browser import choose
from sdd.report.browser.cells import to_json

HERE = Path(__file__).parent
SCRIPTS = ("data.js", "text.js", "picture.js", "list.js", "browser.js")  # one after the other in one scope


class Section(NamedTuple):
    """Attributes:
    html: one ``<section>``.
    css: its style, scoped under its class.
    js: a script without dependencies.
    data: JSON for ``<script type="application/json" id="rollout-data">``, safe to stand there.
    """

    html: str
    css: str
    js: str
    data: str


def section(study: Study, budget_bytes: int, label: Callable[[str], str] = str) -> Section:
    """Makes the browser of a study, or of a run that is still being written.

    Args:
      study: whose run folders are read; files that are missing or torn are left out, and named.
      budget_bytes: the four texts together stay below this, encoded as UTF-8.
      label: what methods are called.
    """
    frame, css, *scripts = (
        (HERE / name).read_text(encoding="utf-8") for name in ("browser.html", "browser.css", *SCRIPTS)
    )
    js = '(() => {\n"use strict";\n' + "\n".join(scripts) + "})();\n"
    room = budget_bytes - sum(len(text.encode()) for text in (frame, css, js)) - 2000  # for the note
    chosen = choose.choose(study, room)
    data = {"methods": [[name, label(name)] for name in study.methods], **chosen.data}
    note = html.escape(printable(choose.note(chosen)))
    return Section(frame.replace("{note}", note), css, js, to_json(data))
