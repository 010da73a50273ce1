"""What a judge said, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pad_cli.evaluation.cells import POOLED
from pad_cli.system.terminal import FittingTable


def judge_tables(report: Mapping[str, Any], *, every_preference: bool = False) -> list[FittingTable]:
    """One table for each mode that the judge was asked in.

    Args:
        report: what `judge` returned.
        every_preference: a line for each preference too, not only the pooled ones.
    """
    tables = []
    for mode, build in (("pairwise", _pairwise), ("rubric", _rubric)):
        rows = [row for row in report[mode] if every_preference or row["preference"] == POOLED]
        if rows:
            tables.append(build(rows, every_preference))
    return tables


def _pairwise(rows: Sequence[Mapping[str, Any]], every_preference: bool) -> FittingTable:
    table = _table("Win rates", every_preference, ["method", "against"])
    faults = _faults(rows)
    for name in ("n", "win rate", "equal length", "disagreed", *faults):
        table.add_column(name, justify="right")
    for row, start in _started(rows, every_preference):
        sides = [_named(row["method"], row["guidance_weight"]), _named(row["opponent"], row["opponent_weight"])]
        rates = [_interval(row, "win_rate", ""), _interval(row, "length_controlled", "length_controlled_")]
        counts = [str(row[name]) for name in ("disagreed", *faults)]
        table.add_row(*start, *sides, str(row["n"]), *rates, *counts)
    table.caption = "ties count half; every pair asked in both orders, and disagreement is a tie"
    return table


def _rubric(rows: Sequence[Mapping[str, Any]], every_preference: bool) -> FittingTable:
    table = _table("Ratings, 1 to 10", every_preference, ["method", "dimension"])
    faults = _faults(rows)
    for name in ("n", "mean", *faults):
        table.add_column(name, justify="right")
    for row, start in _started(rows, every_preference):
        sides = [_named(row["method"], row["guidance_weight"]), row["dimension"]]
        table.add_row(*start, *sides, str(row["n"]), _interval(row, "mean", ""), *(str(row[name]) for name in faults))
    return table


def _table(title: str, every_preference: bool, names: Sequence[str]) -> FittingTable:
    table = FittingTable("group", "policy", box=None, padding=(0, 1, 0, 0), header_style="bold underline", title=title)
    for name in ["preference"] * every_preference + list(names):
        table.add_column(name)
    return table


def _faults(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why verdicts are lacking; reasons that have no case are left out, but for the first."""
    return ["unparsed", *(name for name in ("failed", "missing") if any(row[name] for row in rows))]


def _started(
    rows: Sequence[Mapping[str, Any]], every_preference: bool
) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
    """Each row with the first columns of its line; a group's name stands on its first line only."""
    shown = None
    for row in rows:
        group = "" if row["group"] == shown else row["group"]
        shown = row["group"]
        yield row, [group, row["policy"], *[row["preference"]] * every_preference]


def _named(method: str, weight: float) -> str:
    return f"{method} {weight:g}" if weight else method


def _interval(row: Mapping[str, Any], name: str, prefix: str) -> str:
    """A figure with the ends of its interval; a dash where there is none."""
    if row[name] is None:
        return "-"
    low, high = row[f"{prefix}low"], row[f"{prefix}high"]
    return f"{row[name]:.2f}" if low is None else f"{row[name]:.2f} [{low:.2f}, {high:.2f}]"
