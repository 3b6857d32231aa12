"""What was measured, as a page to look at and as figures and a table for a paper."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sdd.measure.run import Measured
from sdd.measure.values import depends_on_num_samples
from sdd.metrics import Estimate
from sdd.report import html
from sdd.report.mpl import RC, WIDTH

COLORS = {"baseline": "#555555", "file": "#D55E00"}
CURVES = ("pass", "distinct_correct", "distinct", "distinct_text")
CAPTION = "Expected over k samples of a prompt, without bias. Bands: 95 % bootstrap over prompts."


def write(folder: Path, measured: Measured, sentence: str, names: tuple[str, str]) -> Path:
    """Writes ``report.html``, ``curves.png``, ``curves.svg`` and ``metrics.csv`` into a folder.

    Args:
      folder: made where it is not there.
      measured: what `sdd.measure.run.measure` returned.
      sentence: the answer in words.
      names: what the file and the baseline are called.

    Returns:
      The path of the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.csv").write_text(_csv(measured), encoding="utf-8")
    parts: list[object] = [html.tag("h1", f"{names[0]}: what it does"), html.tag("p", sentence, "headline")]
    parts += [html.tag("p", warning, "warn") for warning in measured.warnings]
    with matplotlib.rc_context(RC):
        figure = curves(measured, names)
        if figure is not None:
            buffers = {kind: io.BytesIO() for kind in ("png", "svg")}
            for kind, buffer in buffers.items():
                software = {"Software": None} if kind == "png" else {"Date": None}
                figure.savefig(buffer, format=kind, dpi=170, metadata=software)
                (folder / f"curves.{kind}").write_bytes(buffer.getvalue())
            parts += [html.image(buffers["png"].getvalue(), CAPTION), html.tag("p", CAPTION, "dim")]
    parts += [html.tag("h2", "Metrics"), table(measured, names), _footnote(measured)]
    (folder / "report.html").write_text(html.page(names[0], parts), encoding="utf-8")
    return folder / "report.html"


def curves(measured: Measured, names: tuple[str, str]) -> Figure | None:
    """pass@k and distinct strategies against k; None if there is nothing to draw."""
    c = measured.comparison
    kinds = [kind for kind in CURVES if len(_curve(c.metrics, kind)) > 1][:3]
    if not kinds:
        return None
    figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    for ax, kind in zip(axes, kinds):
        if c.baseline:
            _draw(ax, _curve(c.baseline, kind), COLORS["baseline"], names[1], "--")
        _draw(ax, _curve(c.metrics, kind), COLORS["file"], names[0], "-")
        ax.set_xscale("log", base=2)
        ks = sorted(_curve(c.metrics, kind))
        ax.set_xticks(ks, [str(k) for k in ks])
        ax.minorticks_off()
        ax.set(xlabel="k", ylabel=f"{kind}@k")
    axes[0].legend(frameon=False)
    return figure


def _curve(estimates: dict[str, Estimate], kind: str) -> dict[int, Estimate]:
    prefix = f"{kind}@"
    defined = {name: e for name, e in estimates.items() if name.startswith(prefix) and e.value == e.value}
    return {int(name.removeprefix(prefix)): e for name, e in defined.items()}


def _draw(ax: Axes, curve: dict[int, Estimate], color: str, label: str, dash: str) -> None:
    ks = sorted(curve)
    low, value, high = (np.array([getattr(curve[k], end) for k in ks]) for end in ("low", "value", "high"))
    ax.fill_between(ks, low, high, color=color, alpha=0.15, linewidth=0)
    ax.plot(ks, value, dash, color=color, marker="o", label=label)


class Row(NamedTuple):
    """A metric; None where it is defined for no prompt."""

    name: str
    file: Estimate | None
    baseline: Estimate | None
    change: Estimate | None


def rows(measured: Measured) -> list[Row]:
    """Every metric that is defined somewhere."""

    def defined(estimates: dict[str, Estimate], name: str) -> Estimate | None:
        found = estimates.get(name)
        return found if found is not None and found.value == found.value else None

    c = measured.comparison
    names = dict.fromkeys([*c.metrics, *c.baseline])
    found = [Row(n, defined(c.metrics, n), defined(c.baseline, n), defined(c.change, n)) for n in names]
    return [row for row in found if row.file or row.baseline]


def table(measured: Measured, names: tuple[str, str]) -> html.Markup:
    """Every metric with its interval; a change whose interval excludes 0 stands out."""
    header: Sequence[object] = ["metric", names[0]]
    if measured.before is not None:
        header = [*header, names[1], "change"]
    body = []
    for name, *estimates in rows(measured):
        mark = "*" if depends_on_num_samples(name) else ""
        cells: list[object] = [html.text(name + mark)]
        for i, e in enumerate(estimates[: len(header) - 1]):
            cells.append("–" if e is None else _cell(e, signed=i == 2))
        body.append(cells)
    return html.table(header, body)


def _cell(e: Estimate, signed: bool) -> html.Markup:
    ends = html.tag("small", html.ends(e._asdict(), signed))
    value = html.number(e.value, signed)
    told = signed and (e.low > 0 or e.high < 0)
    return html.join([html.tag("b", value) if told else html.text(value), ends], " ")


def _footnote(measured: Measured) -> html.Markup:
    text = (
        f"{measured.prompts} prompts, {measured.samples} samples. 95 % percentile bootstrap over prompts"
        + (", paired by prompt for the change" if measured.before is not None else "")
        + ". * moves with the number of samples a prompt; compare equal numbers."
    )
    return html.tag("p", text, "dim")


def _csv(measured: Measured) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    ends = ("value", "low", "high")
    writer.writerow(["metric", *(f"{side}_{end}" for side in ("file", "baseline", "change") for end in ends)])
    for name, *estimates in rows(measured):
        cells = ("" if e is None else repr(getattr(e, end)) for e in estimates for end in ends)
        writer.writerow([name, *cells])
    return out.getvalue()
