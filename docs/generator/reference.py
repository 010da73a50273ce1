"""Writes the pages that come from the code into `docs/reference/`, before Sphinx reads the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from generator import api, commands, principles, project, recipes


def setup(app: Any) -> None:
    """Make it known to Sphinx."""
    app.connect("config-inited", lambda app, _: write(Path(app.srcdir) / "reference"))
    app.connect("source-read", _to_the_site)


def write(directory: Path) -> None:
    """Write every generated page whose text is not there yet, and remove pages that are no longer made."""
    pages = {
        "commands.md": commands.page(),
        "recipes.md": recipes.page(),
        "principles.md": principles.page(),
        "api.md": api.page(),
        **project.pages(directory.parent.parent),
    }
    directory.mkdir(exist_ok=True)
    for old in directory.glob("*.md"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        target = directory / name
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def _to_the_site(_: Any, document: str, text: list[str]) -> None:
    if not document.startswith("reference/"):
        text[0] = project.to_the_site(text[0])
