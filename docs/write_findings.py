"""Writes the numbers of docs/findings.md: python docs/write_findings.py runs/study [runs/tuning [runs/fresh]]

What is between the marks is rewritten, the rest of the page stays. Every number comes from ``claims.json``,
which ``sdd report`` computes from the run folders, or from the folders themselves.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("findings.md")
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
        "| method | pass@1, in distribution | distinct correct of 32, harder | dominated by |",
        "| --- | --- | --- | --- |",
    ]
    lines += [
        f"| {name} | {number(each['pass@1'])[1:]} | {number(each['distinct_correct'])[1:]} | "
        f"{', '.join(each['dominated_by']) or '**none**'} |"
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


def filled(page: str, claims: dict[str, dict[str, Any]], more: dict[str, str]) -> str:
    """The page with the blocks of these claims, and more blocks."""
    blocks = {name: block(name, claim) for name, claim in claims.items()}
    if methods := claims.get("C9", {}).get("details", {}).get("plane"):
        blocks["plane"] = plane(methods)
    for name, text in (blocks | more).items():
        marks = re.escape(BEGIN.format(name)) + ".*?" + re.escape(END.format(name))
        page = re.sub(marks, lambda _, text=text: text, page, flags=re.DOTALL)
    return page


if __name__ == "__main__":
    found = json.loads((Path(sys.argv[1]) / "claims.json").read_text(encoding="utf-8"))
    makers = {"tuning": tuning, "fresh": fresh}
    extra = {name: make(Path(path)) for (name, make), path in zip(makers.items(), sys.argv[2:])}
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found, extra), encoding="utf-8")
