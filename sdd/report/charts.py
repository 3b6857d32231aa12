"""The figures as Vega-Lite specs: the page shows them live, `sdd.report.figures` renders the same ones.

A spec names its data set; whoever shows it puts the records in (`sdd.report.figures.Figure`). The
page sets the parameters ``shown`` (labels of methods), ``splits`` and ``metric`` from its controls.
"""

import json
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt

from sdd.report.look import Style

Spec = dict[str, Any]
FONT = "Liberation Sans, Arial, Helvetica, DejaVu Sans, sans-serif"
CONFIG: Spec = {
    "font": FONT,
    "background": "white",
    "view": {"stroke": None},
    "axis": {
        "grid": True,
        "gridColor": "#e3e3e3",
        "gridWidth": 0.6,
        "domainColor": "#888888",
        "tickColor": "#888888",
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelColor": "#222222",
        "titleColor": "#222222",
    },
    "header": {"labelFontSize": 12, "labelFontWeight": "bold", "labelColor": "#222222", "title": None},
    "legend": {"labelFontSize": 12, "labelLimit": 280, "labelColor": "#222222"},
    "title": {"fontSize": 13, "anchor": "start", "offset": 12, "color": "#222222"},
    "text": {"color": "#222222"},
}
WIDTH = 800  # px of all panels of a row together
FEW = 8  # methods that can be told apart by a name beside each point
LEGEND_SYMBOL = 90


class Looks(NamedTuple):
    """How the methods of a figure look; ``legend`` is False where the page has one of its own."""

    styles: tuple[Style, ...]
    legend: bool

    @property
    def labels(self) -> list[str]:
        return [style.label for style in self.styles]

    @property
    def many(self) -> bool:
        return len(self.styles) > FEW

    def _legend(self) -> alt.Legend | None:
        if not self.legend:
            return None
        columns = 4 if self.many else min(5, len(self.styles))
        numbered: Any = (
            {"labelExpr": "(indexof(methods, datum.label) + 1) + '  ' + datum.label"} if self.many else {}
        )
        place: Any = {"orient": "bottom" if self.many else "top", "columns": columns, "title": None}
        return alt.Legend(
            **place, symbolSize=LEGEND_SYMBOL, symbolOpacity=1, symbolStrokeWidth=1.6, **numbered
        )

    def color(self) -> alt.Color:
        scale = alt.Scale(domain=self.labels, range=[style.color for style in self.styles])
        return alt.Color("method:N", scale=scale, legend=self._legend(), sort=None)

    def dash(self) -> alt.StrokeDash:
        scale = alt.Scale(domain=self.labels, range=[list(style.dash or (1, 0)) for style in self.styles])
        return alt.StrokeDash("method:N", scale=scale, legend=self._legend(), sort=None)

    def shape(self) -> alt.Shape:
        scale = alt.Scale(domain=self.labels, range=[style.shape for style in self.styles])
        return alt.Shape("method:N", scale=scale, legend=self._legend(), sort=None)


SHOWN = "indexof(shown, datum.method) >= 0"
OVER_STEPS = "Metrics of the evaluations over steps, a panel a split"
IN_SPLITS = "indexof(splits, datum.split) >= 0"


def pass_at_k(looks: Looks, splits: Sequence[str], ks: Sequence[int]) -> Spec:
    """pass@k against k, a panel a split, with 95 % bands."""
    x = alt.X(
        "k:Q", title="k", scale=alt.Scale(type="log", base=2), axis=alt.Axis(values=list(ks), format="d")
    )
    y = alt.Y("value:Q", title="pass@k", scale=alt.Scale(zero=False))
    tooltip = [alt.Tooltip("method:N"), alt.Tooltip("split:N"), alt.Tooltip("k:Q"), *_interval_tooltip()]
    layers = alt.layer(
        _band(looks).encode(x=x),
        alt.Chart().mark_line(strokeWidth=1.8).encode(x=x, y=y, color=looks.color(), strokeDash=looks.dash()),
        alt.Chart()
        .mark_point(filled=True, size=42, opacity=1)
        .encode(x=x, y=y, color=looks.color(), shape=looks.shape(), tooltip=tooltip),
        data=alt.NamedData("pass_at_k"),
    )
    return finish(_by_split(layers, splits, 240), looks, splits, "pass@k against k, a panel a split")


