"""Tables of evaluations: for a terminal, and of all runs of a reproduction. Rows are those of `report.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pad_cli.reports.charts import interval_bar
from pad_cli.reports.document import MARKS, Cell, Document, Row, Section, Table, grouped, number, terminal_table

if TYPE_CHECKING:
    from rich.console import Group

    from pad_cli.system.terminal import FittingTable

Line = tuple[str, str, str, str, float]
"""Group, policy, preference, method, guidance weight."""

POOLED = "*"
"""In place of a preference: all of its group."""


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

    left, right = _columns(report, every_preference)
    letters = {name: 1 + max(map(cell_len, (name, *cells))) for name, cells in (left | right).items()}
    spare = width - sum(letters[name] for name in left)
    tables, room = [left], spare
    for name, cells in right.items():
        if letters[name] > room and len(tables[-1]) > len(left):
            tables, room = [*tables, left], spare
        tables[-1], room = tables[-1] | {name: cells}, room - letters[name]
    parts = [part for columns in tables for part in (_fitting_table(columns), Text())]
    return Group(*parts, *map(Text, _notes(report)))


def method_name(method: str, guidance_weight: float) -> str:
    """A method at a guidance weight; methods that have none stand at 0."""
    return f"{method} at {guidance_weight:g}" if guidance_weight else method


def method_of(row: Row) -> str:
    """The same of a row."""
    return method_name(row["method"], row["guidance_weight"])


def reference_name(report: Row) -> str:
    """The method that the others are compared with, as a reader knows it."""
    return method_name(report["reference"]["method"], report["reference"]["guidance_weight"])


def verdicts_of(report: Row) -> dict[tuple[Line, str], str]:
    """(line of a pooled row, scorer) to `better`, `worse` or nothing."""
    return {
        ((row["group"], row["policy"], POOLED, row["method"], row["guidance_weight"]), row["scorer"]): row["verdict"]
        for row in report["comparisons"]
        if row["verdict"] in MARKS
    }


def line_of(row: Row) -> Line:
    """Where a row stands."""
    return row["group"], row["policy"], row["preference"], row["method"], row["guidance_weight"]


def figure(value: float, *, signed: bool = False) -> str:
    """A mean or a difference as readers see it."""
    sign = "+" if signed and value > 0 else ""
    return sign + (f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}")


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
    sections = [
        Section(
            name, (table["question"],),
            [grid for label, run in table["runs"].items() for grid in _run_tables(label, run, table["scorers"])],
        )
        for name, table in result["tables"].items()
    ]  # fmt: skip
    tables = [table for (name, label), rows in costs.items() for table in cost_tables(rows, f"{name}: {label}, ")]
    return Document("Reproduction", (summary,), sections=[*sections, Section("cost", (COST_NOTE,), tables)])


def _columns(report: Row, every_preference: bool) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The columns that say which line it is, and those of the scorers; an empty line separates groups."""
    rows = [row for row in report["rows"] if every_preference or row["preference"] == POOLED]
    verdicts = verdicts_of(report)
    heads = {row["scorer"]: row["scorer"] + ("" if row["higher_is_better"] else " ↓") for row in report["rows"]}
    names = ["group", "policy", *["preference"] * every_preference, "method", "weight", "n"]
    left: dict[str, list[str]] = {name: [] for name in names}
    right: dict[str, list[str]] = {name: [] for name in heads.values()}
    for some in grouped(rows, "group").values():
        for cells in (left | right).values() if left["n"] else ():
            cells.append("")
        for place, (line, scored) in enumerate(_by_line(some).items()):
            group, policy, preference, method, weight = line
            last = list(scored.values())[-1]
            texts = {"group": group if place == 0 else "", "policy": policy, "preference": preference}
            texts |= {"method": method, "weight": f"{weight:g}", "n": f"{last['n']:,}"}
            for name, cells in left.items():
                cells.append(texts[name])
            for scorer, name in heads.items():
                mark = MARKS.get(verdicts.get((line, scorer), ""), "")
                right[name].append(_half_width(scored[scorer]) + mark if scorer in scored else "")
    return left, right


def _by_line(rows: Sequence[Row]) -> dict[Line, dict[str, Row]]:
    lines: dict[Line, dict[str, Row]] = {}
    for row in rows:
        lines.setdefault(line_of(row), {})[row["scorer"]] = row
    return lines


