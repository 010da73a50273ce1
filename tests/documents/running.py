"""Running a page's blocks as a reader would: in order, in one directory, with the files that pages speak of."""

from __future__ import annotations

import contextlib
import difflib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_commands import pad
from tests.documents.pages import BLOCKS, ROOT, Block, Command, commands

_ADDRESS = "http://127.0.0.1:8000"
_DRAWN = re.compile(r"[─-╿|]")
_PROMPTS = 24
_USERS = ("ann", "bob")


@contextlib.contextmanager
def reader(directory: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """A reader at work in a directory; what they started in the background ends with the block."""
    _lay_out(directory, model)
    monkeypatch.chdir(directory)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with contextlib.ExitStack() as running:
        yield Reader(running)


class Reader:
    """Runs blocks as they stand, but for the port of a server, which is one that is free.

    Args:
        running: what ends with the page.
    """

    def __init__(self, running: contextlib.ExitStack) -> None:
        self._running = running
        self._address = ""

    def walk(self, page: str) -> None:
        """Run all blocks of a page that can be run; what a block shows must be what is printed, but for rounding."""
        for block in (block for block in BLOCKS if block.page == page and not block.unrun):
            self.run(block)

    def run(self, block: Block) -> None:
        if block.language == "yaml" and (named := re.match(r"# (\w+\.yaml)\n", block.text)):
            Path(named[1]).write_text(block.text, encoding="utf-8")
        if block.language == "python":
            program = block.text.replace(_ADDRESS, self._address or _ADDRESS)
            _python(["-c", program], str(block))
        for command in commands(block):
            if block.goes_on:
                self._serve(command)
            elif command.output:
                assert_alike(command.output, _run(command))
            else:
                _run(command)

    def _serve(self, command: Command) -> None:
        """Start a server, and wait until it says where it listens."""
        words = ["0" if before == "--port" else word for before, word in pairwise(command.words)]
        process = subprocess.Popen([sys.executable, "-m", "pad_cli", *words], stderr=subprocess.PIPE, text=True)
        self._running.callback(process.communicate)
        self._running.callback(process.kill)
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"at (http://\S+)/v1", line):
                self._address = found[1]
                return
        pytest.fail(f"{command} ended")


def assert_alike(shown: str, printed: str) -> None:
    """The same words and figures, with one in five free: another processor rounds otherwise, and near ties turn."""
    shown_words, printed_words = (_DRAWN.sub(" ", text).split() for text in (shown, printed))
    alike = difflib.SequenceMatcher(None, shown_words, printed_words, autojunk=False).ratio()
    assert alike >= 0.8, f"shown:\n{shown}\nprinted:\n{printed}"


def _run(command: Command) -> str:
    program, *words = command.words
    if program == "pad":
        result = pad(*words, stdin=command.stdin)
        assert result.exit_code == 0, f"{command}\n{result.output}"
        return result.stdout
    assert program == "python", f"{command}: run it, or say above its block why not"
    return _python(words, str(command))


def _python(words: Sequence[str], told: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, f"{told}\n{done.stderr}"
    return done.stdout


def _lay_out(directory: Path, model: Path) -> None:
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
