"""Tables of evaluations, judgements, reproductions and sweeps.

Rows are those of `report.json`, `judge.json`, `costs.json` and `sweep.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    from rich.table import Table as RichTable

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


def estimate(value: float | None, low: float | None, high: float | None, sign: str = "") -> str | Cell:
    """A figure on its interval, if there is one."""
    if value is None:
        return ""
    interval = "" if low is None or high is None else f"{figure(low, sign)} to {figure(high, sign)}"
    return Cell(figure(value, sign), interval, value=value)


def estimated(key: str, prefix: str = "") -> Column:
    """A column of figures between `<prefix>low` and `<prefix>high`; nothing where there is none."""
    return lambda row: estimate(row[key], row[f"{prefix}low"], row[f"{prefix}high"])


def mean_cell(row: Row, verdicts: Verdicts, shade: str = "") -> Cell:
    """A row's mean on its interval, marked where it differs from the reference."""
    if row["mean"] is None:
        return Cell(f"{row['failed']} failed", tone="bad")
    cell = estimate(row["mean"], row["low"], row["high"])
    assert isinstance(cell, Cell)
    return cell._replace(mark=verdicts.get(_key(row), ""), shade=shade)


def pivot(
    rows: Sequence[Row], down: Sequence[str], across: Sequence[str], cell: Callable[[Row], Cell]
) -> tuple[list[tuple[Any, ...]], dict[tuple[Any, ...], list[str | Cell]]]:
    """Rows as a grid: the values of the keys `across` for its columns, and those of `down` to the cells of a line."""
    columns = list(grouped(rows, *across))
    lines = {}
    for place, some in grouped(rows, *down).items():
        cells = {tuple(row[name] for name in across): cell(row) for row in some}
        lines[place] = [cells.get(column, "") for column in columns]
    return columns, lines


def report_table(report: Row, *, every_preference: bool = False, width: int = 100) -> Group:
    """An evaluation for a terminal: a line for each method, policy, group and weight; a column for each scorer.

    Args:
        report: what `evaluate` returned.
        every_preference: a line for each preference too, not only the pooled ones.
        width: letters of a line; scorers that do not fit stand in a further table.
    """
    from rich.cells import cell_len
    from rich.console import Group
    from rich.text import Text

    scorers = {row["scorer"]: row["scorer"] + ("" if row["higher_is_better"] else " ↓") for row in report["rows"]}
    words = ["group", "policy", *["preference"] * every_preference, "method"]
    header = [*words, "weight", "n", *scorers.values()]
    rows = [row for row in report["rows"] if every_preference or row["preference"] == POOLED]
    terminal_cell = partial(_terminal_cell, verdicts_of(report))
    lines: list[list[str]] = []
    for some in grouped(rows, "group").values():
        lines += [[""] * len(header)] * bool(lines)  # an empty line separates groups
        for place, scored in enumerate(grouped(some, *LINE).values()):
            last, cells = scored[-1], {row["scorer"]: terminal_cell(row) for row in scored}
            names = ["" if name == "group" and place else last[name] for name in words]
            figures = [f"{last['guidance_weight']:g}", f"{last['n']:,}", *(cells.get(name, "") for name in scorers)]
            lines.append([*names, *figures])

    fixed = len(words) + 2
    widths = [1 + max(map(cell_len, column)) for column in zip(header, *lines, strict=True)]
    pages: list[list[int]] = [[]]  # the columns of each table
    for column in range(fixed, len(header)):
        if pages[-1] and sum(widths[each] for each in (*range(fixed), *pages[-1], column)) > width:
            pages.append([])
        pages[-1].append(column)
    parts: list[RichTable | Text] = []
    for page in pages:
        columns = [*range(fixed), *page]
        grid = [[line[column] for column in columns] for line in (header, *lines)]
        table = terminal_table(Table(grid[0], grid[1:], "<" * len(words) + ">" * (2 + len(page))))
        for each in table.columns[len(words) :]:
            each.no_wrap = True
        parts += [table, Text()]
    return Group(*parts, *map(Text, _notes(report)))


def _terminal_cell(verdicts: Verdicts, row: Row) -> str:
    if row["mean"] is None:
        return f"{row['failed']} failed"
    half = "" if row["low"] is None else f" ±{(row['high'] - row['low']) / 2:.2f}"
    return f"{row['mean']:.2f}{half}{MARKS.get(verdicts.get(_key(row), ''), '')}"


def _notes(report: Row) -> Iterator[str]:
    """What the figures mean, and which are to be read with care."""
    confidence = report["recipe"]["confidence"]
    yield (
        f"± half the {100 * confidence:g} % interval over prompts. {MARKS['better']} better, {MARKS['worse']} worse "
        f"than {method_of(report['reference'])}: p < {1 - confidence:.2g} after Holm's correction."
    )
    pooled = [row for row in report["rows"] if row["preference"] == POOLED]
    for key, what in (("truncated", "read the beginning only of"), ("failed", "failed on")):
        for (scorer,), rows in grouped([row for row in pooled if row[key]], "scorer").items():
            yield f"'{scorer}' {what} {sum(row[key] for row in rows):,} answers; report.json says which cells."


def judge_tables(judge: Row, *, every_preference: bool = False) -> list[RichTable]:
    """The content of `judge.json` for a terminal, on request with a line for each preference too."""
    return [terminal_table(table) for table in judgements(judge, every_preference)]


def judgements(judge: Row, every_preference: bool = False) -> list[Table]:
    """The same for a page: a table for each mode of the judge."""
    pairwise, rubric = (
        [row for row in judge[mode] if every_preference or row["preference"] == POOLED]
        for mode in ("pairwise", "rubric")
    )
    place: dict[str, Column] = {name: name for name in ("group", "policy", *["preference"] * every_preference)}
    pairs = Table.of(
        pairwise,
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
    ratings = Table.of(
        rubric,
        {**place, "method": method_of, "dimension": "dimension"},
        {"answers": number("n"), "mean": estimated("mean"), "no verdict": _without_verdict},
        "Ratings, 1 to 10",
    )
    return [table for table in (pairs, ratings) if table.rows]


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
        "tokens": number("tokens"),
        "s per 100 tokens": number("seconds_per_100_tokens", ".3g"),
    }
    return [
        Table.of(rows, {"method": method_of}, figures, f"{prefix}on {policy}")
        for (policy,), rows in grouped(costs, "policy").items()
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
        columns, lines = pivot(mine, ("method", "guidance_weight"), ("group", "scorer"), cell)
        header = ("method", *(f"{group}: {scorer}" for group, scorer in columns))
        title = f"{label}, on {policy}; compared with {method_of(run['reference'])}"
        rows = [(method_name(*method), *cells) for method, cells in lines.items()]
        yield Table(header, rows, "<" + ">" * len(columns), title)


# Sweeps


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
