"""The documents as a reader walks them, on the embedded models. Run with `make test-slow`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.pages import BLOCKS, ROOT
from tests.documents.running import assert_alike, reader
from tests.documents.test_running import OWN_MODEL

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

_SHELL_OR_PYTHON = ("sh", "console", "python")
_PAGES = sorted(
    {
        block.page
        for block in BLOCKS
        if not block.unrun and block.language in _SHELL_OR_PYTHON and block.page not in OWN_MODEL
    }
)


@pytest.mark.parametrize("page", _PAGES)
def test_a_page_runs_from_its_beginning_to_its_end(
    page: str, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reader(tmp_path, model_directory, monkeypatch) as walker:
        walker.walk(page)


def test_the_picture_of_steering_shows_what_is_answered_and_pushed(tmp_path: Path) -> None:
    script, picture = ROOT / "benchmarks" / "steering_picture.py", tmp_path / "steering.svg"
    subprocess.run([sys.executable, script, "--out", picture], check=True, capture_output=True)
    assert_alike(_words(ROOT / "docs" / "images" / "steering.svg"), _words(picture))


def _words(picture: Path) -> str:
    return " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture.read_text(encoding="utf-8")))
