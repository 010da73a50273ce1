"""Tables of evaluations, judgements, reproductions and sweeps.

Rows are those of `report.json`, `judge.json`, `costs.json` and `sweep.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pad_cli.reports.charts import Point, Series, plot
from pad_cli.reports.document import (
    MARKS,
    Cell,
    Column,
    Document,
    Figure,
    Row,
    Section,
    Table,
    grouped,
    number,
    terminal_table,
)

if TYPE_CHECKING:
    from rich.console import Group

POOLED = "*"
"""In place of a preference: all of its group."""
LINE = ("group", "policy", "preference", "method", "guidance_weight")
"""The keys that say which line of a report a row belongs to."""
COST_NOTE = (
    "Training times are those of the machine that trained; the reward model is listed with every method that uses it, "
    "and is trained once for all preferences and policies. Times of answering are this machine's, over batches: a "
    "method that reads no preference answers each prompt once, in smaller batches, and looks slower for it. "
    "`pad bench` measures what guidance alone costs."
)
"""How to read `cost_tables`."""

Verdicts = Mapping[tuple[Any, ...], str]
"""(scorer, *LINE) of a pooled row to `better` or `worse` than the reference; others are missing."""


def method_name(method: str, guidance_weight: float) -> str:
    """A method at a guidance weight; methods that have none stand at 0."""
    return f"{method} at {guidance_weight:g}" if guidance_weight else method


def method_of(row: Row) -> str:
    """The same of a row."""
    return method_name(row["method"], row["guidance_weight"])


def verdicts_of(report: Row) -> Verdicts:
    """The verdicts of a report's comparisons."""
    rows = ({**row, "preference": POOLED} for row in report["comparisons"] if row["verdict"] in MARKS)
    return {_key(row): row["verdict"] for row in rows}


def _key(row: Row) -> tuple[Any, ...]:
    return (row["scorer"], *(row[name] for name in LINE))


def figure(value: float, sign: str = "") -> str:
    """A mean, or with the sign `+` a difference, as readers see it."""
    return f"{value:{sign if value else ''}{'.3f' if abs(value) < 10 else ',.1f'}}"


def estimate(value: float | None, low: float | None, high: float | None, sign: str = "") -> Cell:
    """A figure on its interval, if there is one."""
    if value is None:
        return Cell("")
    interval = "" if low is None or high is None else f"{figure(low, sign)} to {figure(high, sign)}"
    return Cell(figure(value, sign), interval, value=value)


def estimated(key: str, prefix: str = "", sign: str = "") -> Column:
    """A column of figures between `<prefix>low` and `<prefix>high`; nothing where there is none."""
    return lambda row: estimate(row[key], row[f"{prefix}low"], row[f"{prefix}high"], sign)


def mean_cell(row: Row, verdicts: Verdicts) -> Cell:
    """A row's mean on its interval, marked where it differs from the reference."""
    if row["mean"] is None:
        return Cell(f"{row['failed']} failed")
    return estimate(row["mean"], row["low"], row["high"])._replace(mark=verdicts.get(_key(row), ""))


def scorer_name(row: Row) -> str:
    """A scorer's name with its unit, and an arrow where lower is better."""
    return _directed({**row, "scorer": f"{row['scorer']} ({row['unit']})"} if row["unit"] else row)


def _directed(row: Row) -> str:
    return f"{row['scorer']}{'' if row['higher_is_better'] else ' ↓'}"


def report_table(report: Row, *, every_preference: bool = False) -> Group:
    """An evaluation for a terminal: a line for each method, policy, group and weight; a column for each scorer.

    Args:
        report: what `evaluate` returned.
        every_preference: a line for each preference too, not only the pooled ones.
    """
    from rich.console import Group
    from rich.text import Text

    verdicts = verdicts_of(report)

    def cell(row: Row) -> str:
        if row["mean"] is None:
            return f"{row['failed']} failed"
        half = "" if row["low"] is None else f" ±{(row['high'] - row['low']) / 2:.2f}"
        return f"{row['mean']:.2f}{half}{MARKS.get(verdicts.get(_key(row), ''), '')}"

    rows = [row for row in report["rows"] if every_preference or row["preference"] == POOLED]
    places: dict[str, Column] = {
        name: name for name in ("group", "policy", *["preference"] * every_preference, "method")
    }
    places["weight"] = lambda row: f"{row['guidance_weight']:g}"
    table = terminal_table(Table.grid(rows, places, {"n": number("n")}, _directed, cell))
    confidence = report["recipe"]["confidence"]
    note = (
        f"± half the {100 * confidence:g} % interval over prompts. {MARKS['better']} better, {MARKS['worse']} worse "
        f"than {method_of(report['reference'])}: p < {1 - confidence:.2g} after Holm's correction."
    )
    return Group(table, Text(), *map(Text, [note, *warnings_of(report)]))


def warnings_of(report: Row) -> Iterator[str]:
    """Which figures are to be read with care."""
    pooled = [row for row in report["rows"] if row["preference"] == POOLED]
    for (scorer,), rows in grouped(pooled, "scorer").items():
        if failed := sum(row["failed"] for row in rows):
            cells = sum(row["failed"] > 0 for row in rows)
            yield f"'{scorer}' failed on {failed:,} answers: {cells} pooled cells have no mean. Run again to try again."
        if cut := sum(row["truncated"] for row in rows):
            yield f"'{scorer}' read only the beginning of {cut:,} answers."
    if alone := dict.fromkeys(row["group"] for row in pooled if row["prompts"] == 1):
        yield f"With a single prompt there is no estimate of uncertainty: {', '.join(alone)}."


