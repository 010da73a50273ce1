"""The tables of `reproduce` for people, as Markdown and as a page: the main figures of every evaluation, and cost."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pad_cli.evaluation.cells import POOLED
from pad_cli.evaluation.report_cells import figure
from pad_cli.evaluation.report_table import MARKS, method_name, reference_name, verdicts_of
from pad_cli.reports.content import Grid, Section
from pad_cli.reports.html import document, section_html
from pad_cli.reports.markdown import section_lines
from pad_cli.system.runs import write_whole

SUMMARY, PAGE = "reproduce.md", "reproduce.html"

_STYLE = "  body { max-width: 90rem } td { white-space: nowrap }\n"

Costs = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]
"""Table and label of a run to the rows of its `costs.json`."""


def write_summary(result: Mapping[str, Any], costs: Costs, directory: Path) -> None:
    """Write `reproduce.md` and `reproduce.html`.

    Args:
        result: see `reproduce`.
        costs: of its runs.
        directory: where to.

    Raises:
        StorageError: it cannot be written.
    """
    told = (
        f"A figure is a mean over items with its interval. {MARKS['better']} better, {MARKS['worse']} worse than the "
        "method named above its table, after Holm's correction; no mark: cannot be told apart."
    )
    sections = [*(_section(name, table) for name, table in result["tables"].items()), _costs(costs)]
    lines = ["# Reproduction", "", told, "", *(line for section in sections for line in section_lines(section, str))]
    write_whole(directory / SUMMARY, "\n".join(lines))
    links = "".join(
        f'<li><a href="{html.escape(f"{name}/{label}/report.html")}">{html.escape(f"{name}: {label}")}</a></li>'
        for name, table in result["tables"].items()
        for label in table["runs"]
    )
    parts = [f"<p>{told}</p>", *(section_html(section, html.escape) for section in sections)]
    body = "\n".join([*parts, f"<h2>Reports</h2><ul>{links}</ul>"])
    write_whole(directory / PAGE, document("Reproduction", body, style=_STYLE))


def _section(name: str, table: Mapping[str, Any]) -> Section[str]:
    grids = tuple(grid for label, run in table["runs"].items() for grid in _grids(label, run, table["scorers"]))
    return Section(name, (table["question"],), grids)


def _grids(label: str, run: Mapping[str, Any], scorers: list[str]) -> Iterator[Grid[str]]:
    """A grid for each policy: methods down, groups and scorers across."""
    rows = [row for row in run["rows"] if row["preference"] == POOLED and row["scorer"] in scorers]
    verdicts, compared = verdicts_of(run), reference_name(run)
    for policy in dict.fromkeys(row["policy"] for row in rows):
        mine = [row for row in rows if row["policy"] == policy]
        columns = list(dict.fromkeys((row["group"], row["scorer"]) for row in mine))
        methods = list(dict.fromkeys((row["method"], row["guidance_weight"]) for row in mine))
        cells = {(row["method"], row["guidance_weight"], row["group"], row["scorer"]): row for row in mine}
        table = []
        for method, weight in methods:
            shown = []
            for group, scorer in columns:
                row = cells.get((method, weight, group, scorer))
                verdict = verdicts.get(((group, policy, POOLED, method, weight), scorer), "undecided")
                shown.append("" if row is None else _cell(row, verdict))
            table.append((method_name(method, weight), *shown))
        header = ("method", *(f"{group}: {scorer}" for group, scorer in columns))
        yield Grid(header, tuple(table), "<" + ">" * len(columns), f"{label}, on {policy}; compared with {compared}")


def _cell(row: Mapping[str, Any], verdict: str) -> str:
    if row["mean"] is None:
        return f"failed on {row['failed']}"
    ends = "" if row["low"] is None else f" ({row['low']:.2f}\u2013{row['high']:.2f})"
    return f"{figure(row['mean'])}{ends} {MARKS.get(verdict, '')}".rstrip()


def _costs(costs: Costs) -> Section[str]:
    """What each method of each run costs."""
    header = ("method", "trained models", "trained numbers", "training (s)", "answers", "s per 100 tokens")
    grids = []
    for (name, label), rows in costs.items():
        for policy in dict.fromkeys(row["policy"] for row in rows):
            mine = [row for row in rows if row["policy"] == policy]
            table = tuple(_cost(row) for row in mine)
            grids.append(Grid(header, table, "<" + ">" * (len(header) - 1), f"{name}: {label}, on {policy}"))
    lines = (
        "What does each method cost?",
        "Training on the machine that trained; a reward model is trained once for all preferences and policies. Times "
        "of answering are this machine's, over batches: a method that reads no preference answers each prompt once, in "
        "smaller ones, and looks slower for it. `pad bench` measures what guidance alone costs.",
    )
    return Section("cost", lines, tuple(grids))


def _cost(row: Mapping[str, Any]) -> tuple[str, ...]:
    training, taken = row["training_seconds"], row["seconds_per_100_tokens"]
    return (
        method_name(row["method"], row["guidance_weight"]),
        f"{row['models']:,}",
        f"{row['parameters']:,}",
        "unknown" if training is None else f"{training:,.0f}",
        f"{row['answers']:,}",
        "" if taken is None else f"{taken:.3g}",
    )
