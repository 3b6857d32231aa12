"""The plane (pass@1, distinct correct strategies): start point, arrows, intervals on both axes.

Arrow heads turn and names step aside in pixels, so the panels have a fixed size and fixed axes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import altair as alt

from sdd.claims.runs import Study
from sdd.report.charts import FEW, IN_SPLITS, SHOWN, WIDTH, Looks, Spec, finish
from sdd.report.load import is_start, start_of
from sdd.report.look import labels, split_name
from sdd.report.summary import Row

Box = tuple[float, float, float, float]
MARKER, HEAD = 7.0, 5.0  # px
LETTER, LINE, GAP = 6.0, 12.0, 2.0  # px that a letter and a line of a name take, and between names


class Frame(NamedTuple):
    """Axes and the size of a panel in px; all panels share them."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: float
    height: float

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        return (
            (x - self.x[0]) / (self.x[1] - self.x[0]) * self.width,
            (self.y[1] - y) / (self.y[1] - self.y[0]) * self.height,
        )

    def value(self, px: float, py: float) -> tuple[float, float]:
        return (
            self.x[0] + px / self.width * (self.x[1] - self.x[0]),
            self.y[1] - py / self.height * (self.y[1] - self.y[0]),
        )


def points(study: Study, rows: dict[tuple[str, str], Row]) -> list[dict[str, Any]]:
    """A record a method and split: both intervals and where its arrow begins; none without strategies."""
    names, records = labels(study.methods), []
    for (method, split), row in rows.items():
        x, y = (row.metrics[name] for name in ("pass@1", f"distinct_correct@{row.k}"))
        if x["value"] is None or y["value"] is None:
            continue
        origin = rows.get((start_of(study, method) or "", split))
        from_ = (
            [origin.metrics[name]["value"] for name in ("pass@1", f"distinct_correct@{row.k}")]
            if origin
            else []
        )
        records.append(
            {
                "method": names[method],
                "split": split_name(split),
                "x": x["value"],
                "x_low": x["low"],
                "x_high": x["high"],
                "y": y["value"],
                "y_low": y["low"],
                "y_high": y["high"],
                "k": row.k,
                "number": study.methods.index(method) + 1,
                "start": is_start(method),
                "from": from_ if None not in from_ else [],
            }
        )
    return records


def frame(records: Sequence[dict[str, Any]], num_splits: int) -> Frame:
    """Axes that hold every point and interval, with room at the edges."""
    width = WIDTH / num_splits - 24 if num_splits > 1 else WIDTH * 0.6
    ends = []
    for axis in "xy":
        values = [
            r[key] for r in records for key in (axis, f"{axis}_low", f"{axis}_high") if r[key] is not None
        ]
        room = 0.09 * ((max(values) - min(values)) or 1.0)
        ends.append((min(values) - room, max(values) + room))
    return Frame(ends[0], ends[1], width, 300 if len({r["method"] for r in records}) > FEW else 250)


def with_arrows(records: Sequence[dict[str, Any]], frame: Frame, many: bool) -> list[dict[str, Any]]:
    """The records with the arrow's ends, head and turn, and the name's place, in units of the axes."""
    done = []
    for split in dict.fromkeys(r["split"] for r in records):
        here = [r for r in records if r["split"] == split]
        texts = [str(r["number"]) if many else r["method"] for r in here]
        lines = [_arrow(r, frame) for r in here]
        covered = [box for r, line in zip(here, lines) for box in _boxes(r, line, frame)]
        places = _places([frame.pixel(r["x"], r["y"]) for r in here], texts, frame, covered)
        for record, text, place, line in zip(here, texts, places, lines, strict=True):
            name_x, name_y = frame.value(*place)
            named = {"name": text, "name_x": name_x, "name_y": name_y}
            done.append({k: v for k, v in record.items() if k != "from"} | named | line)
    return done


def _arrow(record: dict[str, Any], frame: Frame) -> dict[str, Any]:
    nothing = dict.fromkeys(("tail_x", "tail_y", "tip_x", "tip_y", "head_x", "head_y", "angle"))
    if not record["from"]:
        return nothing
    a, b = frame.pixel(*record["from"]), frame.pixel(record["x"], record["y"])
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = math.hypot(dx, dy)
    if length < 3 * MARKER:  # no room for an arrow
        return nothing
    ux, uy = dx / length, dy / length
    tail = frame.value(a[0] + ux * MARKER, a[1] + uy * MARKER)
    tip = frame.value(b[0] - ux * (MARKER + HEAD), b[1] - uy * (MARKER + HEAD))
    head = frame.value(b[0] - ux * (MARKER + HEAD / 2), b[1] - uy * (MARKER + HEAD / 2))
    ends = {"tail_x": tail[0], "tail_y": tail[1], "tip_x": tip[0], "tip_y": tip[1]}
    return ends | {"head_x": head[0], "head_y": head[1], "angle": math.degrees(math.atan2(dx, -dy))}


