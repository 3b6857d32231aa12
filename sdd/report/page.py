"""The report as one self-contained HTML page: a pure function of a study that was read."""

from typing import Any, NamedTuple

from sdd.claims.runs import Study
from sdd.report import browser, document, html, look, pairs, sections, summary, words
from sdd.report import figures as figures_lib
from sdd.report import tables as tables_lib
from sdd.report.document import Part
from sdd.report.figures import Figure
from sdd.report.look import split_name
from sdd.report.summary import Row
from sdd.report.tables import Table

BUDGET = 6_000_000  # bytes of a page
LEAST_FOR_ROLLOUTS = 300_000


class Report(NamedTuple):
    """What a page shows, each from `sdd.report`'s module of that name."""

    study: Study
    rows: dict[tuple[str, str], Row]
    changes: list[pairs.Change]
    claims: dict[str, dict[str, Any]]
    figures: dict[str, Figure]
    tables: dict[str, Table]


def gather(study: Study, claims: dict[str, dict[str, Any]]) -> Report:
    """Computes everything that a report of a study shows; ``claims`` is {} where there are none."""
    rows = summary.final_rows(study)
    changes = pairs.changes(study)
    figures = {figure.name: figure for figure in figures_lib.figures(study, rows)}
    return Report(study, rows, changes, claims, figures, tables_lib.tables(study, rows, changes, claims))


def write_page(report: Report) -> str:
    """The page's text."""
    study = report.study
    name = study.path.resolve().name
    parts = [part for part in _parts(report) if part.content]
    head = [
        *(html.tag("p", line, "headline") for line in [words.headline(report.claims)] if line),
        _list(words.rose_and_cost(study, report.changes)),
        *sections.findings(study),
        sections.unfinished(report.rows),
    ]
    data = document.page_data(name, list(report.figures.values()), list(report.tables.values()))
    title = f"{name}: what it gained, and what that cost in diversity"
    bare = document.document(title, head, sections.controls(study), parts, data)
    rest = BUDGET - len(bare.encode()) - 20_000
    called = look.labels(study.methods)
    rollouts = browser.section(study, max(rest, LEAST_FOR_ROLLOUTS), called.__getitem__)
    if not rollouts.html:
        return bare
    parts.insert(_place(parts), Part("rollouts", "", [html.Markup(rollouts.html)], "Rollouts"))
    element = f'<script type="application/json" id="rollout-data">{rollouts.data}</script>'
    extra = [(rollouts.css, rollouts.js, element)]
    return document.document(title, head, sections.controls(study), parts, data, extra)


def _parts(report: Report) -> list[Part]:
    study, figures, tables = report.study, report.figures, report.tables
    claims = [sections.claims(report.claims, tables["claims"])] if "claims" in tables else []
    numbers = _tables(tables, "final") or [
        html.tag("p", "No final rollouts are on disk, so there is no table of final numbers.", "dim")
    ]
    environment = sections.environment(study)
    return [
        Part("claims", "Claims", claims),
        Part("change", "What rose, and what it cost", _tables(tables, "change")),
        Part("plane", "pass@1 against strategies", _figures(figures, "plane")),
        Part("curves", "pass@k", [*_figures(figures, "pass_at_k"), *_behind(_tables(tables, "pass_at_k"))]),
        Part("steps", "Diversity over steps", _over_steps(figures)),
        Part("prompts", "Prompt by prompt", [*_prompts(report), *_tables(tables, "strategies")]),
        Part("final", "Final numbers", numbers),
        Part("teacher", "Entropies and the teacher", _figures(figures, "teacher")),
        Part("training", "Training and learning rate", _figures(figures, "training")),
        Part("timings", "Time", [*_figures(figures, "timings"), *_tables(tables, "timings")]),
        Part("settings", "Settings", [*_tables(tables, "settings"), *sections.configs(study)]),
        Part("events", "Events", _tables(tables, "events")),
        Part("environment", "Environment", [environment] if environment else []),
    ]


def _tables(tables: dict[str, Table], name: str) -> list[html.Markup]:
    return [sections.table(tables[name])] if name in tables else []


def _behind(parts: list[html.Markup]) -> list[html.Markup]:
    return [html.tag("details", html.join([html.tag("summary", "The numbers"), *parts]))] if parts else []


def _figures(figures: dict[str, Figure], name: str) -> list[html.Markup]:
    return [sections.figure(figures[name])] if name in figures else []


def _over_steps(figures: dict[str, Figure]) -> list[html.Markup]:
    if "over_steps" not in figures:
        return []
    figure = figures["over_steps"]
    names = sections.metrics(figure)
    return [sections.figure(figure, [sections.picker("Metric", "metric", names, names[0])])]


def _prompts(report: Report) -> list[html.Markup]:
    if "prompts" not in report.figures:
        return []
    figure = report.figures["prompts"]
    chosen = {p["name"]: p["value"] for p in figure.live["params"]}
    drawn = {record["split"] for record in figure.records}
    splits = [name for name in map(split_name, report.study.splits) if name in drawn]
    quantities = dict.fromkeys([chosen["quantity"], "pass@1"])
    pickers = [
        sections.picker("Quantity", "quantity", list(quantities), chosen["quantity"]),
        sections.picker("Split", "one_split", splits, chosen["one_split"]),
    ]
    return [sections.figure(figure, pickers)]


def _place(parts: list[Part]) -> int:
    """Where the rollouts go: after the prompts' figure, or in front of the final numbers."""
    anchors = [part.anchor for part in parts]
    return anchors.index("prompts") + 1 if "prompts" in anchors else anchors.index("final")


def _list(lines: list[tuple[str, str]]) -> html.Markup:
    if not lines:
        return html.Markup("")
    return html.tag(
        "ul",
        html.join(
            [html.tag("li", html.join([html.tag("strong", who), f": {text}"], "")) for who, text in lines]
        ),
        "gains",
    )
