"""No command replaces what pad did not write, unless it is told --overwrite; all refuse before they load a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pad_cli.cli.main import app

NOTES = "months of notes"
NOWHERE = ["--reward-model", "no-such-directory"]  # another error than the expected one would be about this


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    assert result.exit_code == 2, result.output
    return " ".join(result.stderr.split())


@pytest.mark.parametrize(
    "command",
    [
        ["train-rm", "real-local", "--set", "backbone.model=no-such-directory", "--set", "data.train=none.jsonl"],
        ["eval", "embedded-eval", "--set", "reward_model=no-such-directory"],
        ["sweep", "embedded-sweep", "--set", "reward_model=no-such-directory"],
        ["reproduce"],
        ["demo"],
        ["export", "--pref", "humorous", *NOWHERE],
    ],
    ids=lambda command: command[0],
)
def test_a_directory_with_other_files_is_refused_whichever_command_writes_it(
    tmp_path: Path, command: list[str]
) -> None:
    notes = tmp_path / "README.md"
    notes.write_text(NOTES)
    assert "--overwrite" in refused(*command, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]
    assert notes.read_text() == NOTES


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "Hi", "--pref", "humorous", *NOWHERE, "--explain"],
        ["generate", "--file", "prompts.jsonl", *NOWHERE, "--out"],
        ["learn", "me", "choices.jsonl", *NOWHERE, "--out"],
        ["learn", "--users", "choices.jsonl", *NOWHERE, "--out"],
    ],
    ids=" ".join,
)
def test_a_file_of_another_kind_is_refused_whichever_command_writes_it(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "notes"
    file.write_text(NOTES)
    assert "--overwrite" in refused(*command, file)
    assert file.read_text() == NOTES


def test_output_of_one_command_is_not_replaced_by_another(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"kind": "eval"}))
    (tmp_path / "report.json").write_text("{}")
    command = ["train-rm", "real-local", "--set", "backbone.model=none", "--set", "data.train=none.jsonl"]
    assert "is no reward model of pad train-rm" in refused(*command, "--out", tmp_path)


def test_what_version_0_1_left_is_known_by_its_own_files(tmp_path: Path) -> None:
    """What follows the check is refused for another reason: there are no such data."""
    (tmp_path / ".work").mkdir()
    (tmp_path / "README.md").write_text("half a model card")
    command = ["train-rm", "real-local", "--set", "backbone.model=none", "--set", "data.train=none.jsonl"]
    assert "none.jsonl" in refused(*command, "--out", tmp_path)
    (tmp_path / ".work").rmdir()
    (tmp_path / "pad_config.json").write_text("{}")
    (tmp_path / "recipe.json").write_text(json.dumps({"kind": "train-rm"}))
    assert "none.jsonl" in refused(*command, "--out", tmp_path)


def test_overwrite_goes_on_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(NOTES)
    command = ["train-rm", "real-local", "--set", "backbone.model=none", "--set", "data.train=none.jsonl"]
    assert "none.jsonl" in refused(*command, "--out", tmp_path, "--overwrite")