def _boxes(record: dict[str, Any], line: dict[str, Any], frame: Frame) -> list[Box]:
    """Small boxes along a record's arrow and intervals, which names should not cover."""
    ends = [
        ("tail_x", "tail_y", "tip_x", "tip_y"),
        ("x_low", "y", "x_high", "y"),
        ("x", "y_low", "x", "y_high"),
    ]
    found = []
    for keys in ends:
        x0, y0, x1, y1 = ((record | line)[key] for key in keys)
        if None in (x0, y0, x1, y1):
            continue
        (px, py), (qx, qy) = frame.pixel(x0, y0), frame.pixel(x1, y1)
        pieces = max(1, int(math.hypot(qx - px, qy - py) / 5))
        middles = ((px + (qx - px) * i / pieces, py + (qy - py) * i / pieces) for i in range(pieces + 1))
        found += [(x - 2.5, y - 2.5, x + 2.5, y + 2.5) for x, y in middles]
    return found


def _places(
    pixels: Sequence[tuple[float, float]], texts: Sequence[str], frame: Frame, covered: Sequence[Box]
) -> list[tuple[float, float]]:
    """Centres of the names in px: of a few places around each point the one that covers least."""
    taken = [(x - MARKER, y - MARKER, x + MARKER, y + MARKER) for x, y in pixels]
    places = []
    for (x, y), text in zip(pixels, texts, strict=True):
        half, best = len(text) * LETTER / 2 + GAP, None
        for candidate in _around(x, y, half):
            box = (candidate[0] - half, candidate[1] - LINE / 2, candidate[0] + half, candidate[1] + LINE / 2)
            outside = max(0, -box[0], -box[1], box[2] - frame.width, box[3] - frame.height)
            cost = sum(_overlap(box, other) for other in covered) + 40 * outside
            cost += 5 * sum(_overlap(box, other) for other in taken)
            cost += 1.2 * math.hypot(candidate[0] - x, candidate[1] - y)
            if best is None or cost < best[0]:
                best = (cost, candidate, box)
        assert best is not None
        taken.append(best[2])
        places.append(best[1])
    return places


def _around(x: float, y: float, half: float) -> Iterable[tuple[float, float]]:
    for far in (0.0, 8.0, 18.0, 30.0, 44.0):
        side, up = half + MARKER + 2 + far, LINE / 2 + MARKER + far
        yield from ((x + side, y), (x - side, y), (x, y - up), (x, y + up))
        yield from ((x + sx * (half + MARKER), y + sy * up) for sx in (1, -1) for sy in (1, -1))


def _overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def chart(looks: Looks, splits: Sequence[str], frame: Frame, k: int) -> Spec:
    """The plane, a panel a split."""
    x = alt.X("x:Q", title="pass@1", scale=alt.Scale(domain=frame.x, nice=False), axis=alt.Axis(tickCount=5))
    y = alt.Y(
        "y:Q",
        title=f"distinct correct strategies of {k} draws",
        scale=alt.Scale(domain=frame.y, nice=False),
        axis=alt.Axis(tickCount=6),
    )
    color = looks.color()
    tooltip = [
        alt.Tooltip("method:N"),
        alt.Tooltip("split:N"),
        *(alt.Tooltip(f"x{end}:Q", title=f"pass@1{end.replace('_', ' ')}", format=".3f") for end in ENDS),
        *(alt.Tooltip(f"y{end}:Q", title=f"strategies{end.replace('_', ' ')}", format=".3f") for end in ENDS),
    ]
    arrow = {"x": alt.X("tail_x:Q"), "y": alt.Y("tail_y:Q"), "x2": "tip_x:Q", "y2": "tip_y:Q"}
    layers = alt.layer(
        alt.Chart().mark_rule(strokeWidth=1.2, opacity=0.8).encode(**arrow, color=color),
        alt.Chart()
        .transform_filter("datum.angle != null")
        .mark_point(shape="triangle-up", filled=True, size=34, opacity=1)
        .encode(x="head_x:Q", y="head_y:Q", angle=alt.Angle("angle:Q", scale=None), color=color),
        alt.Chart().mark_rule(strokeWidth=1).encode(x=alt.X("x_low:Q"), x2="x_high:Q", y=y, color=color),
        alt.Chart().mark_rule(strokeWidth=1).encode(x=x, y=alt.Y("y_low:Q"), y2="y_high:Q", color=color),
        alt.Chart()
        .mark_point(filled=True, size=80, opacity=1)
        .encode(x=x, y=y, color=color, shape=looks.shape(), tooltip=tooltip),
        alt.Chart().mark_text(fontSize=11).encode(x="name_x:Q", y="name_y:Q", text="name:N"),
        data=alt.NamedData("plane"),
    )
    panels = (
        layers.properties(width=frame.width, height=frame.height)
        .facet(column=alt.Column("split:N", sort=list(splits), title=None))
        .transform_filter(SHOWN)
        .transform_filter(IN_SPLITS)
    )
    return finish(
        panels, looks, splits, "What each method traded: pass@1 against distinct correct strategies"
    )


ENDS = ("", "_low", "_high")
