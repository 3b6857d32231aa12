"""The tables of a report: rows once, shown as HTML, CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sdd.claims.compare import Interval
from sdd.claims.runs import Study
from sdd.progress import printable
from sdd.report import series
from sdd.report.html import ends, number
from sdd.report.look import labels, metric_name, split_name
from sdd.report.pairs import Change
from sdd.report.summary import Row, config_differences, events

Cell = str | int | float | None | Interval


class Table(NamedTuple):
    """Cells are texts, numbers, None, or intervals ``{"value", "low", "high"}``.

    Attributes:
      name: of its files.
      caption: what it shows, one sentence.
      header: names of the columns; a column of intervals becomes three in CSV.
      signed: whether numbers are differences.
      methods: of each row the method's label, or "" where a row belongs to none.
    """

    name: str
    caption: str
    header: tuple[str, ...]
    rows: list[list[Cell]]
    signed: bool = False
    methods: tuple[str, ...] = ()


def tables(
    study: Study,
    rows: dict[tuple[str, str], Row],
    changes: Sequence[Change],
    claims: dict[str, dict[str, Any]],
) -> dict[str, Table]:
    """Name -> table, for those that have rows."""
    made = [
        claims_table(claims),
        final(study, rows),
        pass_at_k(study, rows),
        change(study, changes),
        lost(study, changes),
        timings(study),
        settings(study),
        happened(study),
    ]
    return {table.name: table for table in made if table.rows}


def claims_table(claims: dict[str, dict[str, Any]]) -> Table:
    """Value, interval and verdict of each claim."""
    verdicts = {True: "yes", False: "no", None: "undecided"}
    rows: list[list[Cell]] = [
        [name, claim.get("statement", ""), _interval(claim), verdicts[claim.get("holds")]]
        for name, claim in in_order(claims).items()
    ]
    caption = "Claims: differences with 95 % intervals, and whether each holds."
    return Table("claims", caption, ("claim", "statement", "value", "holds"), rows, signed=True)


def final(study: Study, rows: dict[tuple[str, str], Row]) -> Table:
    """Methods and splits against the metrics of the final evaluations."""
    # k is shared within a split; a column exists where any split has the metric.
    names = list(dict.fromkeys(name for row in rows.values() for name in row.metrics))
    called, methods = labels(study.methods), []
    body: list[list[Cell]] = []
    for split in dict.fromkeys(split for _, split in rows):
        for (method, s), row in rows.items():
            if s == split:
                nothing: Interval = {"value": None, "low": None, "high": None}
                cells = [row.metrics.get(name, nothing) for name in names]
                body.append([split_name(split), called[method], len(row.seeds), *cells])
                methods.append(called[method])
    header = ("split", "method", "seeds", *map(_short, names))
    caption = "Final evaluations: means over prompts and seeds with 95 % intervals."
    return Table("final", caption, header, body, methods=tuple(methods))


def pass_at_k(study: Study, rows: dict[tuple[str, str], Row]) -> Table:
    """pass@k of every method and split, for every k."""
    called = labels(study.methods)
    ks = sorted({k for row in rows.values() for k in row.curve})
    body: list[list[Cell]] = [
        [split_name(split), called[method], *(row.curve.get(k) for k in ks)]
        for (method, split), row in rows.items()
    ]
    body.sort(key=lambda cells: [split_name(s) for s in study.splits].index(str(cells[0])))
    caption = "pass@k of the final models with 95 % intervals."
    header = ("split", "method", *(f"pass@{k}" for k in ks))
    return Table("pass_at_k", caption, header, body, methods=tuple(str(cells[1]) for cells in body))


def change(study: Study, changes: Sequence[Change]) -> Table:
    """What each method changed against its start."""
    called = labels(study.methods)
    ks = {c.k for c in changes}
    k = str(ks.pop()) if len(ks) == 1 else "k"
    rows: list[list[Cell]] = [
        [split_name(c.split), called[c.method], c.num_prompts, c.pass_1, c.pass_k, c.distinct]
        for c in changes
    ]
    header = ("split", "method", "prompts", "pass@1", f"pass@{k}", f"distinct correct @{k}")
    caption = "Change from the start to the end, paired by prompt, with 95 % intervals."
    return Table("change", caption, header, rows, True, tuple(str(cells[1]) for cells in rows))


def lost(study: Study, changes: Sequence[Change]) -> Table:
    """At how many prompts strategies were lost and gained, and which."""
    called = labels(study.methods)
    rows: list[list[Cell]] = []
    for c in changes:
        if c.lost is None:
            continue
        most = [f"{printable(name)[:40]} ({count})" for name, count in list(c.most_lost.items())[:5]]
        rows.append([split_name(c.split), called[c.method], c.num_prompts, c.lost, c.gained, ", ".join(most)])
    header = ("split", "method", "prompts", "lost one", "gained one", "most often lost (at so many prompts)")
    caption = (
        "Strategies lost and gained: shares of the prompts at which some strategy that was right at the "
        "start never was at the end, and the reverse."
    )
    return Table("strategies", caption, header, rows, methods=tuple(str(cells[1]) for cells in rows))


def timings(study: Study) -> Table:
    """Median seconds a step, and the shares of sampling and update."""
    by_method: dict[str, dict[str, dict[str, Any]]] = {}
    for record in series.timings(study):
        by_method.setdefault(record["method"], {})[record["part"]] = record
    rows: list[list[Cell]] = [
        [
            name,
            parts["sampling"]["total"],
            *(parts[part]["share"] for part in ("sampling", "update", "the rest")),
        ]
        for name, parts in by_method.items()
    ]
    header = ("method", "seconds a step", "sampling's share", "update's share", "the rest's share")
    caption = "Time: medians over steps after the first tenth, of all seeds."
    return Table("timings", caption, header, rows, methods=tuple(by_method))


def settings(study: Study) -> Table:
    """Settings that differ between the methods."""
    methods, differences = config_differences(study)
    called = labels(study.methods)
    rows: list[list[Cell]] = [
        [key, *(None if value is None else str(value) for value in values)]
        for key, values in differences.items()
    ]
    caption = "Settings that differ between the methods."
    return Table(
        "settings", caption, ("setting", *(called[m] for m in methods)), rows if len(methods) > 1 else []
    )


def happened(study: Study) -> Table:
    """Events of the runs."""
    called = labels(study.methods)
    found = events(study)
    rows: list[list[Cell]] = [
        [
            event["event"].replace("_", " "),
            called[event["method"]],
            event["seed"],
            event["step"],
            event["count"],
            event["message"],
        ]
        for event in found
    ]
    header = ("event", "method", "seed", "step", "times", "message")
    caption = "Events during the runs."
    return Table("events", caption, header, rows, methods=tuple(called[e["method"]] for e in found))


def in_order(claims: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Claims by name, numbers as numbers: C2 before C10."""

    def key(name: str) -> list[tuple[int, int, str]]:
        parts = re.findall(r"\d+|\D+", name)
        return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]

    return {name: claims[name] for name in sorted(claims, key=key)}