def over_steps(looks: Looks, splits: Sequence[str], metric: str) -> Spec:
    """A metric of the evaluations over steps, a panel a split; ``metric`` is the parameter's first value."""
    spec = finish(_steps(looks, splits, "datum.metric == metric", "", 230), looks, splits, OVER_STEPS)
    spec["params"].append({"name": "metric", "value": metric})
    spec["title"] = {"text": {"expr": "metric"}}
    return spec


def rows_of_metrics(looks: Looks, splits: Sequence[str], metrics: Sequence[str]) -> Spec:
    """Some metrics of the evaluations over steps, a row a metric and a column a split."""
    rows = [
        _steps(looks, splits, f"datum.metric == {json.dumps(m)}", m, 140, (i == 0, m == metrics[-1]))
        for i, m in enumerate(metrics)
    ]
    return finish(alt.vconcat(*rows, spacing=12), looks, splits, OVER_STEPS)


def _steps(
    looks: Looks,
    splits: Sequence[str],
    chosen: str,
    title: str,
    height: int,
    ends: tuple[bool, bool] = (True, True),
) -> Any:
    x = alt.X("step:Q", title="step" if ends[1] else None, axis=alt.Axis(tickCount=5, format="~s"))
    lines: Any = textwrap.wrap(title, 24) or None
    y = alt.Y("value:Q", title=lines, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=6, minExtent=34))
    tooltip = [alt.Tooltip("method:N"), alt.Tooltip("split:N"), alt.Tooltip("step:Q"), *_interval_tooltip()]
    color = looks.color()
    layers = alt.layer(
        alt.Chart()
        .transform_filter("datum.start")
        .mark_rule(strokeDash=[5, 3], strokeWidth=1.4)
        .encode(y=y, color=color, tooltip=[alt.Tooltip("method:N"), *_interval_tooltip()]),
        _band(looks).transform_filter("!datum.start").encode(x=x),
        alt.Chart()
        .transform_filter("!datum.start")
        .mark_line(strokeWidth=1.8)
        .encode(x=x, y=y, color=color, strokeDash=looks.dash()),
        alt.Chart()
        .transform_filter("!datum.start")
        .mark_point(filled=True, size=42, opacity=1)
        .encode(x=x, y=y, color=color, shape=looks.shape(), tooltip=tooltip),
        data=alt.NamedData("over_steps"),
    )
    return _by_split(layers, splits, height, ends[0]).transform_filter(chosen)


def small_multiples(
    looks: Looks, name: str, panels: Sequence[str], description: str, bands: bool, runaways: bool
) -> Spec:
    """Metrics of training over steps, a panel a metric, each with its own axis; dotted lines are runaways."""
    x = alt.X("step:Q", title="step", axis=alt.Axis(tickCount=4, format="~s"))
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, minExtent=36))
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("metric:N"),
        alt.Tooltip("step:Q", format=".0f"),
        *_interval_tooltip(),
    ]
    columns = min(3, len(panels))
    layers = [
        *([_band(looks).transform_filter("datum.runaway == null").encode(x=x)] if bands else []),
        alt.Chart()
        .transform_filter("datum.runaway == null")
        .mark_line(strokeWidth=1.5)
        .encode(x=x, y=y, color=looks.color(), strokeDash=looks.dash()),
        alt.Chart()
        .transform_filter("datum.runaway == null")
        .mark_point(size=60, opacity=0)
        .encode(x=x, y=y, tooltip=tooltip),
    ]
    if runaways:
        layers.append(
            alt.Chart()
            .transform_filter("datum.runaway != null")
            .mark_rule(strokeDash=[2, 2], strokeWidth=1.4)
            .encode(x=alt.X("runaway:Q"), color=looks.color(), tooltip=[alt.Tooltip("method:N"), "runaway:Q"])
        )
    chart = (
        alt.layer(*layers, data=alt.NamedData(name))
        .properties(width=WIDTH / columns - 44, height=150)
        .facet(facet=alt.Facet("metric:N", sort=list(panels), title=None), columns=columns)
        .transform_filter(SHOWN)
        .resolve_scale(y="independent")
    )
    return finish(chart, looks, [], description)


