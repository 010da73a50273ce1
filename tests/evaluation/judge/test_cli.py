"""`pad judge`: what it says before it asks, what it prints, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pad_cli.cli.main import app
from tests.evaluation.judge.conftest import WriteRun
from tests.evaluation.judge.server import JudgeServer, choice, status

PAD = {f"Question {number}?": f"answer {number}" for number in range(4)}
BASE = {prompt: f"plain {text}" for prompt, text in PAD.items()}
PRICED = {"input_price": 1.0, "output_price": 4.0}


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer(lambda material: choice("first" if "plain" in material["first_answer"] else "second")) as running:
        yield running


@pytest.fixture
def run(write_run: WriteRun, server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COLUMNS", "160")
    return write_run(BASE, PAD, {"model": "tiny", "base_url": server.address, **PRICED})


def pad_judge(*arguments: Any, stdin: str | None = None) -> Result:
    result = CliRunner().invoke(app, ["judge", *map(str, arguments)], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_dry_run_says_the_cost_and_asks_nothing(run: Path, server: JudgeServer) -> None:
    result = pad_judge(run, "--dry-run")
    assert result.exit_code == 0
    assert f"8 questions to tiny at {server.address} (0 more already answered)" in result.stdout
    assert "$" in result.stdout
    row = json.loads(pad_judge(run, "--dry-run", "--json").stdout)
    assert (row["waiting"], row["requests"], row["spent_usd"]) == (8, 8, 0)
    assert server.asked == []
    assert not (run / "judge.jsonl").exists()


def test_nothing_is_asked_without_leave(run: Path, server: JudgeServer) -> None:
    result = pad_judge(run)
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert server.asked == []


def test_it_prints_win_rates_and_what_they_cost(run: Path, server: JudgeServer) -> None:
    result = pad_judge(run, "--yes")
    assert result.exit_code == 0, result.stderr
    assert "1.00" in result.stdout
    assert str(run / "judge.json") in result.stdout.replace("\n", "")
    assert "This cost $0.0014" in result.stderr  # 8 x (100 x 1 + 20 x 4) / 1e6
    assert len(server.asked) == 8


def test_answered_questions_need_no_leave_and_json_is_a_row_a_line(run: Path) -> None:
    assert pad_judge(run, "--yes", "--quiet").stderr == ""
    result = pad_judge(run, "--json")
    assert result.exit_code == 0
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(row["mode"], row["preference"], row["win_rate"]) for row in rows] == [
        ("pairwise", "*", 1.0),
        ("pairwise", "humorous", 1.0),
    ]


def test_a_spent_budget_exits_1_and_keeps_what_is_done(run: Path, server: JudgeServer) -> None:
    server.tokens = lambda body: (1500, 512)
    result = pad_judge(run, "--yes", "--max-cost", "0.02", "--set", "judge.concurrency=1")
    assert result.exit_code == 1
    assert "Stopped before $0.02" in result.stderr
    assert 0 < len(server.asked) < 8
    assert json.loads((run / "judge.json").read_text())["over_budget"]
    assert pad_judge(run, "--yes", "--max-cost", "1").exit_code == 0
    assert len(server.asked) == 8


def test_questions_without_a_reply_exit_1(run: Path, server: JudgeServer) -> None:
    server.faults.extend([status(500)] * 2)
    result = pad_judge(run, "--yes", "--set", "judge.attempts=1", "--set", "judge.concurrency=1")
    assert result.exit_code == 1
    assert "2 questions got no reply" in result.stderr
    assert pad_judge(run, "--yes").exit_code == 0


def test_a_budget_without_prices_exits_2(write_run: WriteRun) -> None:
    result = pad_judge(write_run(BASE, PAD, {"model": "tiny"}), "--max-cost", "1", "--yes")
    assert result.exit_code == 2
    assert "input_price" in result.stderr


def test_a_run_without_a_judge_or_a_key_says_what_to_do(write_run: WriteRun, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = write_run(BASE, PAD)
    missing = pad_judge(bare, "--yes")
    assert (missing.exit_code, "judge.model" in missing.stderr) == (2, True)
    monkeypatch.delenv("OPENAI_API_KEY")
    keyless = pad_judge(bare, "--yes", "--set", "judge.model=tiny")
    assert (keyless.exit_code, "OPENAI_API_KEY" in keyless.stderr) == (1, True)
