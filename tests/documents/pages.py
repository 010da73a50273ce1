"""The documents as tests read them: their fenced blocks, and the commands in these.

A block is run as it stands, in the order of its page. Where it cannot be, the line above it says so, and why:

    <!-- parsed only: REASON -->

and where it goes on until the page ends:

    <!-- in the background: REASON -->
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))

_FENCE = re.compile(r"^(```+|:::+)\s*(\S*)")
_MARK = re.compile(r"^<!-- (parsed only|in the background): (.+) -->$")
_ASSIGNMENT = re.compile(r"[A-Z_]+=")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: its file, from the root.
        line: of its fence.
        language: as the fence says.
        text: what it holds.
        unrun: why it is not run; empty where it is.
        goes_on: is it a server, which runs until the page ends?
    """

    page: str
    line: int
    language: str
    text: str
    unrun: str = ""
    goes_on: bool = False

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One command of a block.

    Attributes:
        block: where it stands.
        words: of the program that matters, the last of a pipe, without assignments before it.
        stdin: what the page pipes into it.
        output: what the page shows of it; empty where it shows nothing.
    """

    block: Block
    words: tuple[str, ...]
    stdin: str = ""
    output: str = ""

    def __str__(self) -> str:
        return f"{self.block} {shlex.join(self.words)[:60]}"


def blocks(path: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    lines = path.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence is None:
            number += 1
            continue
        end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == fence[1])
        found = _MARK.match(lines[number - 1]) if number else None
        mark, reason = found.groups() if found else ("", "")
        place, text = str(path.relative_to(ROOT)), "\n".join(lines[number + 1 : end])
        unrun = reason if mark == "parsed only" else ""
        yield Block(place, number + 1, fence[2], text, unrun, goes_on=mark == "in the background")
        number = end + 1


def commands(block: Block) -> Iterator[Command]:
    """The commands of a block of `sh` or `console`."""
    if block.language == "console":
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            line, _, output = part.partition("\n")
            yield _command(block, line, output.strip("\n"))
    elif block.language == "sh":
        statement = ""
        for line in block.text.splitlines():
            statement += line.removesuffix("\\") if line.endswith("\\") else line + "\n"
            if not line.endswith("\\") and _closed(statement):
                if statement.strip():
                    yield _command(block, statement)
                statement = ""
        assert not statement, f"{block}: a command does not end"


def outside_of_fences(path: Path) -> Iterator[str]:
    """The lines of a page that stand in no block."""
    inside = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line)
        if inside:
            inside = "" if line.strip() == inside else inside
        elif fence:
            inside = fence[1]
        else:
            yield line


def _command(block: Block, line: str, output: str = "") -> Command:
    *before, last = _split(shlex.split(line, comments=True))
    while last and _ASSIGNMENT.match(last[0]):
        last = last[1:]
    piped = " ".join(before[0][1:]) if before else ""
    assert not before or before[0][0] == "echo", f"{block}: only echo may stand before a pipe"
    return Command(block, tuple(last), piped, output)


def _split(words: list[str]) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _closed(statement: str) -> bool:
    try:
        shlex.split(statement, comments=True)
    except ValueError:
        return False
    return True


BLOCKS = [block for page in PAGES for block in blocks(page)]
COMMANDS = [command for block in BLOCKS for command in commands(block)]
