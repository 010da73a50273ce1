"""`make embedded`, run anew: other weights, as processors round differently, with the figures of those that ship."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.slow.demo_table import documented_figures, figures_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

ROOT = Path(__file__).parent.parent.parent
TOLERANCE = 0.06  # of any mean, or half interval, between two trainings
FOLLOWING = [
    "policies={following: {model: embedded/following}}",
    "methods=[prompt]",
    "benchmarks=[{benchmark: embedded, options: {prompts: 40, groups: [single]}}]",
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package whose models are built anew."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in ("pad_cli", "data", "recipes"):
        shutil.copytree(ROOT / folder, root / folder)
    _run(root, "-m", "pad_cli.embedded.build")
    return root


def _run(root: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(root), "PAD_HOME": str(root / "home")}
    done = subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _report(root: Path, out: Path, *overrides: str) -> dict[str, Any]:
    settings = [word for override in overrides for word in ("--set", override)]
    _run(root, "-m", "pad_cli", "eval", "embedded-eval", "--quiet", "--out", str(out), *settings)
    report: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


def test_models_built_anew_belong_to_the_sources(checkout: Path) -> None:
    program = "from pad_cli.embedded import build; print(build.__file__, build.stale_parts())"
    assert _run(checkout, "-c", program).split() == [str(checkout / "pad_cli" / "embedded" / "build.py"), "[]"]


def test_models_built_anew_reach_the_demos_figures(checkout: Path, tmp_path: Path) -> None:
    assert figures_of(_report(checkout, tmp_path)) == pytest.approx(documented_figures(), abs=TOLERANCE)


def test_a_follower_built_anew_follows_as_well(checkout: Path, tmp_path: Path) -> None:
    reports = [_report(root, tmp_path / root.name, *FOLLOWING) for root in (ROOT, checkout)]
    shipped, anew = ({(row["preference"], row["scorer"]): row["mean"] for row in each["rows"]} for each in reports)
    assert anew == pytest.approx(shipped, abs=2 * TOLERANCE)  # each of 40 answers only
