"""Files that ship with the package: recipes, and the embedded world's text and models."""

from __future__ import annotations

from pathlib import Path

from pad_cli.errors import StorageError

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(folder: str) -> Path:
    """The directory of shipped files called `folder`: "recipes", "data", or one in them.

    An installed wheel carries it inside the package, a checkout beside it.

    Raises:
        StorageError: the installation lacks it.
    """
    for candidate in (_PACKAGE / "shipped" / folder, _PACKAGE.parent / folder):
        if candidate.is_dir():
            return candidate
    raise StorageError(f"This installation lacks its '{folder}' files.", "Reinstall the package: pip install pad-cli")
