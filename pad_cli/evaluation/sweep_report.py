"""A sweep for people: a table for the terminal, and `sweep.html` with the fronts drawn."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group

from pad_cli.evaluation.report_table import method_name
from pad_cli.reports.charts import Point, Series, series_chart
from pad_cli.reports.content import Figure, Grid, Section
from pad_cli.reports.html import document, section_html
from pad_cli.system.runs import write_whole
from pad_cli.system.terminal import FittingTable

PAGE = "sweep.html"


def write_sweep_page(result: Mapping[str, Any], directory: Path) -> None:
    """Write `sweep.html`.

    Args:
        result: see `run_sweep`.
        directory: where to.

    Raises:
        StorageError: it cannot be written.
    """
    body = "".join(section_html(section, html.escape) for section in _sections(result))
    write_whole(directory / PAGE, document("Sweep", body))


def sweep_table(result: Mapping[str, Any]) -> Group:
    """Fronts, the largest hypervolume first, and the points on each.

    Args:
        result: what `run_sweep` returned.
    """
    summary = _table(_fronts(result))
    summary.caption = _reference(result)
    return Group(summary, "", _table(_points(result)))


def _sections(result: Mapping[str, Any]) -> Iterator[Section[str]]:
    names = [objective["principle"] for objective in result["objectives"]]
    yield Section(
        "Fronts",
        (
            "A point is the mean of both scores under one weighting of the preferences; a line joins the points of one "
            "method that no other point of its own beats in everything. Hypervolume: how much lies below the front, "
            "with its interval over prompts. Spacing: 0 where the front's points lie evenly.",
            _reference(result),
        ),
        (_fronts(result),),
        tuple(
            Figure(f"{across} to the right, {up} upwards", series_chart(_series(result, across, up), across, up))
            for across, up in itertools.combinations(names, 2)
        ),
    )
    yield Section("Points", grids=(_points(result),))


def _series(result: Mapping[str, Any], across: str, up: str) -> list[Series]:
    """One for each front."""
    found: dict[str, tuple[list[Point], list[Point]]] = {}
    for point in result["points"]:
        x, y = point["means"][across], point["means"][up]
        if x is not None and y is not None:
            drawn = Point(", ".join(f"{name} {weight:g}" for name, weight in point["weights"].items()), x, y)
            every, joined = found.setdefault(_family(point), ([], []))
            every.append(drawn)
            if point["on_front"]:
                joined.append(drawn)
    return [Series(name, tuple(every), tuple(joined)) for name, (every, joined) in found.items()]


def _fronts(result: Mapping[str, Any]) -> Grid[str]:
    header = ("method", "points", "on front", "hypervolume", "interval", "spacing")
    rows = tuple(
        (
            _family(front),
            str(front["points"]),
            str(front["on_front"]),
            f"{front['hypervolume']:.3f}",
            f"{front['low']:.3f} to {front['high']:.3f}",
            f"{front['spacing']:.3f}",
        )
        for front in sorted(result["fronts"], key=lambda front: -front["hypervolume"])
    )
    return Grid(header, rows, "<>>>>>", "Fronts")


def _points(result: Mapping[str, Any]) -> Grid[str]:
    means = list(dict.fromkeys(name for point in result["points"] for name in point["means"]))
    weights = [f"w({objective['principle']})" for objective in result["objectives"]]
    rows = tuple(
        (
            _family(point),
            *(f"{weight:.2f}" for weight in point["weights"].values()),
            *("failed" if point["means"][name] is None else f"{point['means'][name]:.2f}" for name in means),
            "*" if point["on_front"] else "",
        )
        for point in result["points"]
    )
    return Grid(("method", *weights, *means, "on front"), rows, "<" + ">" * (len(weights) + len(means)) + "<", "Points")


def _family(row: Mapping[str, Any]) -> str:
    return f"{method_name(row['method'], row['guidance_weight'])}, C = {row['candidates']}"


def _reference(result: Mapping[str, Any]) -> str:
    return f"Reference point: {', '.join(f'{value:g}' for value in result['reference'])}."


def _table(grid: Grid[str]) -> FittingTable:
    table = FittingTable(box=None, padding=(0, 1, 0, 0), header_style="bold underline", title=grid.title)
    for name, side in zip(grid.header, grid.align, strict=True):
        table.add_column(name, justify="right" if side == ">" else "left")
    for row in grid.rows:
        table.add_row(*row)
    return table
