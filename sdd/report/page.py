"""The report as one self-contained HTML page: no script, no network, every text from a file escaped."""

from collections import Counter
from pathlib import Path
from typing import Any

from sdd.claims.compare import above, below
from sdd.claims.runs import Run, Study
from sdd.report import html
from sdd.report.figures import SPLITS, label
from sdd.report.summary import EVENTS, SERIOUS, Row, config_differences, events

CAPTIONS = {
    "pass_at_k": "pass@k of the final model. Bands: 95 % bootstrap over prompts (and seeds, where several).",
    "diversity_over_steps": "Diversity during training. One seed: 95 % band over prompts; several: a thin "
    "line a seed, and their mean. The last evaluation may have more prompts and samples than those before.",
    "plane": "What each method traded: arrows from the starting model; small marks are seeds.",
    "teacher_health": "The teacher's health. Training curves are means over bins of steps.",
}
METRIC_NAMES = {"top_strategy_share": "favourite's share", "token_entropy": "token entropy (nats)"}
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
MAX_EXAMPLES, MAX_SHOWN, MAX_TEXT = 3, 4, 600


def study_page(study: Study, rows: dict[tuple[str, str], Row], pngs: dict[str, bytes], claims: dict) -> str:
    """The page of a study; of a single run where ``claims`` is empty.

    Args:
      rows: `sdd.report.summary.final_rows`.
      pngs: `sdd.report.figures.draw_all`.
      claims: `sdd.claims.compute`, or {}.
    """
    title = f"{study.path.resolve().name}: what self-distillation costs in diversity"
    parts = [html.tag("h1", title if claims else f"run {study.path.resolve().name}")]
    if claims:
        parts.append(html.tag("p", headline(claims), "headline"))
    parts += [_findings(study), _unfinished(rows)]
    if claims:
        parts += [html.tag("h2", "Claims"), claims_table(claims)]
    parts += [html.tag("h2", "Figures")] if pngs else []
    for name, png in pngs.items():
        parts += [html.image(png, CAPTIONS[name]), html.tag("p", CAPTIONS[name], "dim")]
    parts += [final_table(rows), examples(study), _configs(study), _environments(study)]
    return html.page(title, parts)


def headline(claims: dict[str, dict[str, Any]]) -> str:
    """One or two sentences whose verbs follow from the numbers.

    A difference is called more or fewer only where its interval excludes 0.
    """
    c1, c3, c4 = (claims[name] for name in ("C1", "C3", "C4"))
    said = []
    if c1["value"] is not None:
        verb = "matches" if c1["holds"] else "falls short of"
        said.append(f"SDSD (K = 1) {verb} GRPO at pass@1 in distribution ({_signed(c1)})")
    if c4["value"] is not None:
        against = c4["details"]["distinct_against_grpo"]
        said.append(
            f"it finds {_direction(against)} distinct correct strategies among {c4['details']['k']} draws "
            f"than GRPO ({_signed(against)}) and {_direction(c4)} than the starting model ({_signed(c4)})"
        )
    if c3["value"] is not None:
        said.append(
            f"on harder problems its pass@{c3['details']['k']} is {_direction(c3, 'higher', 'lower')} "
            f"than GRPO's ({_signed(c3)})"
        )
    decided = [c["holds"] for c in claims.values() if c["holds"] is not None]
    total = f"{sum(decided)} of {len(decided)} claims hold here" if decided else "No claim could be decided"
    open_claims = len(claims) - len(decided)
    tail = f"; {open_claims} could not be decided, runs are missing." if open_claims else "."
    return ("; ".join(said) + ". " if said else "") + total + tail


def _direction(estimate: dict[str, Any], more: str = "more", fewer: str = "fewer") -> str:
    if below(estimate):
        return fewer
    if above(estimate):
        return more
    return f"neither clearly {more} nor {fewer}"


def _signed(estimate: dict[str, Any]) -> str:
    return f"{html.number(estimate['value'], True)}, 95 % {html.ends(estimate, True)}"


def claims_table(claims: dict[str, dict[str, Any]]) -> html.Markup:
    """Statement, value, interval and verdict; under each the rule, its other numbers and what is missing."""
    rows = []
    for name, claim in claims.items():
        details = claim["details"]
        more = [
            f"{DETAIL_NAMES.get(key, key)}: {_signed(value)}"
            for key, value in details.items()
            if isinstance(value, dict) and "low" in value and value["value"] != claim["value"]
        ]
        if (rank := details.get("rank_correlation")) and rank["value"] is not None:
            points = f"{rank['num_points']} evaluations"
            more.append(f"rank correlation with distinct strategies over {points}: {rank['value']:+.2f}")
        notes = [f"Holds if: {details['rule']}."] if "rule" in details else []
        notes += [details["note"].capitalize() + "."] if "note" in details else []
        notes += ["; ".join(more)] if more else []
        notes += ["Careful: " + "; ".join(details["runaway"])] if "runaway" in details else []
        notes += ["Missing: " + "; ".join(details["missing"])] if "missing" in details else []
        text = html.join([claim["statement"], *(html.tag("div", note, "dim") for note in notes)])
        rows.append([name, text, html.number(claim["value"], True), html.ends(claim, True), verdict(claim)])
    return html.table(["", "claim", "value", "95 % interval", "holds"], rows)


def verdict(claim: dict[str, Any]) -> html.Markup:
    if claim["holds"] is None:
        return html.tag("span", "undecided", "dim")
    return html.tag("span", "✓ yes", "right") if claim["holds"] else html.tag("span", "✗ no", "wrong")


