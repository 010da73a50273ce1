"""Tables on a narrow terminal: every line fits, every word is whole, and no table of ours is made in another way."""

from __future__ import annotations

import ast
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.text import Text

import pad_cli
from pad_cli.bench.timing import bench_table
from pad_cli.cli.train_rm import estimate_tables
from pad_cli.models.dtype import DtypeChoice
from pad_cli.reports.evaluation_tables import judge_tables, report_table, sweep_table
from pad_cli.reports.training_report import console_tables
from pad_cli.system.terminal import FittingTable
from pad_cli.training.estimate import Cost, Estimate, Volume
from tests.evaluation.reports import report_of, scores
from tests.training.test_report import make_record

WORDS = st.text("abcdefghij", min_size=1, max_size=14)
TEXTS = st.lists(WORDS, max_size=6).map(" ".join)


def drawn(renderable: RenderableType, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get().splitlines()


def words(text: str) -> Counter[str]:
    """Those between white space and the lines of a box."""
    return Counter(re.sub(r"[\u2500-\u257f]", " ", text).split())


@st.composite
def tables(draw: st.DrawFn) -> tuple[FittingTable, list[str]]:
    """A table, and the texts that it shows."""
    columns, rows = draw(st.integers(1, 8)), draw(st.integers(0, 4))
    table = FittingTable(
        title=draw(TEXTS) or None,
        caption=draw(TEXTS) or None,
        box=draw(st.sampled_from([None, box.HEAVY_HEAD])),
        padding=(0, draw(st.integers(1, 2)), 0, draw(st.integers(0, 1))),
        show_lines=draw(st.booleans()),
    )
    header = draw(st.lists(TEXTS, min_size=columns, max_size=columns))
    for number, name in enumerate(header):
        numeric = number > 1 or draw(st.booleans())
        table.add_column(name, justify="right" if number and numeric else "left", overflow="fold")
    cells = draw(st.lists(st.lists(TEXTS, min_size=columns, max_size=columns), min_size=rows, max_size=rows))
    for row in cells:
        table.add_row(*map(Text, row))
    return table, [*header, *(cell for row in cells for cell in row), str(table.title or ""), str(table.caption or "")]


@given(tables(), st.integers(56, 130))  # 56: two leading columns and another, of the longest words
def test_every_line_fits_and_every_word_is_whole(made: tuple[FittingTable, list[str]], width: int) -> None:
    table, texts = made
    lines = drawn(table, width)
    assert all(cell_len(line) <= width for line in lines)
    assert not words(" ".join(texts)) - words("\n".join(lines))


@given(st.text("abc", min_size=1, max_size=300), st.integers(20, 100))
def test_a_word_wider_than_the_terminal_is_broken_and_loses_nothing(word: str, width: int) -> None:
    table = FittingTable("name", "place", box=None)
    table.add_row("here", word)
    lines = drawn(table, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace("name", "").replace("place", "").replace("here", "").replace(" ", "") == word


def test_columns_that_do_not_fit_follow_in_a_table_with_the_leading_ones() -> None:
    table = FittingTable("method", box=None, padding=(0, 1, 0, 0), title="Title", caption="Caption")
    for name in ("preference", "accuracy", "margin"):
        table.add_column(name, justify="right")
    table.add_row("pad", "0.91", "0.82", "3.25")
    assert [line.rstrip() for line in drawn(table, 30)] == [
        "           Title",
        "method preference accuracy",
        "pad          0.91     0.82",
        "",
        "method margin",
        "pad      3.25",
        "   Caption",
    ]


METHODS = ("best-of-n", "contrastive-decoding", "preference-prompting")


def evaluation_tables() -> list[RenderableType]:
    rows = [row for name in METHODS for row in scores([0.1, 0.9, 0.4], method=name, group="untrained principles")]
    return [report_table(report_of(*rows), every_preference=every, width=80) for every in (False, True)]


def training_tables() -> list[RenderableType]:
    return list(console_tables(asdict(make_record()), 80))


def judge_rows() -> list[RenderableType]:
    shared = {"group": "combination", "policy": "medium", "preference": "*", "guidance_weight": 1.5, "n": 1200}
    counts = {"unparsed": 12, "failed": 3, "missing": 40, "disagreed": 130, "wins": 700, "ties": 200, "losses": 300}
    interval = {"win_rate": 0.61, "low": 0.55, "high": 0.67}
    controlled = {f"length_controlled{end}": 0.5 for end in ("", "_low", "_high")}
    opponents = [{"method": "pad", "opponent": name, "opponent_weight": 0} for name in METHODS]
    pairwise = [{**shared, **counts, **interval, **controlled, **each} for each in opponents]
    means = {"mean": 7.25, "low": 7.0, "high": 7.5}
    rubric = [{**shared, **counts, **means, "method": name, "dimension": "helpfulness"} for name in METHODS]
    return list(judge_tables({"pairwise": pairwise, "rubric": rubric}))


def sweep_tables() -> list[RenderableType]:
    objectives = ["enthusiastic", "informative"]
    place = {"method": "contrastive-decoding", "guidance_weight": 1.5, "candidates": 10, "on_front": 3}
    front = {**place, "points": 11, "hypervolume": 0.5, "low": 0.4, "high": 0.6, "spacing": 0.1}
    means = {f"{name} share": 0.5 for name in objectives}
    point = {**place, "weights": dict.fromkeys(objectives, 0.5), "means": means}
    named = [{"principle": name} for name in objectives]
    return [sweep_table({"objectives": named, "fronts": [front], "points": [point], "reference": [0, 0]})]


def bench_tables() -> list[RenderableType]:
    sizes = {"batch_size": 32, "prompt_tokens": 2048, "new_tokens": 128, "peak_memory_bytes": 2**36}
    times = {"ms_per_token": 260.1, "ratio_to_generate": 1.25, "ratio_low": 1.2, "ratio_high": 1.3}
    row = {"path": "speculative", **sizes, **times, "forwards_per_token": 1}
    return [bench_table({"rows": [row], "repeats": 5})]


def estimates() -> list[RenderableType]:
    names = ("hidden states", "heads stage", "encoder stage", "adapter stage", "joint stage")
    costs = tuple(Cost(name, 40_000, 1.23e9, 4.56e17, 7.89e14, {"weights": 5.4e10}) for name in names)
    volume = Volume(20_000, 40_000, 256, 256, 900, 12_000, 1000, 40, 8)
    choice = DtypeChoice(torch.float32, "no bfloat16 instructions")
    devices = ("this machine (2 cores)", "A100 80 GB", "H100 80 GB")
    seconds = {device: dict.fromkeys(names, 12_345.6) for device in devices}
    return list(estimate_tables(Estimate("some/model", 8_000_000_000, volume, costs, seconds, 1e9, choice, 4e10)))


@pytest.mark.parametrize(
    "made", [evaluation_tables, judge_rows, sweep_tables, bench_tables, estimates, training_tables]
)
def test_real_tables_at_eighty_columns_break_no_word(made: Callable[[], Sequence[RenderableType]]) -> None:
    """On a screen so wide that all is on one line, and on one of 80 columns, they show the same words."""
    for table in made():
        wide, narrow = ("\n".join(drawn(table, width)) for width in (400, 80))
        assert set(words(wide)) == set(words(narrow))
        assert all(cell_len(line) <= 80 for line in narrow.splitlines())


def test_no_table_is_made_in_another_way() -> None:
    package = Path(pad_cli.__file__).parent
    own = {package / "system" / "terminal.py", package / "system" / "progress.py"}
    for path in set(package.rglob("*.py")) - own:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.module == "rich.table"), f"{path}:{node.lineno}"
