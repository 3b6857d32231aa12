"""Writes the numbers of docs/findings.md and README.md.

    python docs/write_findings.py runs/study [runs/tuning [runs/fresh]]

What is between the marks is rewritten, the rest of the page stays. Every number comes from ``claims.json``,
which ``sdd report`` computes from the run folders, or from the folders themselves.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("findings.md")
README = PAGE.parents[1] / "README.md"
BEGIN, END = "<!-- {} -->", "<!-- end of {} -->"


def number(interval: dict[str, Any]) -> str:
    """An estimate and its 95 % interval."""
    if interval["value"] is None:
        return "not measured"
    return f"{interval['value']:+.3f} [{interval['low']:+.3f}, {interval['high']:+.3f}]"


def is_interval(value: Any) -> bool:
    """Whether a detail of a claim is an estimate."""
    return isinstance(value, dict) and {"value", "low", "high"} <= value.keys()


def block(name: str, claim: dict[str, Any]) -> str:
    """What a claim's file says, as markdown."""
    holds = {True: "holds", False: "does not hold", None: "open"}[claim["holds"]]
    seeds = ", ".join(map(str, claim["seeds"])) or "none"
    lines = [f"**{holds}: {number(claim)}**, seeds {seeds}. Rule: {claim['details'].get('rule', '-')}.", ""]
    for key, value in claim["details"].items():
        if is_interval(value):
            lines.append(f"- {key.replace('_', ' ')}: {number(value)}")
    for run, fits in claim["details"].get("runs", {}).items():
        parts = ", ".join(f"{key} {number(fits[key])}" for key in ("correlation", "slope", "partial"))
        lines.append(f"- {run}: {parts}, measured {fits['measured_rms']:.2f} nats")
    for problem in claim["details"].get("runaway", []):
        lines.append(f"- ran away: {problem}")
    return "\n".join([BEGIN.format(name), "", *lines, "", END.format(name)])


def plane(methods: dict[str, dict[str, Any]]) -> str:
    """The table of all methods, the best pass@1 first."""
    rows = sorted(methods.items(), key=lambda item: -item[1]["pass@1"]["value"])
    lines = [
        "| method | seeds | pass@1, in distribution | distinct correct of 32, harder | dominated by |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {len(each['seeds'])} | {number(each['pass@1'])[1:]} | "
        f"{number(each['distinct_correct'])[1:]} | {', '.join(each['dominated_by']) or '**none**'} |"
        for name, each in rows
    ]
    return "\n".join([BEGIN.format("plane"), "", *lines, "", END.format("plane")])


def tuning(folder: Path) -> str:
    """The table of the runs that chose settings: four means a seed, without intervals."""
    from sdd.claims.compare import distinct_correct_at, pass_at
    from sdd.claims.runs import load_study

    columns = {
        "pass@1": ("id", pass_at(1)),
        "larger": ("larger", pass_at(1)),
        "harder pass@32": ("harder", pass_at(32)),
        "harder distinct correct of 32": ("harder", distinct_correct_at(32)),
    }
    study = load_study(folder)
    seeds = ", ".join(map(str, study.seeds))
    lines = [f"| run (seeds {seeds}) | " + " | ".join(columns) + " |", "| --- " * (1 + len(columns)) + "|"]
    for name in study.methods:
        cells = []
        for split, quantity in columns.values():
            means = [
                f"{quantity(runs[name].rollouts(split)).mean():.3f}" if name in runs else "-"
                for runs in study.seeds.values()
            ]
            cells.append(", ".join(means))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([BEGIN.format("tuning"), "", *lines, "", END.format("tuning")])


