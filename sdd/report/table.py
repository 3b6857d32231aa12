"""The summary of a study for the terminal."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sdd.claims.runs import Study
from sdd.progress import printable
from sdd.report.html import ends, number
from sdd.report.look import label
from sdd.report.summary import SERIOUS, Row, events


def results_table(study: Study, rows: dict[tuple[str, str], Row]) -> Table:
    """Methods against pass@1, pass@32, distinct strategies and the favourite's share."""
    first = study.splits[0] if study.splits else "id"
    columns = [(first, name) for name in ("pass@1", "pass@32", "distinct_correct", "top_strategy_share")]
    columns += [
        (split, name) for split in study.splits if split == "harder" for name in ("pass@1", "pass@32")
    ]
    heads = {"distinct_correct": "distinct\ncorrect", "top_strategy_share": "favourite's\nshare"}
    table = Table(title=_plain(f"{study.path.name}, final evaluations"), title_justify="left")
    table.add_column("method")
    for split, name in columns:
        text = heads.get(name, f"\n{name}")
        table.add_column(_plain(split) + Text("\n") + Text(text.strip()), justify="right")
    for method in study.methods:
        cells = [_value(rows.get((method, split)), name) for split, name in columns]
        table.add_row(_plain(label(method)), *cells)
    return table


def claims_table(claims: dict[str, dict[str, Any]]) -> Table:
    """Claims with a tick or a cross, the value and its interval."""
    table = Table(title="claims (differences, 95 % intervals)", title_justify="left")
    for name in ("", "", "claim"):
        table.add_column(name)
    table.add_column("value", justify="right")
    table.add_column("interval", no_wrap=True)
    marks = {True: Text("✓", "green"), False: Text("✗", "red"), None: Text("–", "dim")}
    for name, claim in claims.items():
        statement = claim["statement"]
        if claim["holds"] is None:
            statement += " (undecided: " + "; ".join(claim["details"].get("missing", ["undefined"])) + ")"
        value, interval = number(claim["value"], True), ends(claim, True)
        table.add_row(marks[claim["holds"]], name, _plain(statement), value, interval)
    return table


def print_study(
    study: Study, rows: dict[tuple[str, str], Row], claims: dict[str, dict[str, Any]], console: Console
) -> None:
    """Prints both tables, serious findings and unfinished runs."""
    if rows:
        console.print(results_table(study, rows))
    if claims:
        console.print(claims_table(claims))
    for event in events(study):
        if event["event"] in SERIOUS:
            where = f"{event['event']}: {event['method']}, seed {event['seed']}, step {event['step']}: "
            console.print(_plain(where + event["message"], "red"))
    for text in dict.fromkeys(f"{m}, {text}" for (m, _), row in rows.items() for text in row.unfinished):
        console.print(_plain(f"unfinished: {text}", "red"))


def _value(row: Row | None, name: str) -> str:
    if row is None:
        return "–"
    name = f"distinct_correct@{row.k}" if name == "distinct_correct" else name
    return number(row.metrics.get(name, {}).get("value"))


def _plain(text: str, style: str = "") -> Text:
    """A name out of a file is neither markup nor an escape code."""
    return Text(printable(text), style)