def final_table(rows: dict[tuple[str, str], Row]) -> html.Markup:
    """Methods and splits against final metrics, with intervals."""
    if not rows:
        return html.tag("p", "No final rollouts are on disk, so there is no table of final numbers.", "dim")
    # k is shared within a split; a column exists where any split has the metric.
    names = list(dict.fromkeys(name for row in rows.values() for name in row.metrics))
    body = []
    for split in dict.fromkeys(split for _, split in rows):
        for (method, s), row in rows.items():
            if s == split:
                body.append([SPLITS.get(split, split), label(method), *(_cell(row, name) for name in names)])
    header = ["split", "method", *(_metric(name) for name in names)]
    return html.join([html.tag("h2", "Final numbers"), html.table(header, body)])


def _cell(row: Row, name: str) -> html.Markup:
    estimate = row.metrics.get(name, {"value": None})
    return html.join([html.number(estimate["value"]), html.tag("small", html.ends(estimate))], "<br>")


def _metric(name: str) -> str:
    if name.startswith("distinct_correct@"):
        return f"distinct correct @{name.split('@')[1]}"
    return METRIC_NAMES.get(name, name)


def _findings(study: Study) -> html.Markup:
    found = events(study)
    if not found:
        return html.Markup("")
    parts = [html.tag("h2", "Findings during the runs")]
    for event in found:
        serious = event["event"] in SERIOUS
        where = f"{event['event'].replace('_', ' ')}: {label(event['method'])}, seed {event['seed']}, "
        times = "" if event["count"] == 1 else f" ({event['count']} times)"
        lines = [html.tag("strong" if serious else "span", f"{where}step {event['step']}{times}")]
        lines += [html.tag("div", event["message"])] if event["message"] else []
        lines += [html.tag("div", EVENTS[event["event"]], "dim")] if event["event"] in EVENTS else []
        parts.append(html.tag("div", html.join(lines), "warn" if serious else ""))
    return html.join(parts)


def _unfinished(rows: dict[tuple[str, str], Row]) -> html.Markup:
    texts = dict.fromkeys(f"{label(m)}, {text}" for (m, _), row in rows.items() for text in row.unfinished)
    if not texts:
        return html.Markup("")
    return html.tag("div", "Unfinished runs, shown as they are: " + "; ".join(texts) + ".", "warn")


def examples(study: Study) -> html.Markup:
    """The first prompts of the hardest split, by method: completions grouped by strategy and verdict."""
    split = "harder" if "harder" in study.splits else (study.splits[-1] if study.splits else "")
    runs = next(iter(study.seeds.values()))
    runs = {name: run for name, run in runs.items() if split and run.rollouts_path(split).exists()}
    if not runs:
        return html.Markup("")
    parts = [html.tag("h2", f"Rollouts: the first prompts of {SPLITS.get(split, split)}")]
    by_prompt: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name in (method for method in study.methods if method in runs):
        for record in runs[name].examples(split, MAX_EXAMPLES):
            by_prompt.setdefault(str(record["prompt_id"]), []).append((name, record))
    for prompt_id, records in list(by_prompt.items())[:MAX_EXAMPLES]:
        parts.append(html.tag("h3", f"Prompt {prompt_id}"))
        parts.append(html.tag("pre", html.text(records[0][1].get("prompt", ""), MAX_TEXT)))
        for name, record in records:
            right = sum(map(bool, record["correct"]))
            summary = html.tag("summary", f"{label(name)}: {right} of {len(record['correct'])} right")
            parts.append(html.tag("details", html.join([summary, *_groups(record)])))
    return html.join(parts)


def _groups(record: dict[str, Any]) -> list[html.Markup]:
    """Completions of a prompt, grouped by strategy and verdict, the largest group first."""
    groups: dict[tuple[str, bool], Counter[str]] = {}
    for completion, strategy, correct in zip(record["completion"], record["strategy"], record["correct"]):
        key = ("no strategy" if strategy is None else str(strategy), bool(correct))
        groups.setdefault(key, Counter())[str(completion)] += 1
    shown = []
    for (strategy, correct), texts in sorted(groups.items(), key=lambda item: -item[1].total()):
        mark, css = ("✓ right", "right") if correct else ("✗ wrong", "wrong")
        shown.append(html.tag("div", f"{mark}, {strategy[:80]}: {texts.total()}", css))
        for completion, count in texts.most_common(MAX_SHOWN):
            shown.append(html.tag("pre", html.join([f"{count} × ", html.text(completion, MAX_TEXT)], "")))
        if len(texts) > MAX_SHOWN:
            shown.append(html.tag("div", f"and {len(texts) - MAX_SHOWN} other texts", "dim"))
    return shown


def _configs(study: Study) -> html.Markup:
    methods, differences = config_differences(study)
    if len(methods) < 2 or not differences:
        return html.Markup("")
    rows = [
        [key, *("–" if v is None else html.text(v, 120) for v in row)] for key, row in differences.items()
    ]
    header = ["setting", *(label(method) for method in methods)]
    return html.join([html.tag("h2", "Settings that differ between the methods"), html.table(header, rows)])


def _environments(study: Study) -> html.Markup:
    runs: list[Run] = [run for by_method in study.seeds.values() for run in by_method.values()]
    versions: dict[str, set[str]] = {}
    machines: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run.environment.items():
            if key == "versions" and isinstance(value, dict):
                for package, version in value.items():
                    versions.setdefault(str(package), set()).add(str(version))
            else:
                machines.setdefault(str(key), set()).add(str(value))
    rows = [[key, ", ".join(sorted(values))] for key, values in (machines | versions).items()]
    return html.join([html.tag("h2", "Environment"), html.table(["", ""], rows)]) if rows else html.Markup("")


def write(path: Path, page: str) -> None:
    """Writes the page as UTF-8; `sdd.report.html.text` has spelled out what UTF-8 cannot say."""
    path.write_text(page, encoding="utf-8")
