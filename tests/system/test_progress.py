"""Progress: a line on a terminal that fits it, one line at the end elsewhere, nothing when quiet."""

from __future__ import annotations

import importlib
import io
import os
import pty
import re
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress

import pad_cli
from pad_cli.system import progress
from pad_cli.system.progress import bar, note, set_quiet, stage
from pad_cli.system.progress_line import Line, fitting, seconds, told

PARTS = {"count": "120/2,400", "rate": "387/s", "time": "0:06 left", "memory": "512 MB", "status": "loss 0.3"}


def test_counted_work_is_one_line_at_its_end_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("Counting", total=1200) as counting:
        counting.advance(200)
        assert capsys.readouterr().err == ""
        counting.advance(1000, status="loss 0.3")
    said = capsys.readouterr()
    assert re.fullmatch(r"Counting: 1,200 in [\d.]+ s(, [\d.,]+/s)?, [\d.]+ [MG]B, loss 0\.3\n", said.err)
    assert said.out == ""


def test_a_short_stage_is_not_worth_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("Loading"):
        pass
    assert capsys.readouterr().err == ""


def test_a_longer_stage_is_one_line_at_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_SHORT", 0.0)
    with stage("Loading"):
        pass
    assert re.fullmatch(r"Loading: [\d.]+ s, [\d.]+ [MG]B\n", capsys.readouterr().err)


def test_long_work_is_told_again_and_again_when_piped(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, heard = io.StringIO(), threading.Event()
    write = lines.write

    def hear(text: str) -> int:
        heard.set()
        return write(text)

    monkeypatch.setattr(lines, "write", hear)
    monkeypatch.setattr(sys, "stderr", lines)
    monkeypatch.setattr(progress, "_FIRST", 0.01)
    monkeypatch.setattr(progress, "_AGAIN", 0.01)
    with bar("Counting", total=4) as counting:
        counting.advance()
        for _ in range(2):
            assert heard.wait(60)
            heard.clear()
    lines_said = lines.getvalue().splitlines()
    assert all(re.fullmatch(r"Counting: 1/4, .+ [MG]B", line) for line in lines_said[:-1])


def test_a_pipe_hears_of_the_first_batch_when_it_is_done_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = io.StringIO()
    monkeypatch.setattr(sys, "stderr", lines)
    monkeypatch.setattr(progress, "_FIRST", 0.0)
    monkeypatch.setattr(progress, "_SOON", 60.0)
    with bar("Counting", total=4) as counting:
        assert not counting.begun.wait(0.05)
        assert lines.getvalue() == ""
        counting.advance()
        while not lines.getvalue():
            counting.begun.wait(0.01)
    assert lines.getvalue().startswith("Counting: 1/4, ")


def test_steps_of_an_earlier_run_count_as_done_but_not_as_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Progress()
    task = counted.add_task("Counting", total=100, status="", before=0)
    counting = progress.Bar(counted, task)
    counting.skip(90)
    monkeypatch.setattr(counted.tasks[0], "start_time", counted.get_time() - 9.9)
    counting.advance(5)
    parts = told(counted.tasks[0])
    assert parts["count"] == "95/100"
    assert parts["rate"] == "2.0 s each"
    assert parts["time"] == "10 s left"


def test_what_fails_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), bar("Counting", total=1200) as counting:  # noqa: PT012  # the block is it
        counting.advance(300)
        raise KeyboardInterrupt
    assert capsys.readouterr().err.startswith("Counting: stopped at 300 of 1,200 after ")


def test_quiet_silences_talk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SHORT", 0.0)
    set_quiet(True)
    with bar("Counting", total=1) as counting, stage("Loading"):
        counting.advance()
        note("something")
    assert capsys.readouterr().err == ""