def judge_table(judge: Row, *, every_preference: bool = False) -> Table:
    """The win rates of a `judge.json`, on request with a line for each preference too."""
    place: dict[str, Column] = {name: name for name in ("group", "policy", *["preference"] * every_preference)}
    return Table.of(
        [row for row in judge["pairwise"] if every_preference or row["preference"] == POOLED],
        {**place, "method": method_of, "against": lambda row: method_name(row["opponent"], row["opponent_weight"])},
        {
            "pairs": number("n"),
            "win rate": estimated("win_rate"),
            "length-controlled": estimated("length_controlled", "length_controlled_"),
            "won / tied / lost": lambda row: f"{row['wins']} / {row['ties']} / {row['losses']}",
            "disagreed": lambda row: str(row["disagreed"]),
            "no verdict": _without_verdict,
        },
        "Win rates (ties count half)",
    )


def _without_verdict(row: Row) -> str:
    """How many, and why: the reply could not be read, there was none, or it was not requested for its cost."""
    counts = {name: row[name] for name in ("unparsed", "failed", "missing") if row[name]}
    return f"{sum(counts.values())}" + (f" ({', '.join(counts)})" if counts else "")


def cost_tables(costs: Sequence[Row], prefix: str = "") -> list[Table]:
    """The rows of a `costs.json`, a table for each policy."""
    figures = {
        "trained models": number("models"),
        "trainable parameters": number("parameters"),
        "training (s)": number("training_seconds"),
        "answers": number("answers"),
        "prompt tokens": number("prompt_tokens", ".0f"),
        "tokens": number("tokens"),
        "s per 100 tokens": number("seconds_per_100_tokens", ".3g"),
    }
    return [
        Table.of(rows, {"method": method_of}, figures, f"{prefix}on {policy}")
        for (policy,), rows in grouped([{"prompt_tokens": None, **row} for row in costs], "policy").items()
    ]


def reproduction_document(result: Row, costs: Mapping[tuple[str, str], Sequence[Row]]) -> Document:
    """The tables of `reproduce`: the main figures of every evaluation, and what each method cost.

    Args:
        result: the content of `reproduce.json`.
        costs: (table, label of a run) to the rows of its `costs.json`.
    """
    summary = (
        f"A figure is a mean over items with its interval. {MARKS['better']} better, {MARKS['worse']} worse than the "
        "method named above its table, after Holm's correction; no mark: no difference was found."
    )
    sections = []
    for name, table in result["tables"].items():
        grids = [grid for label, run in table["runs"].items() for grid in _run_tables(label, run, table["scorers"])]
        sections.append(Section(name, (table["question"],), grids))
    tables = [table for (name, label), rows in costs.items() for table in cost_tables(rows, f"{name}: {label}, ")]
    return Document("Reproduction", (summary,), sections=[*sections, Section("cost", (COST_NOTE,), tables)])


def _run_tables(label: str, run: Row, scorers: Sequence[str]) -> Iterator[Table]:
    """A table for each policy: methods down, groups and scorers across."""
    cell = partial(mean_cell, verdicts=verdicts_of(run))
    pooled = [row for row in run["rows"] if row["preference"] == POOLED and row["scorer"] in scorers]
    for (policy,), mine in grouped(pooled, "policy").items():
        title = f"{label}, on {policy}; compared with {method_of(run['reference'])}"
        yield Table.grid(mine, {"method": method_of}, {}, lambda row: f"{row['group']}: {row['scorer']}", cell, title)


# Sweeps


def sweep_document(result: Row) -> Document:
    """The whole page about the content of `sweep.json`."""
    names = [objective["principle"] for objective in result["objectives"]]
    lines = (
        "A point is the mean of both scores under one weighting of the preferences; a line joins the points of one "
        "method that no other point of its own beats in everything. Hypervolume: how much lies below the front, with "
        "its interval over prompts. Spacing: 0 where the front's points lie evenly.",
    )
    figures = [
        Figure(f"{across} to the right, {up} upwards", plot(_series(result, across, up), across, up))
        for across, up in combinations(names, 2)
    ]
    return Document("Sweep", sections=[Section("Fronts", lines, (fronts_table(result),), figures)])


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


def fronts_table(result: Row) -> Table:
    """The fronts of a `sweep.json`, the largest hypervolume first."""
    reference = ", ".join(f"{value:g}" for value in result["reference"])
    return Table.of(
        sorted(result["fronts"], key=lambda front: -front["hypervolume"]),
        {"method": _front_name},
        {
            "points": number("points"),
            "on front": number("on_front"),
            "hypervolume": number("hypervolume", ".3f"),
            "interval": lambda front: f"{front['low']:.3f} to {front['high']:.3f}",
        },
        f"Fronts (reference point: {reference})",
    )


def _front_name(row: Row) -> str:
    return f"{method_name(row['method'], row['guidance_weight'])}, C = {row['candidates']}"