def prompts(looks: Looks, splits: Sequence[str], quantities: Sequence[str]) -> Spec:
    """A point a prompt: the start against the end, a panel a method; below the line the method lost."""
    looks = looks._replace(legend=False)  # the panels have names
    chosen = {
        axis: f"quantity == 'pass@1' ? datum.pass_{axis} : datum.distinct_{axis}" for axis in ("start", "end")
    }
    x = alt.X("start:Q", title="at the start", axis=alt.Axis(tickCount=5))
    y = alt.Y("end:Q", title="at the end", axis=alt.Axis(tickCount=5, minExtent=36))
    tooltip = ["method", "split", "prompt", "text", "lost", "gained"]
    columns = 4 if len(looks.styles) > 3 else max(1, len(looks.styles))
    side = WIDTH / columns - 26
    points = alt.layer(
        alt.Chart()
        .transform_filter("datum.nth == 1")
        .mark_rule(strokeDash=[4, 3], strokeWidth=1, color="#888888")
        .encode(x=alt.X("zero:Q"), y=alt.Y("zero:Q"), x2="top:Q", y2="top:Q"),
        alt.Chart()
        .mark_point(size=26, opacity=0.45, filled=True)
        .encode(
            x=x,
            y=y,
            color=looks.color(),
            shape=looks.shape(),
            tooltip=[
                *(alt.Tooltip(f"{name}:N") for name in tooltip),
                *(alt.Tooltip(f"{name}:Q", format=".3f") for name in ("start", "end")),
            ],
        ),
        data=alt.NamedData("prompts"),
    )
    chart = (
        points.properties(width=side, height=side)
        .facet(facet=alt.Facet("method:N", sort=looks.labels, title=None), columns=columns)
        .transform_filter(SHOWN)
        .transform_filter("datum.split == one_split")
        .transform_calculate(**chosen)
        .transform_joinaggregate(top_start="max(start)", top_end="max(end)")
        .transform_window(nth="row_number()", groupby=["method"])
        .transform_calculate(zero="0", top="max(datum.top_start, datum.top_end)")
    )
    spec = finish(chart, looks, [], "Each prompt at the start against the end")
    spec["params"] += [
        {"name": "one_split", "value": splits[-1] if "harder" in splits else splits[0]},
        {"name": "quantity", "value": quantities[0]},
    ]
    spec["title"] = {"text": {"expr": "quantity + ', ' + one_split"}}
    return spec


def timings(looks: Looks) -> Spec:
    """Bars: median seconds of a step and its parts."""
    parts = {"sampling": "#56B4E9", "update": "#E69F00", "the rest": "#999999"}
    chart = (
        alt.Chart(alt.NamedData("timings"))
        .mark_bar(height={"band": 0.7})
        .encode(
            x=alt.X("seconds:Q", title="seconds a step (median)", axis=alt.Axis(tickCount=6)),
            y=alt.Y("method:N", sort=looks.labels, title=None, axis=alt.Axis(labelLimit=260)),
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=list(parts), range=list(parts.values())),
                legend=alt.Legend(orient="top", title=None),
            ),
            order="order:Q",
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("part:N"),
                alt.Tooltip("seconds:Q", format=".4f"),
                alt.Tooltip("share:Q", format=".0%"),
            ],
        )
        .transform_filter(SHOWN)
        .properties(width=WIDTH - 180, height={"step": 22})
    )
    return finish(chart, looks, [], "Median seconds of a step, by method and part")


def finish(chart: Any, looks: Looks, splits: Sequence[str], description: str) -> Spec:
    """The spec as a dict, with the parameters that the page sets and the fixed configuration."""
    spec = chart.to_dict()
    spec.pop("config", None)
    spec["config"] = CONFIG
    spec["description"] = description
    spec["params"] = [
        {"name": "shown", "value": looks.labels},
        {"name": "methods", "value": looks.labels},
        {"name": "splits", "value": list(splits)},
    ]
    return spec


def _by_split(layers: Any, splits: Sequence[str], height: int, header: bool = True) -> Any:
    width = max(180, WIDTH / len(splits) - 24) if len(splits) > 1 else WIDTH * 0.6
    return (
        layers.properties(width=width, height=height)
        .facet(column=alt.Column("split:N", sort=list(splits), title=None, header=alt.Header(labels=header)))
        .transform_filter(SHOWN)
        .transform_filter(IN_SPLITS)
    )


def _band(looks: Looks) -> alt.Chart:
    opacity = 0.06 if looks.many else 0.15
    return alt.Chart().mark_area(opacity=opacity).encode(y="low:Q", y2="high:Q", color=looks.color())


def _interval_tooltip() -> list[alt.Tooltip]:
    return [alt.Tooltip(f"{name}:Q", format=".4~g") for name in ("value", "low", "high")]
