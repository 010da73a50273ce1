"""The training report's charts."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from pad_cli.reports.charts import COLOURS, Plot, legend, rounded_range
from pad_cli.training.metrics import Curve, HeadGeometry, Reliability

_CELL, _SMALL_CELL = 40, 16
_NUMBERED = 14  # heads up to which a heat map has numbers
_LETTER = 6.6  # width of a label's letter
_LONGEST = 24  # letters of a head's name


def curve_chart(curves: Sequence[Curve], label: str) -> str:
    """Curves over steps, with a legend below where there are several; those after the sixth are dashed.

    Args:
        curves: at least one.
        label: what they show.
    """
    values = [value for curve in curves for value in curve.values]
    first, last = min(curve.steps[0] for curve in curves), max(curve.steps[-1] for curve in curves)
    plot = Plot((first, max(last, first + 1)), rounded_range(min(values), max(values)))
    drawn = []
    for number, curve in enumerate(curves):
        style = f"stroke: var(--c{number % COLOURS}); fill: var(--c{number % COLOURS})"
        dashed = ' stroke-dasharray="5 3"' if number >= COLOURS else ""
        points = [plot.at(step, value) for step, value in zip(curve.steps, curve.values, strict=True)]
        drawn.append(f'<polyline class="curve" style="{style}; fill: none"{dashed} points="{" ".join(points)}"/>')
        for point, step, value in zip(points, curve.steps, curve.values, strict=True):
            x, y = point.split(",")
            told = html.escape(f"{curve.name}, step {step}: {value:.3f}")
            drawn.append(f'<circle style="{style}" cx="{x}" cy="{y}" r="2.4"><title>{told}</title></circle>')
    shown = legend([curve.name for curve in curves]) if len(curves) > 1 else ""
    return plot.drawn("".join(drawn), "step", label) + shown


def reliability_chart(reliability: Reliability, label: str) -> str:
    """Accuracy over confidence: on the diagonal a model is as often right as it is sure."""
    plot = Plot((0.5, 1.0), (0.0, 1.0))
    most = max(part.accuracy.n for part in reliability.bins)
    drawn = [f'<polyline class="axis" points="{plot.at(0.5, 0.5)} {plot.at(1, 1)}" stroke-dasharray="4 3"/>']
    for part in reliability.bins:
        x, y = plot.at(part.confidence, part.accuracy.value).split(",")
        low, high = (plot.at(part.confidence, end).split(",")[1] for end in (part.accuracy.low, part.accuracy.high))
        told = f"sure to {part.confidence:.2f}, right in {part.accuracy.value:.2f} of {part.accuracy.n} pairs"
        radius = 2 + 4 * math.sqrt(part.accuracy.n / most)
        drawn.append(
            f'<g style="stroke: var(--c0); fill: var(--c0)"><title>{told}</title>'
            f'<line x1="{x}" y1="{low}" x2="{x}" y2="{high}"/><circle cx="{x}" cy="{y}" r="{radius:.1f}"/></g>'
        )
    return plot.drawn("".join(drawn), "confidence", label)


def cosine_map(geometry: HeadGeometry) -> str:
    """A heat map of the heads' cosines: green alike, red opposed."""
    size = len(geometry.names)
    cell = _CELL if size <= _NUMBERED else _SMALL_CELL
    names = [name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…" for name in geometry.names]
    margin = max(len(name) for name in names) * _LETTER + 10
    side = margin + size * cell
    parts = []
    for row, name in enumerate(names):
        middle = margin + (row + 0.5) * cell
        shown = html.escape(name)
        parts.append(f'<text x="{margin - 5:.0f}" y="{middle + 4:.0f}" text-anchor="end">{shown}</text>')
        parts.append(
            f'<text transform="translate({middle + 4:.0f} {margin - 5:.0f}) rotate(-90)" text-anchor="start">'
            f"{shown}</text>"
        )
        for column, cosine in enumerate(geometry.cosines[row]):
            x, y = margin + column * cell, margin + row * cell
            colour = "30, 160, 85" if cosine > 0 else "214, 60, 50"
            told = html.escape(f"{geometry.names[row]}, {geometry.names[column]}: {cosine:+.2f}")
            parts.append(
                f'<g><title>{told}</title><rect x="{x:.0f}" y="{y:.0f}" width="{cell - 1}" height="{cell - 1}" '
                f'style="fill: rgba({colour}, {0.08 + 0.75 * abs(cosine):.2f})"/>'
            )
            if size <= _NUMBERED:
                number = f"{cosine:.2f}".replace("-0.00", "0.00")
                parts.append(
                    f'<text x="{x + cell / 2:.0f}" y="{y + cell / 2 + 4:.0f}" text-anchor="middle">{number}</text>'
                )
            parts.append("</g>")
    return (
        f'<svg class="map" viewBox="0 0 {side:.0f} {side:.0f}" width="{side:.0f}" height="{side:.0f}" role="img" '
        f'aria-label="Cosines of the heads">{"".join(parts)}</svg>'
    )
