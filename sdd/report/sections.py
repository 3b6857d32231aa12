"""Parts of the page as HTML. Every text from a file goes through `html.text`."""

import json
from collections.abc import Sequence
from typing import Any

from sdd.claims.runs import Run, Study
from sdd.report import html
from sdd.report.figures import Figure
from sdd.report.look import Style, label, labels, split_name, style
from sdd.report.summary import EVENTS, SERIOUS, Row, events
from sdd.report.tables import Cell, Table, in_order
from sdd.report.words import signed

DETAIL_NAMES = {
    "against_grpo": "against GRPO",
    "against_start": "against the starting model",
    "against_diversity": "against GRPO + diversity",
    "pass_k_against_grpo": "pass@k itself against GRPO",
    "distinct_against_start": "distinct strategies against the starting model",
    "distinct_against_grpo": "distinct strategies against GRPO",
    "pass_against_start": "pass@k against the starting model",
    "pass_harder_against_start": "harder pass@k against the starting model",
    "pass_harder_against_grpo": "harder pass@k against GRPO",
    "distinct": "distinct correct strategies",
}
_MARKS = {  # around (0, 0), about 10 px
    "circle": "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0",
    "square": "M-4,-4h8v8h-8z",
    "cross": "M-5,-1.7h3.3v-3.3h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3z",
    "diamond": "M0,-5.5L5.5,0L0,5.5L-5.5,0z",
    "triangle-up": "M0,-5L5,4H-5z",
    "triangle-down": "M0,5L5,-4H-5z",
    "triangle-right": "M5,0L-4,5V-5z",
    "triangle-left": "M-5,0L4,5V-5z",
}


def controls(study: Study) -> html.Markup:
    """Checkboxes of methods, which are the legend too, and a picker of splits."""
    names = labels(study.methods)
    boxes = []
    for i, method in enumerate(study.methods):
        look = style(method, study.methods)
        box = html.Markup(
            f'<input type="checkbox" class="method" checked value="{html.text(names[method])}">'
        )
        number = f"{i + 1}  " if len(study.methods) > 8 else ""
        boxes.append(html.tag("label", html.join([box, swatch(look), number + names[method]], " ")))
    buttons = [
        html.tag("button", text, id=f"{text.lower()}-methods", type="button") for text in ("All", "None")
    ]
    legend = html.tag("legend", "Methods")
    fieldset = html.tag("fieldset", html.join([legend, *boxes, html.tag("span", html.join(buttons), "both")]))
    splits = [html.tag("option", "all splits", value="")]
    splits += [html.tag("option", split_name(split), value=split_name(split)) for split in study.splits]
    picker = html.tag("label", html.join(["Split ", html.tag("select", html.join(splits), id="split")]))
    return html.tag("form", html.join([fieldset, picker]), "controls", id="controls", aria_label="Filters")


def swatch(look: Style) -> html.Markup:
    """A short line with the method's colour, dash and point."""
    dash = f' stroke-dasharray="{" ".join(map(str, look.dash))}"' if look.dash else ""
    return html.Markup(
        f'<svg width="34" height="12" viewBox="-17 -6 34 12" aria-hidden="true" focusable="false">'
        f'<path d="M-17,0H17" stroke="{look.color}" stroke-width="2"{dash}/>'
        f'<path d="{_MARKS[look.shape]}" fill="{look.color}"/></svg>'
    )


def figure(one: Figure, pickers: Sequence[object] = ()) -> html.Markup:
    """A place for the live figure, its caption and its downloads."""
    buttons = [
        html.tag(
            "button",
            kind,
            type="button",
            data_save=one.name,
            data_kind=kind.lower(),
            aria_label=f"{one.name} as {kind}",
        )
        for kind in ("SVG", "PNG")
    ]
    place = html.tag(
        "div",
        "",
        "chart",
        data_figure=one.name,
        role="img",
        aria_label=f"{one.live['description']}. {one.caption}",
    )
    scroll = html.tag("div", place, "scroll", tabindex="0", role="region", aria_label=f"figure {one.name}")
    caption = html.tag(
        "figcaption", html.join([one.caption, " ", html.tag("span", html.join(buttons, " "), "both")], "")
    )
    bar = [html.tag("p", html.join(pickers, " "), "pickers")] if pickers else []
    return html.tag("figure", html.join([*bar, scroll, caption]))


def picker(text: str, parameter: str, values: Sequence[str], chosen: str) -> html.Markup:
    """A select that sets a parameter of the figures."""
    options = [html.tag("option", value, value=value, selected=value == chosen) for value in values]
    select = html.tag("select", html.join(options), "parameter", data_parameter=parameter)
    return html.tag("label", html.join([f"{text} ", select]))


def table(one: Table) -> html.Markup:
    """A table with its downloads; rows of a method hide with the method."""
    head = html.tag("tr", html.join([html.tag("th", name, scope="col") for name in one.header], ""))
    methods = one.methods or ("",) * len(one.rows)
    body = [
        html.tag(
            "tr",
            html.join([html.tag("td", cell(value, one.signed)) for value in row], ""),
            data_method=method or None,
            data_split=row[0] if one.header[0] == "split" else None,
        )
        for row, method in zip(one.rows, methods, strict=True)
    ]
    return _framed(one.name, one.caption, head, body)


def cell(value: Cell, signed_: bool = False) -> object:
    """A number with its interval under it, or a text."""
    if isinstance(value, dict):
        ends = html.tag("small", html.ends(value, signed_))
        return html.join([html.number(value["value"], signed_), ends], "<br>")
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else html.text(value, 300)


