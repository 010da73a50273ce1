"""What `pad bench` measured: a row for each path, batch size and prompt length, and a table of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pad_cli.reports.document import Column, Table, grouped, number, terminal_table
from pad_cli.system.terminal import FittingTable


@dataclass(frozen=True)
class BenchRow:
    """One decoding path at one batch size and prompt length: medians over the repeats.

    All models of the recipe stay loaded and count in the peak memory of every path. It is taken in a pass of its own
    that is not timed: of tensors on CUDA, of the whole process on Linux. On other systems it is the process's peak so
    far, which never falls and cannot tell paths apart.
    """

    path: str  # see `bench/paths.py`
    policy: str
    dtype: str
    batch_size: int  # answers decoded together
    prompt_tokens: int  # of the longest prompt
    new_tokens: int  # of each answer
    ms_per_token: float  # milliseconds to bring the whole batch one token further, prefill included
    tokens_per_second: float  # of the whole batch
    first_token_ms: float  # milliseconds until the scores of the first token are there; a draft's do not count
    ratio_to_generate: float  # time over that of `generate`, the median of the ratios of each repeat
    ratio_low: float
    ratio_high: float
    peak_memory_bytes: int
    forwards_per_token: float  # forward passes of either model's body to bring the whole batch one token further
    # Tokens of one answer that were timed in place of the whole batch, which is then an estimate from their mean; None
    # when the whole batch was timed.
    sampled_steps: int | None


def bench_table(report: dict[str, Any]) -> FittingTable:
    """The rows of `run_bench` for a terminal of 80 columns; an empty line separates the cases."""
    columns: dict[str, Column] = {
        "batch": lambda row: str(row["batch_size"]),
        "prompt": lambda row: str(row["prompt_tokens"]),
        "ms/token": number("ms_per_token", ".1f"),
        "first ms": number("first_token_ms", ".1f"),
        "ratio": number("ratio_to_generate", ".2f"),
        "range": lambda row: f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}",
        "forwards": lambda row: f"{round(row['forwards_per_token'], 2):g}",
        "MiB": lambda row: f"{row['peak_memory_bytes'] / 2**20:.0f}",
    }
    path: dict[str, Column] = {"path": lambda row: row["path"] + ("*" if row["sampled_steps"] else "")}
    cases = [Table.of(rows, path, columns) for rows in grouped(report["rows"], "batch_size", "prompt_tokens").values()]
    empty = [""] * len(cases[0].header)
    lines = [row for case in cases for row in (empty, *case.rows)][1:]
    notes = [
        f"ratio: time over that of generate, median of {report['repeats']}; range: lowest-highest",
        "MiB: peak memory, all loaded models included",
    ]
    if sampled := [row for row in report["rows"] if row["sampled_steps"]]:
        steps, tokens = sampled[0]["sampled_steps"], report["rows"][0]["new_tokens"]
        notes.append(f"* the authors' algorithm, estimated from {steps} of {tokens} tokens of one answer")
    table = terminal_table(Table(cases[0].header, lines, cases[0].align))
    table.caption, table.caption_justify = "\n".join(notes), "left"
    return table
