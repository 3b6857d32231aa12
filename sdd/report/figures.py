"""The figures of a study: which there are, their data, and as PNG and SVG without a browser."""

from pathlib import Path
from typing import Any, NamedTuple

from sdd.claims.runs import Study
from sdd.report import charts, pairs, plane, series
from sdd.report.charts import Looks, Spec
from sdd.report.look import labels, metric_name, split_name, style
from sdd.report.summary import Row

SCALE = 2.4  # of PNGs: about 2000 px, 7 inches at 300 dpi
CAPTIONS = {
    "pass_at_k": "pass@k of the final models. Bands: 95 % bootstrap over prompts (and seeds, where several).",
    "over_steps": "Evaluations during training. One seed: 95 % band over prompts; several: the mean, and a "
    "band from the lowest to the highest seed. The last evaluation may have more prompts and samples.",
    "plane": "What each method traded. Arrows begin at the starting model; bars are 95 % intervals.",
    "teacher": "Entropies and the teacher's health. Training curves are means over bins of steps; bands "
    "span the seeds; a dotted line is a runaway. Its accuracy is that of evaluations.",
    "training": "Training. Means over bins of steps; bands span the seeds.",
    "prompts": "Each point is a prompt of one seed. Below the line the method lost; tooltips name what.",
    "timings": "Where a step's time goes: medians over the steps after the first tenth.",
}


class Figure(NamedTuple):
    """``spec`` has a legend, for paper; ``live`` has none, for the page; ``records`` are its data set."""

    name: str
    caption: str
    spec: Spec
    live: Spec
    records: list[dict[str, Any]]


def figures(study: Study, rows: dict[tuple[str, str], Row]) -> list[Figure]:
    """Every figure for which there are data.

    Args:
      rows: `sdd.report.summary.final_rows` of the study.
    """
    made = [_pass_at_k, _plane, _over_steps, _prompts, _teacher, _training, _timings]
    return [figure for make in made if (figure := make(study, rows)) is not None]


def render(figure: Figure) -> dict[str, bytes]:
    """ "png" and "svg" -> the file's bytes."""
    import vl_convert

    spec = figure.spec | {"datasets": {figure.name: figure.records}}
    offline: Any = {"allowed_base_urls": [], "vl_version": vl_version()}
    svg = vl_convert.vegalite_to_svg(spec, **offline)
    return {"png": vl_convert.svg_to_png(svg, scale=SCALE), "svg": svg.encode()}


def write(figures: list[Figure], folder: Path) -> None:
    """Writes ``NAME.png`` and ``NAME.svg`` of every figure."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        for kind, data in render(figure).items():
            (folder / f"{figure.name}.{kind}").write_bytes(data)


def vl_version() -> str:
    """The version of Vega-Lite that the specs are written for, as vl_convert names it."""
    import altair

    return ".".join(altair.SCHEMA_VERSION.removeprefix("v").split(".")[:2])


# ---- each figure ----------------------------------------------------------------------------------------


def _pass_at_k(study: Study, rows: dict[tuple[str, str], Row]) -> Figure | None:
    records = series.pass_at_k(study, rows)
    ks = sorted({r["k"] for r in records})
    return _figure(
        "pass_at_k", study, records, lambda looks: charts.pass_at_k(looks, _splits(study, records), ks)
    )


def _plane(study: Study, rows: dict[tuple[str, str], Row]) -> Figure | None:
    records = plane.points(study, rows)
    if not records:
        return None
    splits = _splits(study, records)
    frame = plane.frame(records, len(splits))
    many = len({r["method"] for r in records}) > charts.FEW
    k = min(r["k"] for r in records)
    records = plane.with_arrows(records, frame, many)
    return _figure("plane", study, records, lambda looks: plane.chart(looks, splits, frame, k))


def _over_steps(study: Study, rows: dict[tuple[str, str], Row]) -> Figure | None:
    records = series.over_steps(study)
    metrics = list(dict.fromkeys(r["metric"] for r in records))
    if not metrics:
        return None
    splits = _splits(study, records)

    def spec(looks: Looks) -> Spec:
        if not looks.legend:
            return charts.over_steps(looks, splits, metrics[0])
        return charts.rows_of_metrics(looks, splits, metrics[:4])

    return _figure("over_steps", study, records, spec)


def _teacher(study: Study, rows: dict[tuple[str, str], Row]) -> Figure | None:
    return _multiples(
        "teacher", study, series.teacher(study), "Entropies and the teacher's health over steps"
    )


def _training(study: Study, rows: dict[tuple[str, str], Row]) -> Figure | None:
    return _multiples("training", study, series.training(study, series.TRAINING), "Training over steps")


def _prompts(study: Study, rows: dict[tuple[str, str], Row]) -> Figure | None:
    records = pairs.points(study)
    known = any(r["distinct_start"] is not None for r in records)  # else the task has no strategies
    strategies = metric_name(f"distinct_correct@{min((r['k'] for r in records), default=1)}")
    quantities = [strategies, "pass@1"] if known else ["pass@1"]
    return _figure(
        "prompts", study, records, lambda looks: charts.prompts(looks, _splits(study, records), quantities)
    )


def _timings(study: Study, rows: dict[tuple[str, str], Row]) -> Figure | None:
    return _figure("timings", study, series.timings(study), charts.timings)


def _multiples(name: str, study: Study, records: list[dict[str, Any]], description: str) -> Figure | None:
    panels = list(dict.fromkeys(r["metric"] for r in records))
    bands = any(r.get("low") is not None for r in records)
    runaways = any(r["runaway"] is not None for r in records)
    return _figure(
        name,
        study,
        records,
        lambda looks: charts.small_multiples(looks, name, panels, description, bands, runaways),
    )


def _figure(name: str, study: Study, records: list[dict[str, Any]], spec: Any) -> Figure | None:
    if not records:
        return None
    drawn = {r["method"] for r in records}
    names = labels(study.methods)
    styles = [style(m, study.methods)._replace(label=names[m]) for m in study.methods if names[m] in drawn]
    looks = {legend: Looks(tuple(styles), legend) for legend in (True, False)}
    return Figure(name, CAPTIONS[name], spec(looks[True]), spec(looks[False]), records)


def _splits(study: Study, records: list[dict[str, Any]]) -> list[str]:
    drawn = {r["split"] for r in records}
    return [name for name in map(split_name, study.splits) if name in drawn]