def claims(found: dict[str, dict[str, Any]], one: Table) -> html.Markup:
    """Statement, value, interval and verdict; under each the rule, its other numbers and what is missing."""
    rows = []
    for name, claim in in_order(found).items():
        notes = [html.tag("div", note, "dim") for note in _notes(claim)]
        cells = [
            name,
            html.join([claim.get("statement", ""), *notes]),
            html.number(claim.get("value"), True),
            html.ends(claim, True),
            _verdict(claim.get("holds")),
        ]
        rows.append(html.tag("tr", html.join([html.tag("td", value) for value in cells], "")))
    header = ("claim", "statement", "value", "95 % interval", "holds")
    head = html.tag("tr", html.join([html.tag("th", text, scope="col") for text in header], ""))
    return _framed(one.name, one.caption, head, rows)


def _framed(name: str, caption: str, head: html.Markup, body: Sequence[html.Markup]) -> html.Markup:
    parts = [html.tag("caption", caption), html.tag("thead", head), html.tag("tbody", html.join(body))]
    scroll = html.tag(
        "div", html.tag("table", html.join(parts)), "scroll", tabindex="0", role="region", aria_label=caption
    )
    buttons = [
        html.tag(
            "button",
            text,
            type="button",
            data_table=name,
            data_kind=kind,
            aria_label=f"table {name} as {text}",
        )
        for text, kind in (("CSV", "csv"), ("LaTeX", "tex"))
    ]
    return html.join([scroll, html.tag("p", html.join(buttons, " "), "both")])


def _notes(claim: dict[str, Any]) -> list[str]:
    details = claim.get("details") or {}
    more = [
        f"{DETAIL_NAMES.get(key, key.replace('_', ' '))}: {signed(value)}"
        for key, value in details.items()
        if isinstance(value, dict) and "low" in value and value.get("value") != claim.get("value")
    ]
    if isinstance(rank := details.get("rank_correlation"), dict) and rank.get("value") is not None:
        points = f"{rank['num_points']} evaluations"
        more.append(f"rank correlation with distinct strategies over {points}: {rank['value']:+.2f}")
    notes = [f"Holds if: {details['rule']}."] if "rule" in details else []
    notes += [f"{str(details['note'])[:1].upper()}{str(details['note'])[1:]}."] if "note" in details else []
    notes += ["; ".join(more)] if more else []
    for key, word in (("runaway", "Careful"), ("missing", "Missing")):
        if details.get(key):
            notes.append(f"{word}: " + "; ".join(map(str, details[key])))
    return notes


def _verdict(holds: bool | None) -> html.Markup:
    if holds is None:
        return html.tag("span", "undecided", "dim")
    return html.tag("span", "✓ yes", "right") if holds else html.tag("span", "✗ no", "wrong")


def findings(study: Study) -> list[html.Markup]:
    """Serious events, with what they mean."""
    parts = []
    for event in events(study):
        if event["event"] not in SERIOUS:
            continue
        where = f"{event['event'].replace('_', ' ')}: {label(event['method'])}, seed {event['seed']}, "
        times = "" if event["count"] == 1 else f" ({event['count']} times)"
        lines = [html.tag("strong", f"{where}step {event['step']}{times}")]
        lines += [html.tag("div", event["message"])] if event["message"] else []
        lines += [html.tag("div", EVENTS[event["event"]], "dim")] if event["event"] in EVENTS else []
        parts.append(html.tag("div", html.join(lines), "warn"))
    return parts


def unfinished(rows: dict[tuple[str, str], Row]) -> html.Markup:
    texts = dict.fromkeys(f"{label(m)}, {text}" for (m, _), row in rows.items() for text in row.unfinished)
    if not texts:
        return html.Markup("")
    return html.tag("div", "Unfinished runs, shown as they are: " + "; ".join(texts) + ".", "warn")


def configs(study: Study) -> list[html.Markup]:
    """The whole config of each method, of the first seed that has it, behind a click."""
    names = labels(study.methods)
    shown = []
    for method in study.methods:
        seed, run = next(iter(study.of_method(method).items()))
        summary = html.tag("summary", f"{names[method]}: the whole config (seed {seed})")
        whole = json.dumps(run.config, indent=1, ensure_ascii=True)
        shown.append(
            html.tag("details", html.join([summary, html.tag("pre", html.text(whole, 60_000), tabindex="0")]))
        )
    return shown


def environment(study: Study) -> html.Markup:
    """Machines and versions of all runs, as a table; "" where no run says."""
    runs: list[Run] = [run for by_method in study.seeds.values() for run in by_method.values()]
    found: dict[str, set[str]] = {}
    for run in runs:
        given = {k: v for k, v in run.environment.items() if k != "versions"}
        versions = run.environment.get("versions")
        for key, value in (given | (versions if isinstance(versions, dict) else {})).items():
            found.setdefault(str(key), set()).add(str(value))
    body = [
        html.tag("tr", html.join([html.tag("th", k, scope="row"), html.tag("td", ", ".join(sorted(v)))]))
        for k, v in found.items()
    ]
    return html.tag("table", html.tag("tbody", html.join(body))) if body else html.Markup("")


def metrics(one: Figure) -> list[str]:
    """The metrics that a figure can show."""
    return list(dict.fromkeys(str(record["metric"]) for record in one.records))
