"""The answer in words: what rose, what it cost."""

from collections.abc import Mapping

from sdd.metrics import Estimate

# The first of these that was measured speaks for diversity; strategies before anything that reads surfaces.
DIVERSITY = (
    ("distinct_correct@", "distinct correct strategies"),
    ("distinct@", "distinct strategies"),
    ("vendi[", "effective number of responses"),
    ("distinct_text@", "distinct responses"),
)


def verdict(
    metrics: Mapping[str, Estimate], baseline: Mapping[str, Estimate], change: Mapping[str, Estimate]
) -> str:
    """One sentence; a change counts as one only where its interval excludes 0."""
    measured = change or metrics
    first, last = _at_k(measured, "pass@", least=True), _at_k(measured, "pass@")
    chosen = dict.fromkeys(name for name in (first, last) if name)
    named = _diversity(measured)
    if not change:
        said = [f"{name} {_value(metrics[name])}" for name in chosen]
        said += [f"{label} ({name}) {_value(metrics[name])}" for name, label in named]
        return "; ".join(said) or "nothing was measured"
    said = [f"{name} {_signed(change[name])}" for name in chosen]
    for name, label in named:
        moved = f"{baseline[name].value:.3g} -> {metrics[name].value:.3g}"
        said.append(f"{label} ({name}) {moved}, change {_signed(change[name])}")
    return f"{'; '.join(said)}: {_conclusion(change, first, last, named)}"


def _conclusion(change, first: str | None, last: str | None, named: list[tuple[str, str]]) -> str:
    """For example "more right answers, fewer ways"."""
    parts = []
    if first:
        parts.append(f"{_how_many(change[first])} right answers")
    if last and last != first:
        parts.append(f"{_how_many(change[last])} problems within {last.removeprefix('pass@')} tries")
    if named:
        parts.append(f"{_how_many(change[named[0][0]])} ways")
    return ", ".join(parts) or "nothing that both files have tells"


def _how_many(change: Estimate) -> str:
    if change.low > 0:
        return "more"
    return "fewer" if change.high < 0 else "about as many"


def _diversity(measured: Mapping[str, Estimate]) -> list[tuple[str, str]]:
    """(name, label) of the metric that speaks for diversity, at the largest k; empty if there is none."""
    for prefix, label in DIVERSITY:
        name = _at_k(measured, prefix) if prefix.endswith("@") else _first(measured, prefix)
        if name is not None:
            return [(name, label)]
    return []


def _defined(measured: Mapping[str, Estimate], prefix: str) -> list[str]:
    return [name for name, e in measured.items() if name.startswith(prefix) and e.value == e.value]


def _first(measured: Mapping[str, Estimate], prefix: str) -> str | None:
    return next(iter(_defined(measured, prefix)), None)


def _at_k(measured: Mapping[str, Estimate], prefix: str, least: bool = False) -> str | None:
    names = sorted(_defined(measured, prefix), key=lambda name: int(name.removeprefix(prefix)))
    return names[0 if least else -1] if names else None


def _value(e: Estimate) -> str:
    return f"{e.value:.3g} [{e.low:.3g}, {e.high:.3g}]"


def _signed(e: Estimate) -> str:
    return f"{e.value:+.2f} [{e.low:.2f}, {e.high:.2f}]"
