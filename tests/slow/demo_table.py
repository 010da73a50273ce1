"""The figures of the demo's table: as documented, and of a report."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from pad_cli.reports.evaluation_tables import report_table

_PAGE = Path(__file__).parent.parent.parent / "docs" / "demo.md"
_FIGURE = re.compile(r"\d+(?:\.\d+)?")


def documented_figures() -> list[float]:
    """All numbers of the table, in reading order."""
    shown = re.search(r"```text\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    return _figures(shown[1])


def figures_of(report: dict[str, Any]) -> list[float]:
    """The same numbers of a report."""
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report_table(report))
    return _figures(console.export_text())


def _figures(text: str) -> list[float]:
    return [float(figure) for figure in _FIGURE.findall(text)]
