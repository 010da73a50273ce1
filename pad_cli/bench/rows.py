"""What `pad bench` found: a row for each path, batch size and prompt length, and a table of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pad_cli.system.terminal import FittingTable


@dataclass(frozen=True)
class BenchRow:
    """One path at one batch size and prompt length: medians over the repeats.

    Attributes:
        path: see `benchmarking/paths.py`.
        policy: its name.
        dtype: number format of the policy.
        batch_size: answers decoded together.
        prompt_tokens: tokens of the longest prompt.
        new_tokens: tokens of each answer.
        ms_per_token: milliseconds to bring the whole batch one token further, reading the prompts included.
        tokens_per_second: of the whole batch.
        first_token_ms: milliseconds until the scores of the first token are there; a draft's do not count.
        ratio_to_generate: time over that of `generate`, the median of the ratios of each repeat.
        ratio_low: the lowest of them.
        ratio_high: the highest.
        peak_memory_bytes: the most that this path held, in a pass of its own that is not timed: of tensors on CUDA, of
            the whole process on Linux. All models of the recipe stay loaded, so every path's peak holds all of them,
            those that it does not use too: paths differ by their caches and scratch space. On other systems it is the
            process's peak so far, which never falls and cannot tell paths apart.
        forwards_per_token: forward passes of either model's body to bring the whole batch one token further.
        sampled_steps: how many tokens of one answer were timed in place of the whole batch, which is then an estimate:
            their mean, for every token of every answer; None when the whole batch was timed.
    """

    path: str
    policy: str
    dtype: str
    batch_size: int
    prompt_tokens: int
    new_tokens: int
    ms_per_token: float
    tokens_per_second: float
    first_token_ms: float
    ratio_to_generate: float
    ratio_low: float
    ratio_high: float
    peak_memory_bytes: int
    forwards_per_token: float
    sampled_steps: int | None


def bench_table(report: dict[str, Any]) -> FittingTable:
    """The rows of `run_bench` for a terminal of 80 columns."""
    table = FittingTable("path", box=None, padding=(0, 1, 0, 0), header_style="bold underline")
    for name in ("batch", "prompt", "ms/token", "first ms", "ratio", "range", "forwards", "MiB"):
        table.add_column(name, justify="right")
    shown = None
    for row in report["rows"]:
        case = (row["batch_size"], row["prompt_tokens"])
        if shown not in (None, case):
            table.add_row()
        shown = case
        table.add_row(
            row["path"] + ("*" if row["sampled_steps"] else ""),
            *map(str, case),
            *(f"{row[name]:.1f}" for name in ("ms_per_token", "first_token_ms")),
            f"{row['ratio_to_generate']:.2f}",
            f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}",
            f"{round(row['forwards_per_token'], 2):g}",
            f"{row['peak_memory_bytes'] / 2**20:.0f}",
        )
    table.caption = "\n".join(_notes(report))
    table.caption_justify = "left"
    return table


def _notes(report: dict[str, Any]) -> list[str]:
    """What to know to read the table: a line each."""
    notes = [f"ratio: time over that of generate, median of {report['repeats']}; range: lowest-highest"]
    notes.append("MiB: peak memory, all loaded models included")
    steps = next((row["sampled_steps"] for row in report["rows"] if row["sampled_steps"]), None)
    if steps is not None:
        tokens = report["rows"][0]["new_tokens"]
        notes.append(f"* the authors' algorithm, estimated from {steps} of {tokens} tokens of one answer")
    return notes
