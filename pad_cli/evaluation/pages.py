"""`report.md` and `report.html`, from the files of a finished evaluation; written again when a judge has judged it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError
from pad_cli.evaluation.outputs import COSTS, OUTPUTS
from pad_cli.evaluation.report import REPORT
from pad_cli.evaluation.report_cells import Cell, Estimate, Heat, Number, Rate
from pad_cli.evaluation.report_content import Facts, by_preference, comparisons, directed, sections, summary, warnings
from pad_cli.evaluation.report_page import evaluation_page
from pad_cli.evaluation.report_table import MARKS, reference_name
from pad_cli.reports.content import Section
from pad_cli.reports.markdown import escaped, section_lines
from pad_cli.system.runs import write_whole

MARKDOWN, PAGE = "report.md", "report.html"
JUDGED = "judge.json"
"""What a judge says, where one was asked."""
_AGAIN = "Run `pad eval` to its end, which writes it; what was answered is not asked again."


def write_pages(directory: Path) -> None:
    """Write `report.md` and `report.html`.

    Args:
        directory: of the run.

    Raises:
        DataError: it holds no finished evaluation.
        StorageError: they cannot be written.
    """
    facts = read_facts(directory)
    write_whole(directory / MARKDOWN, evaluation_markdown(facts))
    write_whole(directory / PAGE, evaluation_page(facts))


def write_pages_again(directory: Path) -> None:
    """The same from files that lay about since, in which anything may stand by now.

    Raises:
        DataError: they are damaged.
        StorageError: the pages cannot be written.
    """
    try:
        write_pages(directory)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(
            f"no report can be made of it: {REPORT}, {OUTPUTS} or {COSTS} is damaged", path=directory, hint=_AGAIN
        ) from error


def has_report(directory: Path) -> bool:
    """Is there a finished evaluation whose pages can be written?"""
    return all((directory / name).exists() for name in (REPORT, OUTPUTS, COSTS))


def read_facts(directory: Path) -> Facts:
    """What the report is made of.

    Raises:
        DataError: a file is missing or damaged.
    """
    judged = _read(directory / JUDGED) if (directory / JUDGED).exists() else None
    return Facts(_read(directory / REPORT), _read(directory / OUTPUTS), _read(directory / COSTS, list), judged)


def evaluation_markdown(facts: Facts) -> str:
    """The report as Markdown."""
    return "\n".join(_markdown(facts)).rstrip() + "\n"


def _markdown(facts: Facts) -> Iterator[str]:
    yield from ("# Evaluation", "")
    for line in summary(facts):
        yield from (escaped(line), "")
    if found := [f"- {escaped(warning)}" for warning in warnings(facts)]:
        yield from (*found, "")
    for section in sections(facts):
        yield from section_lines(section, _shown)
    if tables := tuple(comparisons(facts)):
        yield from section_lines(Section(f"Against {reference_name(facts.report)}", grids=tables), _shown)
    first = facts.scorers[0]
    heats = tuple(by_preference(facts, first))
    yield from section_lines(Section(f"By preference: {directed(facts, first)}", grids=heats), _shown)


def _shown(cell: Cell) -> str:
    match cell:
        case Heat(estimate) | Rate(estimate):
            return _shown(estimate)
        case Number(value, text):
            return "" if value is None else text
        case Estimate(value=None, failed=failed):
            return f"{failed or ''} failed".strip()
        case Estimate():
            interval = f"({cell.interval})" if cell.interval else ""
            return " ".join(part for part in (cell.text, interval, MARKS[cell.verdict]) if part)
        case _:
            return cell


def _read(path: Path, kind: type = dict) -> Any:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("cannot be read", path=path, hint=_AGAIN) from error
    if not isinstance(content, kind):
        raise DataError("holds something else than an evaluation's figures", path=path, hint=_AGAIN)
    return content
