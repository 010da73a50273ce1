"""Progress: a line on a terminal that fits it, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io
import itertools
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress

from pad_cli.system import progress
from pad_cli.system.progress import bar, note, set_quiet, stage


def test_counted_work_is_one_line_at_its_end_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("Counting", total=1200) as counting:
        counting.advance(200)
        assert capsys.readouterr().err == ""
        counting.advance(1000, status="loss 0.3")
    captured = capsys.readouterr()
    assert re.fullmatch(r"Counting: 1,200 in [\d.]+ s, loss 0\.3\n", captured.err)
    assert captured.out == ""


def test_a_stage_is_not_worth_a_line_when_piped(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("Loading"):
        pass
    assert capsys.readouterr().err == ""


def test_long_work_is_reported_more_and_more_rarely_when_piped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(1)
    monkeypatch.setattr("rich.console.monotonic", lambda: float(next(clock)))
    with bar("Counting", total=300) as counting:
        for _ in range(200):
            counting.advance()
    counts = re.findall(r"^Counting: (\d+)/300, .+ left$", capsys.readouterr().err, re.MULTILINE)
    gaps = [int(after) - int(before) for before, after in itertools.pairwise(counts)]
    assert len(gaps) > 3
    assert gaps == sorted(gaps)


def test_steps_of_an_earlier_run_count_as_done_but_not_as_speed() -> None:
    clock = itertools.count(1)
    counted = Progress(get_time=lambda: float(next(clock)))
    counted.add_task("Counting", total=100, status="")
    counting = progress.Bar(counted)
    counting.skip(90)
    for _ in range(5):
        counting.advance()
    task = counted.tasks[0]
    assert task.completed == 95
    assert task.speed is not None
    assert task.speed < 1


def test_what_fails_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), bar("Counting", total=1200) as counting:  # noqa: PT012  # the block is it
        counting.advance(300)
        raise KeyboardInterrupt
    assert capsys.readouterr().err.startswith("Counting: stopped at 300 of 1,200 after ")


def test_quiet_silences_everything(capsys: pytest.CaptureFixture[str]) -> None:
    set_quiet(True)
    with bar("Counting", total=1) as counting, stage("Loading"):
        counting.advance()
        note("something")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize("total", [None, 2400])
def test_a_line_is_one_line_and_fits_the_terminal(
    width: int, total: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")  # Rich takes any dumb terminal for 80 columns wide
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    monkeypatch.setattr(sys, "stderr", console.file)
    monkeypatch.setattr(console.file, "isatty", lambda: True)
    monkeypatch.setattr(progress, "console", lambda **_: console)
    name = "Answering with a method whose name is a long one"
    with stage(name) if total is None else bar(name, total) as line:
        if line is not None:
            line.advance(120, status="loss 0.3")
        paper = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        with paper.capture() as capture:
            paper.print(progress._on_screen[0].get_renderable())
    (text,) = [each.rstrip() for each in capture.get().splitlines()]
    assert cell_len(text) <= width
    assert text.startswith("Answering"[: width // 5])


@pytest.mark.parametrize(
    ("count", "words"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (12, "12.0 s"), (65, "0:01:05"), (7400, "2:03:20")]
)
def test_durations_are_read_at_a_glance(count: float, words: str) -> None:
    assert progress.seconds(count) == words


COLOUR = r"\x1b\[[\d;]*[349]\d[\d;]*m"
WORK = """
import sys, time
from pad_cli.system import progress
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
    assert shown.splitlines()[-1].startswith("Counting: 4 in ")


def test_a_pipe_gets_no_control_codes_even_where_colour_is_forced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with bar("Counting", total=1) as counting:
        counting.advance()
    assert "\x1b" not in capsys.readouterr().err
