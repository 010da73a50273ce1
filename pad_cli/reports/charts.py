"""Small charts as inline SVG, in the colours of the page around them: `--c0` to `--c5` for series.

They are a Jinja2 template, not a plotting library's output: they follow the reader's light or dark theme, name each
point under the pointer, and hold no links, which the pages' policy would have to allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from pad_cli.reports.document import svg

Range = tuple[float, float]

_COLOURS = 6  # further series are drawn hollow and dashed
_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 408, 12, 190  # edges of the frame


class Point(NamedTuple):
    """One point, on the interval of its height if that is known."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    name: str = ""
    radius: float = 3.4


class Series(NamedTuple):
    """Points of one colour; a line joins some of them, from left to right."""

    name: str
    points: Sequence[Point]
    line: Sequence[Point] = ()


def plot(
    series: Sequence[Series], x_label: str, y_label: str, *, x: Range | None = None, y: Range | None = None,
    diagonal: bool = False,
) -> Markup:  # fmt: skip
    """Series in a frame with two axes, and a legend of those that have a name; at least one has points.

    The ranges `x` and `y` default to those of the points; `diagonal` draws the line on which both are equal.
    """
    points = [point for each in series for point in each.points]
    x = x or rounded_range([point.x for point in points])
    y = y or rounded_range([end for point in points for end in (point.low, point.y, point.high) if end is not None])

    def across(value: float) -> float:
        return round(_LEFT + (value - x[0]) / (x[1] - x[0]) * (_RIGHT - _LEFT), 1)

    def up(value: float) -> float:
        return round(_BOTTOM - (value - y[0]) / (y[1] - y[0]) * (_BOTTOM - _TOP), 1)

    def path(line: Sequence[Point]) -> str:
        return " ".join(f"{across(point.x)},{up(point.y)}" for point in sorted(line, key=lambda point: point.x))

    def drawn(name: str, point: Point) -> dict[str, object]:
        names = ", ".join(filter(None, (name, point.name)))
        whisker = None if point.low is None or point.high is None else (up(point.low), up(point.high))
        title = f"{names}: {x_label} {point.x:.3g}, {y_label} {point.y:.3g}"
        return {"x": across(point.x), "y": up(point.y), "whisker": whisker, "radius": point.radius, "title": title}

    digits = ".3g" if x[1] <= 10 else ".0f"
    shares = (0, 0.25, 0.5, 0.75, 1)
    lowest = max(x[0], y[0])
    return svg(
        "plot.svg.j2",
        frame=(_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM),
        labels=(x_label, y_label),
        x_ticks=[(across(v), f"{v:{digits}}") for v in (x[0] + share * (x[1] - x[0]) for share in shares)],
        y_ticks=[(up(v), f"{v:.3g}") for v in (y[0] + share * (y[1] - y[0]) for share in shares)],
        diagonal=path([Point(lowest, lowest), Point(x[1], x[1])]) if diagonal else "",
        series=[
            {
                "name": each.name,
                "colour": f"var(--c{number % _COLOURS})",
                "hollow": number >= _COLOURS,
                "line": path(each.line),
                "points": [drawn(each.name, point) for point in each.points],
            }
            for number, each in enumerate(series)
        ],
    )


def rounded_range(values: Sequence[float], least: float = 0.1) -> Range:
    """The range of some values, widened to steps of its own magnitude, which is at least `least`."""
    low, high = min(values), max(values)
    step = 10 ** math.floor(math.log10(max(high - low, least)))
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    return bottom, max(top, bottom + step)
