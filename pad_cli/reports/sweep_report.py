"""What `sweep.json` says to a reader: tables for the terminal, and the page with the fronts drawn."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from pad_cli.reports.charts import Point, Series, plot
from pad_cli.reports.document import Document, Figure, Row, Section, Table, number, terminal_table
from pad_cli.reports.evaluation_tables import method_name

if TYPE_CHECKING:
    from rich.console import Group


def sweep_document(result: Row) -> Document:
    """The whole page about the content of `sweep.json`."""
    names = [objective["principle"] for objective in result["objectives"]]
    lines = (
        "A point is the mean of both scores under one weighting of the preferences; a line joins the points of one "
        "method that no other point of its own beats in everything. Hypervolume: how much lies below the front, with "
        "its interval over prompts. Spacing: 0 where the front's points lie evenly.",
        _reference(result),
    )
    figures = [
        Figure(f"{across} to the right, {up} upwards", plot(_series(result, across, up), across, up))
        for across, up in combinations(names, 2)
    ]
    sections = (Section("Fronts", lines, (_fronts(result),), figures), Section("Points", tables=(_points(result),)))
    return Document("Sweep", sections=sections)


def sweep_table(result: Row) -> Group:
    """Fronts, the largest hypervolume first, and the points on each, for a terminal."""
    from rich.console import Group

    fronts = terminal_table(_fronts(result))
    fronts.caption = _reference(result)
    return Group(fronts, "", terminal_table(_points(result)))


def _series(result: Row, across: str, up: str) -> list[Series]:
    """One for each front."""
    fronts: dict[str, tuple[list[Point], list[Point]]] = {}
    for row in result["points"]:
        x, y = row["means"][across], row["means"][up]
        if x is not None and y is not None:
            name = ", ".join(f"{principle} {weight:g}" for principle, weight in row["weights"].items())
            points, line = fronts.setdefault(_front_name(row), ([], []))
            points.append(Point(x, y, name=name))
            line += points[-1:] if row["on_front"] else []
    return [Series(name, points, line) for name, (points, line) in fronts.items()]


def _fronts(result: Row) -> Table:
    return Table.of(
        sorted(result["fronts"], key=lambda front: -front["hypervolume"]),
        {"method": _front_name},
        {
            "points": number("points"),
            "on front": number("on_front"),
            "hypervolume": number("hypervolume", ".3f"),
            "interval": lambda front: f"{front['low']:.3f} to {front['high']:.3f}",
            "spacing": number("spacing", ".3f"),
        },
        "Fronts",
    )


def _points(result: Row) -> Table:
    principles = [objective["principle"] for objective in result["objectives"]]
    scorers = list(dict.fromkeys(name for point in result["points"] for name in point["means"]))

    def row(point: Row) -> list[str]:
        weights = [f"{weight:.2f}" for weight in point["weights"].values()]
        means = ["failed" if point["means"][name] is None else f"{point['means'][name]:.2f}" for name in scorers]
        return [_front_name(point), *weights, *means, "*" if point["on_front"] else ""]

    header = ("method", *(f"w({name})" for name in principles), *scorers, "on front")
    return Table(header, list(map(row, result["points"])), "<" + ">" * (len(header) - 2) + "<", "Points")


def _front_name(row: Row) -> str:
    return f"{method_name(row['method'], row['guidance_weight'])}, C = {row['candidates']}"


def _reference(result: Row) -> str:
    return f"Reference point: {', '.join(f'{value:g}' for value in result['reference'])}."
