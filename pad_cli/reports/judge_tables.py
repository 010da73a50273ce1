"""What `judge.json` says: a table for each mode of the judge, for a page and for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pad_cli.reports.charts import interval_bar
from pad_cli.reports.document import Cell, Table, number, terminal_table
from pad_cli.reports.evaluation_tables import POOLED, Row, estimate, known, method_name, method_of

if TYPE_CHECKING:
    from pad_cli.system.terminal import FittingTable


def judge_tables(judge: Row, *, every_preference: bool = False) -> list[FittingTable]:
    """What a judge said, for a terminal: a table for each mode that it was used in.

    Args:
        judge: the content of `judge.json`.
        every_preference: a line for each preference too, not only the pooled ones.
    """
    return [terminal_table(table) for table in judge_content(judge, every_preference)]


def judge_content(judge: Row, every_preference: bool = False) -> list[Table]:
    pairs, ratings = (
        [row for row in judge[mode] if every_preference or row["preference"] == POOLED]
        for mode in ("pairwise", "rubric")
    )
    place = ("group", "policy", *["preference"] * every_preference)
    tables = []
    if pairs:
        header = (
            *place,
            "method",
            "against",
            "pairs",
            "win rate",
            "length-controlled",
            "won / tied / lost",
            "disagreed",
        )
        rows = [
            (
                *(row[name] for name in place),
                method_of(row),
                method_name(row["opponent"], row["opponent_weight"]),
                number(row["n"]),
                *(_rate(row, *names) for names in (("win_rate", ""), ("length_controlled", "length_controlled_"))),
                f"{row['wins']} / {row['ties']} / {row['losses']}",
                f"{row['disagreed']}",
                _without_verdict(row),
            )
            for row in pairs
        ]
        tables.append(
            Table((*header, "no verdict"), rows, "<" * (len(place) + 2) + ">" * 6, "Win rates (ties count half)")
        )
    if ratings:
        header = (*place, "method", "dimension", "answers", "mean", "no verdict")
        rows = [
            (
                *(row[name] for name in place),
                method_of(row),
                row["dimension"],
                number(row["n"]),
                known(row["mean"], row["low"], row["high"]),
                _without_verdict(row),
            )
            for row in ratings
        ]
        tables.append(Table(header, rows, "<" * (len(place) + 2) + ">>>", "Ratings, 1 to 10"))
    return tables


def _rate(row: Row, name: str, prefix: str) -> str | Cell:
    """A win rate to be drawn; nothing where no pair has a verdict."""
    value, low, high = row[name], row[f"{prefix}low"], row[f"{prefix}high"]
    if value is None:
        return ""
    cell = estimate(value, low, high)
    if low is None or high is None:
        return cell
    return cell._replace(bar=interval_bar(value, low, high, f"win rate {cell.text}, interval {cell.interval}"))


def _without_verdict(row: Row) -> str:
    """How many, and why: the reply could not be read, there was none, or it was not requested for its cost."""
    counts = {name: row[name] for name in ("unparsed", "failed", "missing") if row[name]}
    return f"{sum(counts.values())}" + (f" ({', '.join(counts)})" if counts else "")
