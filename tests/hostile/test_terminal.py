"""Whatever data, names or models hold, a terminal shows it and does not obey it."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from rich.text import Text

import pad_cli
from pad_cli.system.progress import bar, note
from pad_cli.system.terminal import console, neutralised, say, say_json, say_table
from tests.hostile.budget import fuzzed
from tests.hostile.scripted import save_scripted

TITLE = "\x1b]0;evil\x07"  # renames the window
HOSTILE = (
    TITLE,
    "\x1b]52;c;ZXZpbA==\x07",  # writes the clipboard
    "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\",  # a link
    "\x1b[2J\x1b[1;1H\r\x08\x7f",
    "\x9b31m\x9d0;evil\x9c",  # the same in one character (C1)
    "\u202egnp.exe\u202c\u2066\u2069\u200f",
    "[red]plain[/red] [link=http://evil.example]here[/link] :smile:",
    "\udce9 not UTF-8",
)
MOVES = ("Cc", "Cs", "Zl", "Zp")


def obeyed(text: str) -> list[str]:
    """The characters that a terminal would obey, or that turn text around."""
    turning = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    return [letter for letter in text if letter in turning or (unicodedata.category(letter) in MOVES)]


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """Both streams on one terminal, which knows no colours."""
    both = Screen()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(both), contextlib.redirect_stderr(both):
        patch.setenv("TERM", "dumb")
        yield both


def bare(text: str) -> str:
    """Without what may steer a terminal: line ends and tabs."""
    return text.replace("\n", "").replace("\t", "")


@fuzzed
@given(text=st.text() | st.text("\x00\x07\x08\x1b\r\n\t\x7f\x9b\u202e\ud800[]8;;c\\m"), cut=st.integers(0, 20))
def test_every_control_character_becomes_a_visible_one_piece_by_piece(text: str, cut: int) -> None:
    found = neutralised(text)
    assert not obeyed(bare(found))
    assert len(found) == len(text)
    assert neutralised(found) == found
    assert neutralised(text[:cut]) + neutralised(text[cut:]) == found
    found.encode()


def test_text_of_all_languages_stays_as_it_is() -> None:
    for text in ("plain\n\ttext", "naïve café", "日本語", "שלום", "👩‍👩‍👧", "a\u0301"):
        assert neutralised(text) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_every_way_to_print_is_safe(text: str) -> None:
    table = Table(text, title=text, caption=text)
    table.add_row(text)
    table.add_row(Text(text))
    with screen() as stream:
        say(text)
        say(text, stderr=True)
        note(text)
        with bar(text, total=2) as progress:
            progress.advance(1, status=text)
        say_table(table, Text.assemble((text, "bold")), text)
    assert not obeyed(bare(stream.getvalue()))
    assert neutralised(text) in stream.getvalue()


def test_markup_in_data_is_text() -> None:
    text = "[bold]b[/bold] [link=x]y[/link] :smile:"
    table = Table(text, title=text)
    table.add_row(text)
    with screen() as stream, bar(text, total=1):
        say_table(table, text)
    assert stream.getvalue().count(text) >= 5


def test_a_links_address_never_becomes_a_terminals_link(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Text("[link=http://evil.example]x[/link]\x1b]8;;http://evil.example\x1b\\", style="bold")
    with screen() as stream:
        monkeypatch.setenv("TERM", "xterm-256color")
        say_table(text)
    assert "\x1b]" not in stream.getvalue()
    assert "\x1b[1m" in stream.getvalue(), "our own styles are obeyed"


def test_borders_of_tables_stay_in_line_around_hostile_cells() -> None:
    table = Table("a", "b")
    for text in ("x", TITLE, "\x9b31m"):
        table.add_row(Text(text), text)
    with screen() as stream:
        say_table(table)
    assert len({len(line) for line in stream.getvalue().splitlines()}) == 1


def test_a_result_in_a_pipe_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    text = "\x1b[31m\r\n\x9b\u202e"
    say(text, end="")
    assert capsys.readouterr().out == text
    say("a\ud800b", end="")
    assert capsys.readouterr().out == "a\ufffdb", "what no file can hold is replaced"


@fuzzed
@given(text=st.text() | st.sampled_from(HOSTILE))
def test_json_is_one_safe_line_that_reads_back_the_same(text: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        say_json({text: text})
    assert json.loads(stream.getvalue()) == {text: text}
    assert stream.getvalue().endswith("}\n")
    assert not obeyed(stream.getvalue()[:-1])


def test_nothing_but_these_functions_prints() -> None:
    """A bare `print`, or a console of Rich's own, would let control characters through."""
    package = Path(pad_cli.__file__).parent
    for path in package.rglob("*.py"):
        if "shipped" in path.parts or path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "Console"), f"{path}:{node.lineno}"


