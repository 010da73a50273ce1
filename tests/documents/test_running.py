"""The pages for a reader's own model work as they stand, on a tiny one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.documents.pages import BLOCKS
from tests.documents.running import assert_alike, reader

OWN_MODEL = ("docs/real-models.md", "docs/training.md")
"""Pages that need no embedded model; all others are run by tests/slow/test_documents.py."""


@pytest.mark.parametrize("page", OWN_MODEL)
def test_a_page_about_ones_own_model_runs_from_its_beginning_to_its_end(
    page: str, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reader(tmp_path, model_directory, monkeypatch) as walker:
        walker.walk(page)
    reports = list(tmp_path.glob("runs/*/report.html"))
    assert reports


def test_a_block_that_is_not_run_says_why() -> None:
    reasons = {block.unrun for block in BLOCKS if block.unrun}
    assert reasons
    assert min(map(len, reasons)) > 10


def test_what_a_page_shows_must_be_what_is_printed() -> None:
    assert_alike("│ You should borrow a camera │", "┃ You should borrow a camera ┃")
    with pytest.raises(AssertionError):
        assert_alike("You should borrow a camera first", "One may commence photography by obtaining one")
