"""From scores to the report: cells with n, mean, standard error and direction; `report.json` and a table.

The shape of `report.json` is a promise:

    {"version", "recipe", "environment", "rows": [{"method", "policy", "group", "preference", "guidance_weight",
     "scorer", "n", "mean", "stderr", "higher_is_better"}]}

A row whose preference is `*` pools all preferences of its group.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table

from pad_cli.recipe import EvalRecipe
from pad_cli.records import Cell
from pad_cli.runs import environment, write_json

REPORT = "report.json"
POOLED = "*"
_VERSION = 1
_DIGITS = 4


class Scored(NamedTuple):
    """One score of one answer."""

    method: str
    policy: str
    group: str
    preference: str
    guidance_weight: float
    scorer: str
    value: float


def build_report(recipe: EvalRecipe, scored: Iterable[Scored], higher_is_better: Mapping[str, bool]) -> dict[str, Any]:
    """The report as a mapping; rows stand in the order in which their cells were first scored, pooled ones first."""
    cells: dict[tuple[Any, ...], list[float]] = {}
    for score in scored:
        for preference in (POOLED, score.preference):
            key = (*score[:3], preference, *score[4:6])
            cells.setdefault(key, []).append(score.value)
    rows = []
    for (method, policy, group, preference, weight, scorer), values in cells.items():
        mean, error = round(statistics.fmean(values), _DIGITS), round(_standard_error(values), _DIGITS)
        better = higher_is_better[scorer]
        rows.append(Cell(method, policy, group, preference, weight, scorer, len(values), mean, error, better))
    return {
        "version": _VERSION,
        "recipe": recipe.model_dump(),
        "environment": environment(),
        "rows": [asdict(row) for row in rows],
    }


def write_report(report: dict[str, Any], directory: Path) -> None:
    """Write `report.json`.

    Raises:
        StorageError: it cannot be written.
    """
    write_json(directory / REPORT, report)


def report_table(report: Mapping[str, Any], *, every_preference: bool = False) -> Table:
    """The report for a terminal: a line a method, policy, group and weight; a column a scorer.

    Args:
        report: what `evaluate` returned.
        every_preference: a line for each preference too, not only the pooled ones.
    """
    scorers = list(dict.fromkeys(row["scorer"] for row in report["rows"]))
    lower = {row["scorer"] for row in report["rows"] if not row["higher_is_better"]}
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in report["rows"]:
        if every_preference or row["preference"] == POOLED:
            key = (row["group"], row["policy"], row["preference"], row["method"], row["guidance_weight"])
            lines.setdefault(key, {})[row["scorer"]] = row
    error = max(row["stderr"] for cells in lines.values() for row in cells.values())
    table = Table("group", "policy", box=None, padding=(0, 1, 0, 0), header_style="bold underline", title="Means")
    table.caption = f"standard errors at most {error:.2f}; each is in {REPORT}"
    for name in ["preference"] * every_preference + ["method", "weight", "n"]:
        table.add_column(name, justify="right" if name in ("weight", "n") else "left")
    for name in scorers:
        table.add_column(f"{name} ↓" if name in lower else name, justify="right")
    groups = list(dict.fromkeys(key[0] for key in lines))
    shown = None
    for group, policy, preference, method, weight in sorted(lines, key=lambda key: groups.index(key[0])):
        cells = lines[group, policy, preference, method, weight]
        if shown not in (None, group):
            table.add_row()
        middle = [preference] * every_preference + [method, f"{weight:g}", str(next(iter(cells.values()))["n"])]
        means = [f"{cells[name]['mean']:.2f}" for name in scorers]
        table.add_row("" if group == shown else group, policy, *middle, *means)
        shown = group
    return table


def _standard_error(values: list[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
