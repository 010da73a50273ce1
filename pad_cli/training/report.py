"""The training report: `report.md` and `report.html` to read, `report.json` to build them from again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from pad_cli.errors import DataError
from pad_cli.reports.markdown import escaped, section_lines
from pad_cli.system.runs import write_json, write_whole
from pad_cli.training.baselines import Verdict
from pad_cli.training.facts import SplitFacts, TrainingFacts, warnings_of
from pad_cli.training.metrics import Share
from pad_cli.training.report_content import (
    Cell,
    by_preference,
    chance,
    judgement,
    named,
    sections,
    summary,
)
from pad_cli.training.report_page import page

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pad_cli.system.terminal import FittingTable

MARKDOWN, PAGE, FACTS = "report.md", "report.html", "report.json"
"""The files of a training report."""

_ROOMY = 96  # columns that a table with intervals needs
_FEW_PREFERENCES = 12  # of a split, so that a terminal shows them
_STYLES = {"beats": "bold green", "does not beat": "bold yellow", "is worse than": "bold red"}


def write_training_report(directory: Path, facts: TrainingFacts) -> None:
    """Write the report's three files.

    Raises:
        StorageError: they cannot be written.
    """
    write_json(directory / FACTS, asdict(facts))
    write_whole(directory / MARKDOWN, markdown(facts))
    write_whole(directory / PAGE, page(facts))


def read_facts(directory: Path) -> TrainingFacts:
    """The facts of a report that was written before.

    Raises:
        DataError: `report.json` is missing, or is not a training report.
    """
    path = directory / FACTS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(TrainingFacts).validate_python(content)
    except (OSError, ValueError, ValidationError) as error:
        raise DataError("no training report can be read here", path=path, hint="Train again to write it.") from error


def markdown(facts: TrainingFacts) -> str:
    """The report as Markdown."""
    return "\n".join(_markdown(facts)).rstrip() + "\n"


def _markdown(facts: TrainingFacts) -> Iterator[str]:
    yield from (f"# {escaped(facts.name)}", "")
    for line in summary(facts):
        yield from (escaped(line), "")
    for split in facts.splits:
        before, words, after = judgement(split)
        yield f"- {escaped(before)} **{words}** {escaped(after)}"
    if facts.splits:
        yield ""
    if warnings := warnings_of(facts):
        yield from ("## Warnings", "", *(f"- {escaped(warning)}" for warning in warnings), "")
    for section in sections(facts):
        yield from section_lines(section, shown)


def shown(cell: Cell) -> str:
    """A cell as plain text."""
    if isinstance(cell, Share):
        return f"{cell.value:.3f} ({cell.low:.2f} to {cell.high:.2f})"
    if isinstance(cell, Verdict):
        return f"{cell.words} it, {cell.difference:+.3f}, {chance(cell)}"
    return cell


def console_tables(facts: TrainingFacts, width: int = 100) -> list[RenderableType]:
    """The report for a terminal of so many columns: the tables that matter most, verdicts, warnings."""
    from rich.text import Text

    parts: list[RenderableType] = []
    if facts.splits:
        parts.append(_against_baselines(facts, width))
    parts += [_preferences(split, width) for split in facts.splits if 1 < len(split.preferences) <= _FEW_PREFERENCES]
    for split in facts.splits:
        before, words, after = judgement(split)
        parts.append(Text.assemble(before, (words, _STYLES[words]), after))
    parts += [Text.assemble(("Warning: ", "bold yellow"), warning) for warning in warnings_of(facts)]
    return parts


def _against_baselines(facts: TrainingFacts, width: int) -> FittingTable:
    from rich.text import Text

    names = [baseline.name for baseline in facts.splits[0].baselines]
    table = _table("Reward model against baselines", "split")
    for column in ("pairs", "pair accuracy", "policy", "margin", *map(named, names)):
        table.add_column(column, justify="right", no_wrap=True)
    for split in facts.splits:
        theirs = (
            Text.assemble(
                f"{baseline.pair_accuracy.value:.2f}\n", (baseline.verdict.words, _STYLES[baseline.verdict.words])
            )
            for baseline in split.baselines
        )
        ours = (
            _brief(split.pair_accuracy, width),
            f"{split.policy_accuracy.value:.2f}",
            f"{split.metrics['margin']:.2f}",
        )
        table.add_row(Text(split.name), f"{split.pair_accuracy.n:,}", *map(Text, ours), *theirs)
    return table


def _preferences(split: SplitFacts, width: int) -> FittingTable:
    from rich.text import Text

    grid = by_preference(split)
    table = _table(f"By preference: {split.name}", grid.header[0])
    for column in grid.header[1:]:
        table.add_column(column, justify="right", no_wrap=column.endswith("accuracy"))
    for row in grid.rows:
        table.add_row(*(Text(_brief(cell, width) if isinstance(cell, Share) else shown(cell)) for cell in row))
    return table


def _table(title: str, first: str) -> FittingTable:
    from rich.text import Text

    from pad_cli.system.terminal import FittingTable

    table = FittingTable(
        title=Text(title), box=None, padding=(0, 1, 0, 0), header_style="bold underline", title_justify="left"
    )
    table.add_column(first, overflow="fold")
    return table


def _brief(share: Share, width: int) -> str:
    """A share, with its interval where there is room."""
    if width < _ROOMY:
        return f"{share.value:.2f}"
    return f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]"
