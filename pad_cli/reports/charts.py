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


def interval_bar(value: float, low: float, high: float, description: str) -> Markup:
    """A share from 0 to 1 as a dot on its interval; the tick is chance, one half."""
    low, high, value = (100 * share for share in (low, high, value))
    return Markup(
        '<svg class="bar" viewBox="0 0 100 12" role="img" aria-label="{text}"><title>{text}</title>'
        '<line class="axis" x1="0" y1="6" x2="100" y2="6"/><line class="axis" x1="50" y1="1" x2="50" y2="11"/>'
        '<rect class="interval" x="{low:.1f}" y="3.5" width="{width:.1f}" height="5" rx="1"/>'
        '<circle cx="{value:.1f}" cy="6" r="2.6"/></svg>'
    ).format(text=description, low=low, width=high - low, value=value)


def plot(
    series: Sequence[Series], x_label: str, y_label: str, *, x: Range | None = None, y: Range | None = None,
    diagonal: bool = False,
) -> Markup:  # fmt: skip
    """Series in a frame with two axes, and a legend of those that have a name.

    Args:
        series: at least one that has points.
        x_label: what lies to the right.
        y_label: what lies upwards.
        x: range of the axis, by default that of the points.
        y: likewise.
        diagonal: draw the line on which both are equal.
    """
    points = [point for each in series for point in each.points]
    x = x or rounded_range(min(point.x for point in points), max(point.x for point in points))
    ends = [end for point in points for end in (point.low, point.y, point.high) if end is not None]
    y = y or rounded_range(min(ends), max(ends))

    def across(value: float) -> float:
        return round(_LEFT + (value - x[0]) / (x[1] - x[0]) * (_RIGHT - _LEFT), 1)

    def up(value: float) -> float:
        return round(_BOTTOM - (value - y[0]) / (y[1] - y[0]) * (_BOTTOM - _TOP), 1)

    def path(line: Sequence[Point]) -> str:
        return " ".join(f"{across(point.x)},{up(point.y)}" for point in sorted(line, key=lambda point: point.x))

    digits = ".3g" if x[1] <= 10 else ".0f"
    ticks = [[end[0] + share * (end[1] - end[0]) for share in (0, 0.25, 0.5, 0.75, 1)] for end in (x, y)]
    lowest = max(x[0], y[0])
    return svg(
        "plot.svg.j2",
        frame=(_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM),
        labels=(x_label, y_label),
        x_ticks=[(across(value), f"{value:{digits}}") for value in ticks[0]],
        y_ticks=[(up(value), f"{value:.3g}") for value in ticks[1]],
        diagonal=path([Point(lowest, lowest), Point(x[1], x[1])]) if diagonal else "",
        series=[
            {
                "name": each.name,
                "colour": f"var(--c{number % _COLOURS})",
                "hollow": number >= _COLOURS,
                "line": path(each.line),
                "points": [
                    {
                        "x": across(point.x),
                        "y": up(point.y),
                        "whisker": None if point.low is None or point.high is None else (up(point.low), up(point.high)),
                        "radius": round(point.radius, 1),
                        "title": ", ".join(filter(None, (each.name, point.name)))
                        + f": {x_label} {point.x:.3g}, {y_label} {point.y:.3g}",
                    }
                    for point in each.points
                ],
            }
            for number, each in enumerate(series)
        ],
    )


def rounded_range(low: float, high: float, least: float = 0.1) -> Range:
    """A range of values, widened to steps of its own magnitude, which is at least `least`."""
    step = 10 ** math.floor(math.log10(max(high - low, least)))
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    return bottom, max(top, bottom + step)
