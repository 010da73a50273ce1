"""Documents beside `docs/` as pages of the site, with their links made to fit."""

from __future__ import annotations

import re
from pathlib import Path

_DOCUMENTS = {
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)\s]+)\)")


def pages(root: Path) -> dict[str, str]:
    """Name to text of the pages; `project.md` lists them, and those of `docs/` that `index.md` does not name."""
    found = {name: page for name, page in _DOCUMENTS.items() if (root / name).is_file()}
    texts = {page: _LINK.sub(_moved, (root / name).read_text(encoding="utf-8")) for name, page in found.items()}
    named = (root / "docs" / "index.md").read_text(encoding="utf-8").split()
    others = sorted({path.stem for path in (root / "docs").glob("*.md")} - {"index", *named})
    listed = "\n".join([*(f"../{name}" for name in others), *(page.removesuffix(".md") for page in texts)])
    return {**texts, "project.md": f"# The project\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"}


def to_the_site(text: str) -> str:
    """A page of `docs/`, whose links to such documents lead to their pages."""
    return re.sub(
        r"\]\(\.\./([A-Z]+\.md)(#[^)]*)?\)",
        lambda link: f"](reference/{_DOCUMENTS[link[1]]}{link[2] or ''})" if link[1] in _DOCUMENTS else link[0],
        text,
    )


def _moved(link: re.Match[str]) -> str:
    """A link of a document at the root, from `docs/reference/`."""
    path, hash_, anchor = link[1].partition("#")
    if path in _DOCUMENTS:
        place = _DOCUMENTS[path]
    elif path.startswith("docs/"):
        place = f"../{path.removeprefix('docs/')}"
    else:
        place = f"../../{path}"
    return f"]({place}{hash_}{anchor})"
