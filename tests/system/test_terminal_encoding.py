"""Output in an encoding that lacks a character is never lost: the character is replaced, and JSON stays JSON."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from pad_cli.system.terminal import say, say_json, say_table
from tests.hostile.scripted import save_scripted

ANSWER = "Sün 日ok"


@contextlib.contextmanager
def output(encoding: str, errors: str = "strict") -> Iterator[io.TextIOWrapper]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
    with contextlib.redirect_stdout(stream):
        yield stream


def written(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode(stream.encoding)


@pytest.mark.parametrize(
    ("encoding", "errors", "shown"),
    [
        ("utf-8", "strict", "Sün 日ok"),
        ("cp1252", "strict", "Sün ?ok"),
        ("ascii", "strict", "S?n ?ok"),
        ("ascii", "surrogateescape", "S?n ?ok"),  # as Python has it in the locale C
        ("ascii", "backslashreplace", "S\\xfcn \\u65e5ok"),  # as somebody chose
    ],
)
def test_a_character_that_the_encoding_lacks_is_replaced(encoding: str, errors: str, shown: str) -> None:
    with output(encoding, errors) as stream:
        say(ANSWER)
        for piece in ("Sün", " 日", "ok"):
            say(piece, end="")
    assert written(stream) == f"{shown}\n{shown}"


@given(text=st.text(), encoding=st.sampled_from(["cp1252", "ascii", "shift_jis", "utf-16"]))
def test_json_reads_back_the_same_in_every_encoding(text: str, encoding: str) -> None:
    for errors in ("strict", "replace", "backslashreplace"):
        with output(encoding, errors) as stream:
            say_json({"text": text})
        assert json.loads(written(stream)) == {"text": text}


def test_tables_stay_in_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    table = Table("a", "b", title=ANSWER)
    table.add_row(ANSWER, Text(ANSWER * 3, overflow="ellipsis", no_wrap=True))
    table.add_row("日本", Text("x"))
    with output("ascii") as stream:
        say_table(table)
    title, *lines = written(stream).splitlines()
    assert title.strip() == "S?n ?ok"
    assert len({len(line) for line in lines}) == 1
    assert "| ?? " in written(stream)


def test_the_command_line_shows_every_answer(tmp_path: Path) -> None:
    policy, guide = save_scripted(ANSWER, ("formal",), tmp_path)
    asked = ["generate", "Hi", "--quiet", "--policy", str(policy), "--reward-model", str(guide), "--weight", "0"]
    commands = [[*asked, *more] for more in ([], ["--stream"], ["--json"], ["--compare"], ["--explain", "-"])]
    program = (
        "import json, sys\nfrom pad_cli.cli.main import app\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    try: app(command)\n"
        "    except SystemExit as end: assert not end.code\n"
        "    print('END')\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([sys.executable, "-c", program, json.dumps(commands)], capture_output=True, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    plain, streamed, as_json, compared, explained, _ = done.stdout.decode("cp1252").split("END\n")
    assert plain == streamed == "Sün ?ok\n"
    assert json.loads(as_json)["text"] == ANSWER
    assert compared.count("Sün ?ok") == 2
    assert "'k'" in explained