def fresh(folder: Path) -> str:
    """C9's four differences on seeds that chose nothing."""
    from sdd.claims.compare import gather
    from sdd.claims.cure import c9
    from sdd.claims.names import NEEDS
    from sdd.claims.runs import load_study

    study = load_study(folder)
    seeds = list(study.seeds)
    claim = c9(*(gather(study, seeds, NEEDS["C9"], split) for split in ("id", "larger", "harder")))
    lines = [f"On fresh seeds ({', '.join(map(str, seeds))}), which chose nothing:", ""]
    lines += [f"- {key}: {number(value)}" for key, value in claim["details"].items() if is_interval(value)]
    return "\n".join([BEGIN.format("fresh"), "", *lines, "", END.format("fresh")])


def means(folder: Path) -> str:
    """README's table: means of the methods that it names over the seeds of the study."""
    from sdd.claims.compare import distinct_correct_at, favourite_share, pass_at
    from sdd.claims.runs import load_study
    from sdd.report.look import label

    columns = {
        "pass@1": ("id", pass_at(1), ".3f"),
        "pass@32": ("id", pass_at(32), ".3f"),
        "distinct correct of 32": ("id", distinct_correct_at(32), ".2f"),
        "favourite's share": ("id", favourite_share, ".3f"),
        "harder pass@1": ("harder", pass_at(1), ".3f"),
        "harder pass@32": ("harder", pass_at(32), ".3f"),
    }
    study = load_study(folder)
    lines = [
        f"Means over {len(study.seeds)} seeds, each with its own graphs, warm start and evaluation set; 384 "
        "graphs a split, 64 rollouts a graph:",
        "",
        "| | " + " | ".join(columns) + " |",
        "| --- " * (1 + len(columns)) + "|",
    ]
    for name in ("warm_start", "grpo", "grpo_diversity", "sdsd_k1", "sdsd_k3", "csd"):
        runs = study.of_method(name).values()
        cells = [
            format(sum(float(quantity(run.rollouts(split)).mean()) for run in runs) / len(runs), how)
            for split, quantity, how in columns.values()
        ]
        lines.append(f"| {label(name)} | " + " | ".join(cells) + " |")
    return "\n".join([BEGIN.format("means"), "", *lines, "", END.format("means")])


def table(claims: dict[str, dict[str, Any]]) -> str:
    """README's table of claims."""
    lines = ["| | claim | value | interval | holds |", "| --- | --- | --- | --- | --- |"]
    for name, claim in claims.items():
        holds = {True: "yes", False: "no", None: "open"}[claim["holds"]]
        value, low, high = (
            "-" if claim[end] is None else f"{claim[end]:+.3f}" for end in ("value", "low", "high")
        )
        lines.append(f"| {name} | {claim['statement']} | {value} | {low} to {high} | {holds} |")
    return "\n".join([BEGIN.format("claims"), "", *lines, "", END.format("claims")])


def replaced(page: str, blocks: dict[str, str]) -> str:
    """The page with these blocks between their marks."""
    for name, text in blocks.items():
        marks = re.escape(BEGIN.format(name)) + ".*?" + re.escape(END.format(name))
        page = re.sub(marks, lambda _, text=text: text, page, flags=re.DOTALL)
    return page


def filled(page: str, claims: dict[str, dict[str, Any]], more: dict[str, str]) -> str:
    """The page with the blocks of these claims, and more blocks."""
    blocks = {name: block(name, claim) for name, claim in claims.items()}
    if methods := claims.get("C9", {}).get("details", {}).get("plane"):
        blocks["plane"] = plane(methods)
    return replaced(page, blocks | more)


if __name__ == "__main__":
    found = json.loads((Path(sys.argv[1]) / "claims.json").read_text(encoding="utf-8"))
    makers = {"tuning": tuning, "fresh": fresh}
    extra = {name: make(Path(path)) for (name, make), path in zip(makers.items(), sys.argv[2:])}
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found, extra), encoding="utf-8")
    tables = {"means": means(Path(sys.argv[1])), "claims": table(found)}
    README.write_text(replaced(README.read_text(encoding="utf-8"), tables), encoding="utf-8")
