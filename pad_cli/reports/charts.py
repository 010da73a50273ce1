"""Small charts as inline SVG, coloured by the page they stand in: `currentColor`, and `--c0` to `--c5` for series."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import NamedTuple

COLOURS = 6
"""How many colours there are for series; further ones look otherwise."""

_WIDTH, _HEIGHT = 420, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 12, 12, 40


class Point(NamedTuple):
    """One point of a scatter chart, on the interval of its height if that is known."""

    name: str
    x: float
    y: float
    low: float | None = None
    high: float | None = None


class Series(NamedTuple):
    """Points of one colour; a line joins some of them, from left to right."""

    name: str
    points: tuple[Point, ...]
    joined: tuple[Point, ...]


def interval_bar(value: float, low: float, high: float, told: str) -> str:
    """A share from 0 to 1 as a dot on its interval; the tick is chance, one half.

    Args:
        value: the share.
        low: lower end of its interval.
        high: upper end.
        told: the same in words.
    """
    told = html.escape(told)
    low, high, value = (100 * x for x in (low, high, value))
    return (
        f'<svg class="bar" viewBox="0 0 100 12" role="img" aria-label="{told}"><title>{told}</title>'
        '<line class="axis" x1="0" y1="6" x2="100" y2="6"/><line class="axis" x1="50" y1="1" x2="50" y2="11"/>'
        f'<rect class="interval" x="{low:.1f}" y="3.5" width="{high - low:.1f}" height="5" rx="1"/>'
        f'<circle cx="{value:.1f}" cy="6" r="2.6"/></svg>'
    )


def scatter_chart(points: Sequence[Point], x_label: str, y_label: str) -> str:
    """Points with their intervals, each in a colour of its own that a legend below names.

    Args:
        points: at least one; x from 0 on.
        x_label: what lies to the right.
        y_label: what lies upwards.
    """
    ends = [end for point in points for end in (point.low, point.y, point.high) if end is not None]
    _, right = rounded_range(0.0, max(point.x for point in points), least=1e-6)
    plot = Plot((0.0, right), rounded_range(min(ends), max(ends)))
    drawn = []
    for number, point in enumerate(points):
        x, y = plot.at(point.x, point.y).split(",")
        told = html.escape(f"{point.name}: {x_label} {point.x:.3g}, {y_label} {point.y:.3g}")
        fill = "var(--paper)" if number >= COLOURS else f"var(--c{number % COLOURS})"
        whisker = ""
        if point.low is not None and point.high is not None:
            low, high = (plot.at(point.x, end).split(",")[1] for end in (point.low, point.high))
            whisker = f'<line x1="{x}" y1="{low}" x2="{x}" y2="{high}"/>'
        drawn.append(
            f'<g style="stroke: var(--c{number % COLOURS}); fill: {fill}"><title>{told}</title>{whisker}'
            f'<circle cx="{x}" cy="{y}" r="4.5" stroke-width="2"/></g>'
        )
    return plot.drawn("".join(drawn), x_label, y_label) + legend([point.name for point in points], hollow=True)


def series_chart(series: Sequence[Series], x_label: str, y_label: str) -> str:
    """Series of points, named by a legend below.

    Args:
        series: at least one that has points.
        x_label: what lies to the right.
        y_label: what lies upwards.
    """
    points = [point for each in series for point in each.points]
    across, up = ([getattr(point, axis) for point in points] for axis in ("x", "y"))
    plot = Plot(rounded_range(min(across), max(across)), rounded_range(min(up), max(up)))
    drawn = []
    for number, each in enumerate(series):
        colour = f"var(--c{number % COLOURS})"
        dashed = ' stroke-dasharray="5 3"' if number >= COLOURS else ""
        line = " ".join(plot.at(point.x, point.y) for point in sorted(each.joined, key=lambda point: point.x))
        drawn.append(f'<polyline class="curve" style="stroke: {colour}; fill: none"{dashed} points="{line}"/>')
        for point in each.points:
            x, y = plot.at(point.x, point.y).split(",")
            told = html.escape(f"{each.name}, {point.name}: {x_label} {point.x:.3g}, {y_label} {point.y:.3g}")
            drawn.append(f'<circle style="fill: {colour}" cx="{x}" cy="{y}" r="3.4"><title>{told}</title></circle>')
    return plot.drawn("".join(drawn), x_label, y_label) + legend([each.name for each in series])


def legend(names: Sequence[str], *, hollow: bool = False) -> str:
    """What colour each series has; those after the sixth are hollow where charts draw them so."""
    shown = []
    for number, name in enumerate(names):
        colour = f"var(--c{number % COLOURS})"
        style = f"box-shadow: inset 0 0 0 2px {colour}" if hollow and number >= COLOURS else f"background: {colour}"
        shown.append(f'<span><i style="{style}"></i>{html.escape(name)}</span>')
    return f'<p class="legend">{" ".join(shown)}</p>'


class Plot:
    """A frame with two axes."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self._x, self._y = x, y

    def at(self, x: float, y: float) -> str:
        """A point as SVG writes it."""
        across = (x - self._x[0]) / (self._x[1] - self._x[0])
        up = (y - self._y[0]) / (self._y[1] - self._y[0])
        left = _LEFT + across * (_WIDTH - _LEFT - _RIGHT)
        return f"{left:.1f},{_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM):.1f}"

    def drawn(self, content: str, x_label: str, y_label: str) -> str:
        """The whole chart around some content, as SVG."""
        ticks = []
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            x = self._x[0] + share * (self._x[1] - self._x[0])
            y = self._y[0] + share * (self._y[1] - self._y[0])
            across = f"{x:.3g}" if self._x[1] <= 10 else f"{x:.0f}"
            (left, bottom), (_, level) = self.at(x, self._y[0]).split(","), self.at(self._x[0], y).split(",")
            ticks.append(f'<line class="grid" x1="{_LEFT}" y1="{level}" x2="{_WIDTH - _RIGHT}" y2="{level}"/>')
            ticks.append(f'<text x="{_LEFT - 6}" y="{float(level) + 4:.1f}" text-anchor="end">{y:.3g}</text>')
            ticks.append(f'<text x="{left}" y="{float(bottom) + 15:.1f}" text-anchor="middle">{across}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        return (
            f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(y_label)}">'
            f"{''.join(ticks)}{content}"
            f'<text x="{middle:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">{html.escape(x_label)}</text></svg>'
        )


def rounded_range(low: float, high: float, least: float = 0.1) -> tuple[float, float]:
    """A range of values, at least so wide, widened to steps of its own magnitude."""
    step = 10 ** math.floor(math.log10(max(high - low, least)))
    bottom, top = math.floor(low / step) * step, math.ceil(high / step) * step
    return bottom, max(top, bottom + step)
