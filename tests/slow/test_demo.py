"""The demo as a user runs it: its figures, its repetition, its interruption. Run with `make test-slow`."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from tests.slow.demo_table import documented_figures, figures_of
from tests.slow.killing import run_pad

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]

KILLS = 6


def _demo(home: Path, out: Path, stop_after: float | None = None) -> int:
    return run_pad(["demo", "--full", "--quiet", "--out", str(out)], home, stop_after, COLUMNS="100")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A finished, undisturbed demo and how long it took."""
    root = tmp_path_factory.mktemp("demo")
    start = time.monotonic()
    assert _demo(root / "home", root / "demo") == 0
    return root, time.monotonic() - start


def _mean(
    report: dict[str, Any], scorer: str, weight: float, group: str, preference: str, policy: str = "medium"
) -> Any:
    method = "pad" if weight else "base"
    wanted = (method, policy, group, preference, weight, scorer)
    keys = ("method", "policy", "group", "preference", "guidance_weight", "scorer")
    return next(row for row in report["rows"] if tuple(row[key] for key in keys) == wanted)


def test_the_demo_reaches_its_figures(demo: tuple[Path, float]) -> None:
    report = json.loads((demo[0] / "demo" / "report.json").read_text())
    rows = report["rows"]
    assert {"version", "recipe", "environment", "rows"} <= report.keys()
    assert min(row["n"] for row in rows) >= 200 or all(
        row["n"] >= 200 for row in rows if row["group"] != "cross-policy" or row["preference"] == "*"
    )
    base = [row for row in rows if row["method"] == "base" and row["scorer"] == "hit" and row["group"] == "single"]
    assert next(row["mean"] for row in base if row["preference"] == "*") <= 0.05
    single = {row["preference"]: row["mean"] for row in rows if _is(row, "single", "hit")}
    assert single.pop("*") >= 0.92
    assert min(single.values()) >= 0.75
    combined = {row["preference"]: row["mean"] for row in rows if _is(row, "combination", "all")}
    assert min(combined.values()) >= 0.70
    assert _mean(report, "hit", 1.5, "paraphrase", "*")["mean"] >= 0.85
    for group, parses, on_topic in (("single", 0.05, 0.08), ("combination", 0.10, 0.12)):
        for scorer, allowed in (("parses", parses), ("on_topic", on_topic)):
            plain, steered = (_mean(report, scorer, weight, group, "*")["mean"] for weight in (0.0, 1.5))
            assert plain - steered <= allowed
    own = _mean(report, "hit", 1.5, "single", "*")["mean"]
    for policy in ("small", "large"):
        assert abs(_mean(report, "hit", 1.5, "cross-policy", "*", policy)["mean"] - own) <= 0.08


def _is(row: dict[str, Any], group: str, scorer: str) -> bool:
    return (row["group"], row["scorer"], row["method"], row["guidance_weight"]) == (group, scorer, "pad", 1.5)


def test_the_documents_show_the_demos_table(demo: tuple[Path, float]) -> None:
    report = json.loads((demo[0] / "demo" / "report.json").read_text())
    assert figures_of(report) == pytest.approx(documented_figures(), abs=0.02)  # another processor turns near ties


def test_a_second_demo_gives_the_same_report(demo: tuple[Path, float]) -> None:
    before = (demo[0] / "demo" / "report.json").read_bytes()
    assert _demo(demo[0] / "home", demo[0] / "demo") == 0
    assert (demo[0] / "demo" / "report.json").read_bytes() == before


def test_fewer_prompts_are_a_part_of_all_of_them(demo: tuple[Path, float]) -> None:
    """After `--full`, a demo without it answers nothing anew, and the one after it gives the full report again."""
    directory = demo[0] / "demo"
    answers, report = ((directory / name).read_bytes() for name in ("answers.jsonl", "report.json"))
    assert run_pad(["demo", "--quiet", "--out", str(directory)], demo[0] / "home") == 0
    assert (directory / "answers.jsonl").read_bytes() == answers
    assert (directory / "report.json").read_bytes() != report
    assert _demo(demo[0] / "home", directory) == 0
    assert (directory / "report.json").read_bytes() == report


def test_a_demo_killed_at_random_moments_ends_in_the_same_report(demo: tuple[Path, float], tmp_path: Path) -> None:
    root, seconds = demo
    rng = random.Random(0)
    for _ in range(KILLS):
        _demo(tmp_path / "home", tmp_path / "demo", stop_after=rng.uniform(0.1, 0.6) * seconds)
    assert _demo(tmp_path / "home", tmp_path / "demo") == 0
    finished, undisturbed = (json.loads((path / "demo" / "report.json").read_text()) for path in (tmp_path, root))
    for report in (finished, undisturbed):
        report["recipe"].pop("output")
    assert finished == undisturbed