# ---- files ----------------------------------------------------------------------------------------------


def write(tables: dict[str, Table], folder: Path) -> None:
    """Writes ``NAME.csv`` and ``NAME.tex`` of every table."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        (folder / f"{name}.csv").write_text(to_csv(table), encoding="utf-8", newline="")
        (folder / f"{name}.tex").write_text(to_latex(table), encoding="utf-8")


def to_csv(table: Table) -> str:
    """Full precision; a column of intervals becomes NAME, NAME low and NAME high."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    wide = [any(isinstance(row[i], dict) for row in table.rows) for i in range(len(table.header))]
    writer.writerow(
        [
            n
            for name, three in zip(table.header, wide)
            for n in ([name, f"{name} low", f"{name} high"] if three else [name])
        ]
    )
    for row in table.rows:
        cells: list[Any] = []
        for cell, three in zip(row, wide):
            if three:
                ends_of = cell if isinstance(cell, dict) else {}
                cells += [ends_of.get(end) for end in ("value", "low", "high")]
            else:
                cells.append(printable(cell) if isinstance(cell, str) else cell)
        writer.writerow(cells)
    return buffer.getvalue()


def to_latex(table: Table) -> str:
    """A booktabs tabular, for ``\\usepackage{booktabs}``; every text is escaped."""
    kinds = [
        any(isinstance(row[i], dict | int | float) for row in table.rows) for i in range(len(table.header))
    ]
    lines = [
        f"% {printable(table.caption)}",
        rf"\begin{{tabular}}{{{''.join('r' if numeric else 'l' for numeric in kinds)}}}",
        r"\toprule",
        " & ".join(map(escape, table.header)) + r" \\",
        r"\midrule",
        *(" & ".join(_latex(cell, table.signed) for cell in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text that LaTeX sets as it is."""
    special = {c: rf"\{c}" for c in "&%$#_{}"}
    special |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}"}
    special |= {"<": r"\textless{}", ">": r"\textgreater{}", '"': r"\textquotedbl{}", "|": r"\textbar{}"}
    return "".join(special.get(c, c) for c in printable(text))


def _latex(cell: Cell, signed: bool) -> str:
    if cell is None:
        return "--"
    if isinstance(cell, dict):
        if cell["value"] is None:
            return "--"
        interval = f" [{ends(cell, signed).replace(' to ', ', ')}]" if cell["low"] is not None else ""
        return f"${number(cell['value'], signed)}{interval}$".replace("−", "-")
    if isinstance(cell, float):
        return f"${cell:.4g}$"
    return str(cell) if isinstance(cell, int) else escape(cell)


def _interval(estimate: dict[str, Any]) -> Interval:
    return {end: estimate.get(end) for end in ("value", "low", "high")}


def _short(metric: str) -> str:
    if metric.startswith("distinct_correct@"):
        return f"distinct correct @{metric.split('@')[1]}"
    return metric_name(metric)
