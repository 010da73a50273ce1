"""Running a page's blocks as a reader would: in order, in one directory, with the files that pages speak of."""

from __future__ import annotations

import difflib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documents.pages import BLOCKS, ROOT, Block, Command, commands
from tests.test_cli import pad

_DRAWN = re.compile(r"[─-╿|]")
_PROMPTS = 24
_USERS = ("ann", "bob")


def page_blocks(page: str) -> list[Block]:
    """The blocks of a page that are run."""
    return [block for block in BLOCKS if block.page == page and not block.reason]


def lay_out(directory: Path, model: Path) -> None:
    """A reader's files: the repository's data and scripts, a model, and prompts, pairs and choices."""
    for name in ("data", "benchmarks"):
        (directory / name).symlink_to(ROOT / name)
    (directory / "path" / "to").mkdir(parents=True)
    (directory / "path" / "to" / "model").symlink_to(model)
    examples = (ROOT / "data" / "examples" / "choices.jsonl").read_text(encoding="utf-8")
    (directory / "choices.jsonl").write_text(examples, encoding="utf-8")
    choices = [json.loads(line) for line in examples.splitlines()]
    _write(directory / "choices-of-users.jsonl", [{"user": name, **choice} for name in _USERS for choice in choices])
    _write(directory / "prompts.jsonl", [{"prompt": "What is chess about?"}, {"prompt": "Why should I try sailing?"}])
    _write(directory / "train.jsonl", [row for number in range(_PROMPTS) for row in _rows(number)])
    _write(directory / "dev.jsonl", [row for number in range(_PROMPTS, _PROMPTS + 8) for row in _rows(number)])


def run(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a block; where it shows what a command prints, that must be what is printed, but for rounding."""
    if block.language == "python":
        exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})
    for command in commands(block):
        printed = _run(command, monkeypatch)
        if command.output:
            assert_alike(command.output, printed)


def assert_alike(shown: str, printed: str) -> None:
    """The same words and figures, with one in five free: another processor rounds otherwise, and near ties turn."""
    shown_words, printed_words = (_DRAWN.sub(" ", text).split() for text in (shown, printed))
    alike = difflib.SequenceMatcher(None, shown_words, printed_words, autojunk=False).ratio()
    assert alike >= 0.8, f"shown:\n{shown}\nprinted:\n{printed}"


def _run(command: Command, monkeypatch: pytest.MonkeyPatch) -> str:
    program, *words = command.words
    if program == "pad":
        monkeypatch.setenv("COLUMNS", "80")
        result = pad(*words, stdin=command.stdin)
        assert result.exit_code == 0, f"{command}\n{result.output}"
        return result.stdout
    assert program == "python", f"{command}: run it, or say above its block why not"
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def _rows(number: int) -> list[dict[str, Any]]:
    """Two answers to a prompt, each the better one under its own preference."""
    prompt = f"Explain tides {number}."
    literary, academic = f"The sea breathes {number} times.", f"Tides are periodic, see part {number}."
    return [
        {"prompt": prompt, "preference": "literary", "chosen": literary, "rejected": academic},
        {"prompt": prompt, "preference": "academic", "chosen": academic, "rejected": literary},
    ]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