def test_the_consoles_are_never_richs_own() -> None:
    assert type(console()) is not Console
    assert type(console(stderr=True)) is not Console


Run = Callable[..., str]


@pytest.fixture(scope="module")
def on_terminal(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs several commands of `pad` one after the other in a real terminal, and gives what it was sent."""
    directory = tmp_path_factory.mktemp("terminal")

    def run(*commands: list[str]) -> str:
        program = (
            "import json, sys\nfrom pad_cli.cli.main import app\n"
            "for command in json.loads(sys.argv[1]):\n"
            "    try: app(command)\n"
            "    except SystemExit as end: print('EXIT', end.code)\n"
        )
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
        with subprocess.Popen(
            [sys.executable, "-c", program, json.dumps(commands)],
            cwd=directory,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            sent = bytearray()
            while True:
                try:
                    part = os.read(ours, 65536)
                except OSError:  # how Linux says that the other side has closed
                    break
                if not part:
                    break
                sent += part
        os.close(ours)
        assert process.returncode == 0, sent.decode(errors="replace")
        return sent.decode().replace("\r\n", "\n")

    return run


def test_commands_on_a_terminal_send_it_nothing_to_obey(on_terminal: Run, tmp_path: Path) -> None:
    names = ("humorous", f"{TITLE}evil", "[red]formal[/red]")
    policy, guide = save_scripted(TITLE, names, tmp_path)
    (tmp_path / "bad.yaml").write_text('kind: "\\e]0;evil\\a"\n')
    lines = {"prompt": f"{TITLE} one", "chosen": f"{TITLE} a", "rejected": "\x9b31m b"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(lines) + "\n")
    models = ["--policy", str(policy), "--reward-model", str(guide), "-p", "humorous", "-q"]
    sent = on_terminal(
        ["generate", "hi", *models],
        ["generate", "hi", *models, "--stream"],
        ["generate", "hi", *models, "--compare"],
        ["generate", "hi", *models, "--json"],
        ["generate", "hi", *models, "--explain", "-"],
        ["generate", "hi", "--set", f"policy.{TITLE}=1"],
        ["generate", "hi", *models, "-p", f"{TITLE}=x"],
        ["inspect", str(guide)],
        ["prefs", "list", "--reward-model", str(guide)],
        ["prefs", "test", "humorous", *models[:4], "--prompts", str(tmp_path / "rows.jsonl"), "-q"],
        ["learn", "me", str(tmp_path / "rows.jsonl"), "--reward-model", str(guide)],
        ["recipe", "show", str(tmp_path / "bad.yaml")],
        ["recipe", "check", str(tmp_path / "bad.yaml")],
        ["inspect", f"{TITLE}\x9b31m"],
    )
    assert "Traceback" not in sent
    assert sent.count("␛]0;evil") >= 12, "names and answers were shown"
    assert not obeyed(bare(sent))
    assert "[red]formal[/red]" in sent


def test_an_answer_in_a_pipe_is_what_the_model_wrote(tmp_path: Path, capfd: Any) -> None:
    from tests.cli.test_commands import pad

    policy, guide = save_scripted(TITLE, ("humorous",), tmp_path)
    models = ["--policy", str(policy), "--reward-model", str(guide), "-p", "humorous", "-q"]
    assert pad("generate", "hi", *models).stdout == f"{TITLE}\n"
    assert pad("generate", "hi", *models, "--stream").stdout == f"{TITLE}\n"
