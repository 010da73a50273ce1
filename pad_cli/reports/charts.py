"""Small charts as inline SVG, in the colours of the page around them: `--c0` to `--c5` for series.

They are a Jinja2 template, not a plotting library's output: they follow the reader's light or dark theme, name each
point under the pointer, and hold no links, which the pages' policy would have to allow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from pad_cli.reports.document import templates

Range = tuple[float, float]

_COLOURS = 6  # further series begin again with the first
_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 408, 12, 190  # edges of the frame


class Point(NamedTuple):
    """One point, which may have a name."""

    x: float
    y: float
    name: str = ""


class Series(NamedTuple):
    """Points of one colour; a line joins some of them, from left to right."""

    name: str
    points: Sequence[Point]
    line: Sequence[Point] = ()


def plot(series: Sequence[Series], x_label: str, y_label: str) -> Markup:
    """Series in a frame with two axes, and a legend of those that have a name; at least one has points."""
    points = [point for each in series for point in each.points]
    x, y = _rounded_range([point.x for point in points]), _rounded_range([point.y for point in points])

    def across(value: float) -> float:
        return round(_LEFT + (value - x[0]) / (x[1] - x[0]) * (_RIGHT - _LEFT), 1)

    def up(value: float) -> float:
        return round(_BOTTOM - (value - y[0]) / (y[1] - y[0]) * (_BOTTOM - _TOP), 1)

    def drawn(name: str, point: Point) -> dict[str, object]:
        names = ", ".join(filter(None, (name, point.name)))
        title = f"{names}: {x_label} {point.x:.3g}, {y_label} {point.y:.3g}"
        return {"x": across(point.x), "y": up(point.y), "title": title}

    digits = ".3g" if x[1] <= 10 else ".0f"
    shares = (0, 0.25, 0.5, 0.75, 1)
    chart = (
        templates("html")
        .get_template("plot.svg.j2")
        .render(
            frame=(_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM),
            labels=(x_label, y_label),
            x_ticks=[(across(v), f"{v:{digits}}") for v in (x[0] + share * (x[1] - x[0]) for share in shares)],
            y_ticks=[(up(v), f"{v:.3g}") for v in (y[0] + share * (y[1] - y[0]) for share in shares)],
            series=[
                {
                    "name": each.name,
                    "colour": f"var(--c{number % _COLOURS})",
                    "line": " ".join(f"{across(point.x)},{up(point.y)}" for point in sorted(each.line)),
                    "points": [drawn(each.name, point) for point in each.points],
                }
                for number, each in enumerate(series)
            ],
        )
    )
    return Markup(chart)


def _rounded_range(values: Sequence[float]) -> Range:
    """The range of some values, widened to steps of its own magnitude."""
    low, high = min(values), max(values)
    step = 10 ** math.floor(math.log10(max(high - low, 0.1)))
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    return bottom, max(top, bottom + step)
