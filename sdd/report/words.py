"""What a study found, in sentences whose verbs follow from the numbers.

A difference is called a rise or a fall only where its interval excludes 0.
"""

from collections.abc import Sequence
from typing import Any

from sdd.claims.compare import above, below
from sdd.claims.runs import Study
from sdd.report import html
from sdd.report.load import start_of
from sdd.report.look import labels, split_name
from sdd.report.pairs import Change

MOST_LINES = 8  # methods that get a sentence each


def headline(claims: dict[str, dict[str, Any]]) -> str:
    """One or two sentences on the claims; "" where there are none."""
    if not claims:
        return ""
    said = []
    c1, c3, c4 = (claims.get(name, {"value": None}) for name in ("C1", "C3", "C4"))
    if c1["value"] is not None:
        verb = "matches" if c1["holds"] else "falls short of"
        said.append(f"SDSD (K = 1) {verb} GRPO at pass@1 in distribution ({signed(c1)})")
    if c4["value"] is not None:
        against = c4["details"]["distinct_against_grpo"]
        said.append(
            f"it finds {_direction(against)} distinct correct strategies among {c4['details']['k']} draws "
            f"than GRPO ({signed(against)}) and {_direction(c4)} than the starting model ({signed(c4)})"
        )
    if c3["value"] is not None:
        said.append(
            f"on harder problems its pass@{c3['details']['k']} is {_direction(c3, 'higher', 'lower')} "
            f"than GRPO's ({signed(c3)})"
        )
    decided = [c["holds"] for c in claims.values() if c.get("holds") is not None]
    total = f"{sum(decided)} of {len(decided)} claims hold here" if decided else "No claim could be decided"
    open_claims = len(claims) - len(decided)
    tail = f"; {open_claims} could not be decided, runs are missing." if open_claims else "."
    return ("; ".join(said) + ". " if said else "") + total + tail


def rose_and_cost(study: Study, changes: Sequence[Change]) -> list[tuple[str, str]]:
    """What rose and what it cost on the first split: (about whom, sentence) of all, then of each of a few."""
    here = [c for c in changes if c.split == (study.splits[0] if study.splits else "")]
    here = [c for c in here if c.pass_1["value"] is not None]
    if not here:
        return []
    called = labels(study.methods)
    start = "the starting model" if any(start_of(study, c.method) for c in here) else "the first evaluation"
    where = f"{split_name(here[0].split)}, against {start}"
    lines = [(f"{where[0].upper()}{where[1:]}", _all(here, called))] if len(here) > 1 else []
    if len(here) <= MOST_LINES:
        lines += [(called[c.method] if lines else f"{called[c.method]}, {where}", _one(c)) for c in here]
    return lines


def signed(estimate: dict[str, Any]) -> str:
    """ "+0.338, 95 % +0.310 to +0.360"."""
    interval = html.ends(estimate, True)
    return html.number(estimate["value"], True) + (f", 95 % {interval}" if interval else "")


def _all(changes: Sequence[Change], called: dict[str, str]) -> str:
    total = len(changes)
    parts = [f"pass@1 rose under {_count(sum(above(c.pass_1) for c in changes), total)} methods"]
    known = [c for c in changes if c.distinct["value"] is not None]
    if known:
        fell = sum(below(c.distinct) for c in known)
        parts.append(
            f"distinct correct strategies of {known[0].k} draws fell under {_count(fell, len(known))}"
        )
    sentence = " and ".join(parts) + "."
    if len(known) > 1:
        least, most = (f(known, key=lambda c: c.distinct["value"] or 0.0) for f in (max, min))
        sentence += (
            f" {called[least.method]} kept the most ({signed(least.distinct)}), "
            f"{called[most.method]} the fewest ({signed(most.distinct)})."
        )
    return sentence


def _one(change: Change) -> str:
    parts = [f"pass@1 {_verb(change.pass_1)}"]
    if change.k > 1:
        parts.append(f"pass@{change.k} {_verb(change.pass_k)}")
    if change.distinct["value"] is not None:
        parts.append(f"distinct correct strategies of {change.k} draws {_verb(change.distinct)}")
    if change.lost is not None:
        parts.append(f"{change.lost:.0%} of {change.num_prompts} prompts lost a strategy that was right")
    return "; ".join(parts) + "."


def _verb(estimate: dict[str, Any]) -> str:
    if below(estimate):
        return f"fell ({signed(estimate)})"
    return f"rose ({signed(estimate)})" if above(estimate) else f"did not clearly change ({signed(estimate)})"


def _count(number: int, total: int) -> str:
    if number == total:
        return f"all {total}"
    return f"{number} of {total}" if number else f"none of {total}"


def _direction(estimate: dict[str, Any], more: str = "more", fewer: str = "fewer") -> str:
    if below(estimate):
        return fewer
    if above(estimate):
        return more
    return f"neither clearly {more} nor {fewer}"