@settings(deadline=None)
@given(st.text(max_size=60), st.integers(min_value=1, max_value=200))
def test_what_fits_is_kept_and_the_time_always_is(name: str, width: int) -> None:
    kept = fitting(name, PARTS, width)
    wide = min(cell_len(name), 20) + sum(2 + cell_len(text) for text in kept.values())
    assert "time" in kept
    assert wide <= width or set(kept) == {"time"}
    assert set(kept) == set(PARTS) or min(cell_len(name), 20) + sum(2 + cell_len(t) for t in PARTS.values()) > width


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("total", [None, 2400])
def test_a_line_is_one_line_and_fits_the_terminal(
    width: int, total: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")  # Rich takes any dumb terminal for 80 columns wide
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    name = "Answering with a method whose name is a long one"
    counted = Progress(Line(console), console=console)
    counted.update(counted.add_task(name, total=total, status="loss 0.3"), completed=120)
    lines = [line.rstrip() for line in _written(console, counted)]
    assert len(lines) == 1
    assert cell_len(lines[0]) < width
    assert lines[0].startswith("Answering with")
    assert ("2,400" in lines[0]) == (total is not None and width >= 40)


def _written(console: Console, counted: Progress) -> list[str]:
    with console.capture() as capture:
        console.print(counted.get_renderable())
    return capture.get().splitlines()


@pytest.mark.parametrize(
    ("count", "words"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (12, "12 s"), (65, "1:05"), (7400, "2:03:20")]
)
def test_durations_are_read_at_a_glance(count: float, words: str) -> None:
    assert seconds(count) == words


COLOUR = r"\x1b\[[\d;]*[349]\d[\d;]*m"
WORK = """
import sys, time
from pad_cli.system import progress
progress._PATIENCE = 0.01
with progress.bar("Counting", 4) as counting:
    for step in range(4):
        time.sleep(0.1)
        counting.advance()
        if step == 1:
            print("a result", flush=True)
            progress.note("by the way")
"""


def on_terminal(**environment: str) -> tuple[str, str]:
    """What goes to a terminal of 80 columns, which is stderr, and what goes to stdout, which is a pipe."""
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    variables = {**inherited, "TERM": "xterm", "COLUMNS": "80", **environment}
    with subprocess.Popen([sys.executable, "-c", WORK], stdout=subprocess.PIPE, stderr=theirs, env=variables) as done:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # how Linux says that the other side is closed
            pass
        assert done.stdout is not None
        result = done.stdout.read().decode()
    os.close(ours)
    assert done.returncode == 0, shown
    return shown.decode(), result


def test_a_terminal_shows_a_line_that_moves_and_the_result_goes_its_own_way() -> None:
    shown, result = on_terminal()
    assert "Counting" in shown
    assert "4/4" in shown
    assert re.search("[MG]B", shown)
    assert "\x1b[2Kby the way\r\n" in shown, "it must stand above the line, not behind it"
    assert result == "a result\n"


def test_no_color_leaves_no_colour() -> None:
    shown, _ = on_terminal(NO_COLOR="1")
    assert "4/4" in shown
    assert not re.search(COLOUR, shown)
    assert re.search(COLOUR, on_terminal()[0])


def test_a_dumb_terminal_gets_lines_without_control_codes() -> None:
    shown, _ = on_terminal(TERM="dumb")
    assert "\x1b" not in shown
    assert shown.count("Counting") == 1
    assert "Counting: 4 in " in shown


def test_a_pipe_gets_no_control_codes_even_where_colour_is_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bar("Counting", total=1) as counting:
        counting.advance()
    assert "\x1b" not in capsys.readouterr().err


def test_imports_that_bring_torch_are_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []

    def around() -> object:
        shown.append("import")
        return stage("Importing")

    monkeypatch.setattr(pad_cli, "_around_imports", around)
    for name in ("pad_cli.profiles", "pad_cli.decoding.heat_map"):
        importlib.import_module(name)
        monkeypatch.delitem(sys.modules, name)
    assert pad_cli.profile_names is not None
    assert shown == [], "nothing heavy was imported"
    for _ in range(2):
        assert pad_cli.heat_map is not None
    assert shown == ["import"]
