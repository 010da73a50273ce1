"""Tables on a narrow terminal: every word is whole, and figures that do not fit follow in a further table."""

from __future__ import annotations

import contextlib
import io
import re
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from rich.console import RenderableType

from pad_cli.bench.timing import bench_table
from pad_cli.cli.train_rm import estimate_table
from pad_cli.reports.document import terminal_table
from pad_cli.reports.evaluation_tables import fronts_table, judge_table, report_table
from pad_cli.reports.training_report import console_tables
from pad_cli.system.terminal import say_table
from pad_cli.training.estimate import Estimate, Work
from tests.evaluation.reports import report_of, scores
from tests.training.test_report import make_record


def drawn(renderable: RenderableType, width: int) -> list[str]:
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as stream:
        patch.setenv("COLUMNS", str(width))
        say_table(renderable)
    return stream.getvalue().splitlines()


def words(text: str) -> Counter[str]:
    """Those between white space and the lines of a box."""
    return Counter(re.sub(r"[\u2500-\u257f]", " ", text).split())


METHODS = ("best-of-n", "contrastive-decoding", "preference-prompting")


def evaluation_tables() -> list[RenderableType]:
    rows = [row for name in METHODS for row in scores([0.1, 0.9, 0.4], method=name, group="untrained principles")]
    return [report_table(report_of(*rows), every_preference=every) for every in (False, True)]


def training_tables() -> list[RenderableType]:
    return console_tables(make_record())


def judge_rows() -> list[RenderableType]:
    shared = {"group": "combination", "policy": "medium", "preference": "*", "guidance_weight": 1.5, "n": 1200}
    counts = {"unparsed": 12, "failed": 3, "missing": 40, "disagreed": 130, "wins": 700, "ties": 200, "losses": 300}
    interval = {"win_rate": 0.61, "low": 0.55, "high": 0.67}
    controlled = {f"length_controlled{end}": 0.5 for end in ("", "_low", "_high")}
    opponents = [{"method": "pad", "opponent": name, "opponent_weight": 0} for name in METHODS]
    pairwise = [{**shared, **counts, **interval, **controlled, **each} for each in opponents]
    return [terminal_table(judge_table({"pairwise": pairwise}))]


def sweep_tables() -> list[RenderableType]:
    place = {"method": "contrastive-decoding", "guidance_weight": 1.5, "candidates": 10, "on_front": 3}
    front = {**place, "points": 11, "hypervolume": 0.5, "low": 0.4, "high": 0.6}
    return [terminal_table(fronts_table({"fronts": [front], "reference": [0, 0]}))]


def bench_tables() -> list[RenderableType]:
    sizes = {"batch_size": 32, "prompt_tokens": 2048, "new_tokens": 128, "peak_memory_bytes": 2**36}
    times = {"ms_per_token": 260.1, "ratio_to_generate": 1.25, "ratio_low": 1.2, "ratio_high": 1.3}
    row = {"path": "speculative", **sizes, **times, "forwards_per_token": 1}
    return [bench_table({"rows": [row], "repeats": 5})]


def estimates() -> list[RenderableType]:
    names = ("hidden states", "heads stage", "encoder stage", "adapter stage", "joint stage")
    work = tuple(Work(name, 40_000, 1_230_000_000, 12_345.6, 54_000_000_000) for name in names)
    costs = Estimate("some/model", 8_000_000_000, "bfloat16", 16_000_000_000, 20_000, 40_000, work, 1_000_000_000)
    return [estimate_table(costs)]


@pytest.mark.parametrize(
    "made", [evaluation_tables, judge_rows, sweep_tables, bench_tables, estimates, training_tables]
)
def test_real_tables_at_eighty_columns_break_no_word(made: Callable[[], Sequence[RenderableType]]) -> None:
    """On a screen so wide that all is on one line, and on one of 80 columns, they show the same words."""
    for table in made():
        wide, narrow = ("\n".join(drawn(table, width)) for width in (400, 80))
        assert set(words(wide)) == set(words(narrow))
