"""Writes the numbers of docs/external.md, and its figure: python docs/write_external.py runs/external"""

import json
import shutil
import sys
from pathlib import Path

PAGE = Path(__file__).with_name("external.md")
FIGURE = PAGE.parent / "img" / "external.png"
BEGIN, END = "<!-- written by docs/write_external.py -->", "<!-- end of what is written -->"


def plain(e: dict) -> str:
    return f"{e['value']:.2f}"


def interval(e: dict) -> str:
    return f"{e['value']:+.2f} [{e['low']:+.2f}, {e['high']:+.2f}]"


def written(found: dict) -> str:
    """The tables, from external.json."""
    k, n = found["k"], found["samples"]
    seeds = ", ".join(map(str, found["seeds"]))
    prompts = ", ".join(map(str, sorted(set(found["num_prompts"].values()))))
    names = {writer: f"`{writer}`" for writer in found["sets"]}
    order = sorted(found["sets"], key=lambda writer: found["sets"][writer]["shown"])
    lines = [
        BEGIN,
        "",
        f"Seeds {seeds}; {prompts} prompts a split and seed; {n} rollouts a prompt in a set. The sets:",
        "",
        f"| written by | distinct right of {n} | entropy, nats | right | prompts with a right one |",
        "| --- | --- | --- | --- | --- |",
    ]
    for writer in order:
        e = found["sets"][writer]
        cells = (f"{e[name]:.2f}" for name in ("shown", "shown_entropy", "shown_right", "covered"))
        lines.append(f"| {' | '.join([names[writer], *cells])} |")
    lines += [
        "",
        "And what became of students and of the runs beside them:",
        "",
        f"| | pass@1 | distinct correct of {k} | harder pass@{k} |",
        "| --- | --- | --- | --- |",
    ]
    students = {found["sets"][writer]["student"]: writer for writer in order}
    for run in [*(r for r in found["runs"] if r not in students), *students]:
        e = found["runs"][run]
        what = f"student of {names[students[run]]}" if run in students else f"`{run}`"
        lines.append(f"| {what} | {' | '.join(plain(e[x]) for x in ('pass_1', 'distinct', 'harder'))} |")
    lines += [
        "",
        f"Differences in distinct correct strategies of {k}, with 95 % intervals over seeds and prompts:",
        "",
        f"| student of | minus writer | minus start | minus SDSD | harder pass@{k} minus writer |",
        "| --- | --- | --- | --- | --- |",
    ]
    for writer in order:
        e = found["sets"][writer]
        names_ = ("against_writer", "against_start", "against_sdsd", "against_writer_harder")
        lines.append(f"| {names[writer]} | {' | '.join(interval(e[name]) for name in names_)} |")
    claim = found["C6"]
    lines += [
        "",
        f"C6, at the most diverse set (`{claim['details']['most_diverse']}`): {interval(claim)}, "
        f"{'holds' if claim['holds'] else 'does not hold'}. Slope of the students' distinct correct "
        f"strategies on those of the sets: {interval(found['slope'])}.",
        "",
        END,
    ]
    return "\n".join(lines)


def main(folder: str) -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    found = json.loads((Path(folder) / "external.json").read_text())
    PAGE.write_text(before + written(found) + rest.partition(END)[2])
    shutil.copy(Path(folder) / "external.png", FIGURE)


if __name__ == "__main__":
    main(*sys.argv[1:])
