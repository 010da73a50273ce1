"""`pad demo` with one prompt of each preference: answers side by side, then the table, then what to type next."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from rich.cells import cell_len

from pad_cli.cli.main import app
from pad_cli.models import smollm2
from pad_cli.world import demonstration

PREFERENCES = ["embedded/medium alone", "humorous", "formal", "concise, humorous", "casual, expert", "the better"]


@pytest.fixture(autouse=True)
def _small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("_PROMPTS", "_CROSS_PROMPTS"):
        monkeypatch.setattr(demonstration, name, 1)
    monkeypatch.setattr(smollm2, "_PACKAGE", "no-such-package")  # tests/slow/test_real_model.py has it


def demo(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    with pytest.raises(SystemExit) as ended:
        app(["demo", "--quiet", *options])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_the_demo_shows_answers_then_the_table_then_what_to_type(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shown = demo(capsys)
    landmarks = ["How do I start with photography?", "the better", "held_out_topics", "cross-policy", "Report:"]
    landmarks += ["no-such-package, which is not installed", "pip install --no-deps", "Next:"]
    places = [shown.index(landmark) for landmark in landmarks]
    assert places == sorted(places)
    assert all(preference in shown[: places[2]] for preference in PREFERENCES)
    tables, commands = shown[: shown.index("Report:")], shown[shown.index("Next:") :].splitlines()[1:]
    assert max(map(cell_len, tables.splitlines())) <= 80
    assert {shlex.split(line)[0] for line in commands} == {"pad"}

    report = (tmp_path / "runs/demo/report.json").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "runs/demo/examples.jsonl").read_text().splitlines()]
    assert len({row["pad"] for row in rows} | {row["base"] for row in rows}) >= 5, "they hardly differ"
    assert demo(capsys).endswith(shown[shown.index("Next:") :])
    assert (tmp_path / "runs/demo/report.json").read_bytes() == report, "a second demo gives the same report"
