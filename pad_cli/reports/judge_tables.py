"""What `judge.json` says: a table for each mode of the judge, for a page and for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pad_cli.reports.document import Column, Row, Table, number, terminal_table
from pad_cli.reports.evaluation_tables import POOLED, estimated, method_name, method_of

if TYPE_CHECKING:
    from pad_cli.system.terminal import FittingTable


def judge_tables(judge: Row, *, every_preference: bool = False) -> list[FittingTable]:
    """What a judge said, for a terminal.

    Args:
        judge: the content of `judge.json`.
        every_preference: a line for each preference too, not only the pooled ones.
    """
    return [terminal_table(table) for table in tables_of(judge, every_preference)]


def tables_of(judge: Row, every_preference: bool = False) -> list[Table]:
    """The same for a page."""
    place: dict[str, Column] = {"group": "group", "policy": "policy"}
    if every_preference:
        place["preference"] = "preference"
    pairs = Table.of(
        _rows(judge["pairwise"], every_preference),
        {**place, "method": method_of, "against": lambda row: method_name(row["opponent"], row["opponent_weight"])},
        {
            "pairs": number("n"),
            "win rate": estimated("win_rate", drawn="win rate"),
            "length-controlled": estimated("length_controlled", "length_controlled_", drawn="win rate"),
            "won / tied / lost": lambda row: f"{row['wins']} / {row['ties']} / {row['losses']}",
            "disagreed": lambda row: str(row["disagreed"]),
            "no verdict": _without_verdict,
        },
        "Win rates (ties count half)",
    )
    ratings = Table.of(
        _rows(judge["rubric"], every_preference),
        {**place, "method": method_of, "dimension": "dimension"},
        {"answers": number("n"), "mean": estimated("mean"), "no verdict": _without_verdict},
        "Ratings, 1 to 10",
    )
    return [table for table in (pairs, ratings) if table.rows]


def _rows(rows: list[Row], every_preference: bool) -> list[Row]:
    return [row for row in rows if every_preference or row["preference"] == POOLED]


def _without_verdict(row: Row) -> str:
    """How many, and why: the reply could not be read, there was none, or it was not requested for its cost."""
    counts = {name: row[name] for name in ("unparsed", "failed", "missing") if row[name]}
    return f"{sum(counts.values())}" + (f" ({', '.join(counts)})" if counts else "")