def _half_width(row: Row) -> str:
    if row["mean"] is None:
        return f"{row['failed']} failed"
    return f"{row['mean']:.2f}" + ("" if row["low"] is None else f" ±{(row['high'] - row['low']) / 2:.2f}")


def _fitting_table(columns: Mapping[str, Sequence[str]]) -> FittingTable:
    align = "".join("<" if name in ("group", "policy", "preference", "method") else ">" for name in columns)
    table = terminal_table(Table(list(columns), list(zip(*columns.values(), strict=True)), align))
    for column in table.columns:
        column.no_wrap = column.justify == "right"
    return table


def _notes(report: Row) -> Iterator[str]:
    """What the figures mean, and which are to be read with care."""
    confidence = report["recipe"]["confidence"]
    yield (
        f"± half the {100 * confidence:g} % interval over prompts. {MARKS['better']} better, {MARKS['worse']} worse "
        f"than {reference_name(report)}: p < {1 - confidence:.2g} after Holm's correction."
    )
    pooled = [row for row in report["rows"] if row["preference"] == POOLED]
    for key, what in (("truncated", "read the beginning only of"), ("failed", "failed on")):
        for (scorer,), rows in grouped([row for row in pooled if row[key]], "scorer").items():
            yield f"'{scorer}' {what} {sum(row[key] for row in rows):,} answers; report.json says which cells."


def _run_tables(label: str, run: Row, scorers: Sequence[str]) -> Iterator[Table]:
    """A table for each policy: methods down, groups and scorers across."""
    verdicts = verdicts_of(run)
    pooled = [row for row in run["rows"] if row["preference"] == POOLED and row["scorer"] in scorers]
    for (policy,), mine in grouped(pooled, "policy").items():
        columns = list(grouped(mine, "group", "scorer"))
        rows: list[list[str | Cell]] = []
        for (method, weight), some in grouped(mine, "method", "guidance_weight").items():
            cells = {(row["group"], row["scorer"]): mean_cell(row, verdicts) for row in some}
            rows.append([method_name(method, weight), *(cells.get(column, "") for column in columns)])
        header = ("method", *(f"{group}: {scorer}" for group, scorer in columns))
        title = f"{label}, on {policy}; compared with {reference_name(run)}"
        yield Table(header, rows, "<" + ">" * len(columns), title)


def mean_cell(row: Row, verdicts: Mapping[tuple[Line, str], str], *, shade: str = "") -> Cell:
    """A row's mean on its interval, marked where it differs from the reference."""
    if row["mean"] is None:
        return Cell(f"{row['failed']} failed", tone="bad")
    mark = verdicts.get((line_of(row), row["scorer"]), "")
    return estimate(row["mean"], row["low"], row["high"])._replace(mark=mark, shade=shade)


def estimate(value: float, low: float | None, high: float | None, *, signed: bool = False, drawn: str = "") -> Cell:
    """A figure on its interval, if there is one, which may be drawn; `drawn` then says what the figure is."""
    text = figure(value, signed=signed)
    if low is None or high is None:
        return Cell(text, value=value)
    ends = f"{figure(low, signed=signed)} to {figure(high, signed=signed)}"
    cell = Cell(text, ends, value=value)
    return cell._replace(bar=interval_bar(value, low, high, f"{drawn} {text}, interval {ends}")) if drawn else cell


def estimated(key: str, prefix: str = "", *, drawn: str = "", signed: bool = False) -> Callable[[Row], str | Cell]:
    """A column of figures between `<prefix>low` and `<prefix>high`; nothing where there is none."""

    def cell(row: Row) -> str | Cell:
        if row[key] is None:
            return ""
        return estimate(row[key], row[f"{prefix}low"], row[f"{prefix}high"], signed=signed, drawn=drawn)

    return cell


COST_NOTE = (
    "Training times are those of the machine that trained; the reward model is listed with every method that uses it, "
    "and is trained once for all preferences and policies. Times of answering are this machine's, over batches: a "
    "method that reads no preference answers each prompt once, in smaller batches, and looks slower for it. "
    "`pad bench` measures what guidance alone costs."
)
"""How to read `cost_tables`."""


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
