"""`run_bench`: every path timed side by side in one process, once they agree on what they write.

Each repeat runs every path once, in shuffled order, and ratios are taken inside a repeat, so that a busy machine slows
all paths alike.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from rich.console import Group
from rich.text import Text

from pad_cli.bench.measure import Written, check_agreement, clock_of, conditions, count_forwards, machine
from pad_cli.bench.paths import Name, Paths, PromptBatch, Watch, benchmark_prompts, random_prompts
from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.models.dtype import dtype_name
from pad_cli.prompts import load_benchmark
from pad_cli.recipe import BenchRecipe, GenerateRecipe
from pad_cli.reports.document import Column, Table, grouped, number, terminal_table
from pad_cli.system.progress import bar, stage

_SEED = 0  # of the order of the paths


def run_bench(recipe: BenchRecipe, on_row: Callable[[dict[str, Any]], object] = lambda row: None) -> dict[str, Any]:
    """Time every path at every batch size, and every prompt length or on the benchmark of a recipe.

    `on_row` is called with each row as soon as its batch size and prompt length are finished.

    Returns:
        `machine`, one line that says where and how time was measured; `repeats`; and `rows`, one for each path, batch
        size and prompt length. Milliseconds a token are those to bring the whole batch one token further, prefill
        included, and the ratio is over the time of `generate`: medians over the repeats. `peak_memory_bytes` counts the
        tensors of all models, and is taken in a pass that is not timed; None elsewhere than on CUDA.

    Raises:
        PadError: two paths do not agree; or these models cannot take the path or the number of tokens of the recipe,
            or do not fit its benchmark.
    """
    engine = PadEngine.from_recipe(
        GenerateRecipe(kind="generate", policy=recipe.policy, reward_model=recipe.reward_model)
    )
    cases = [Paths(engine, recipe.decoding, batch, recipe.new_tokens) for batch in _batches(engine, recipe)]
    for paths in cases:
        _check_length(paths)
    with conditions(engine.policy, recipe.threads):
        rows: list[dict[str, Any]] = []
        for paths in cases:
            for row in _measure(paths, recipe):
                rows.append(row)
                on_row(row)
        return {"machine": machine(engine.policy), "repeats": recipe.repeats, "rows": rows}


def bench_table(report: dict[str, Any]) -> Group:
    """The rows of `run_bench` for a terminal of 80 columns; an empty line separates the cases."""
    columns: dict[str, Column] = {
        "batch": lambda row: str(row["batch_size"]),
        "prompt": lambda row: str(row["prompt_tokens"]),
        "ms/token": number("ms_per_token", ".1f"),
        "ratio": number("ratio_to_generate", ".2f"),
        "range": lambda row: f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}",
        "forwards": lambda row: f"{round(row['forwards_per_token'], 2):g}",
    }
    if report["rows"][0]["peak_memory_bytes"] is not None:
        columns["MiB"] = lambda row: f"{row['peak_memory_bytes'] / 2**20:.0f}"
    groups = grouped(report["rows"], "batch_size", "prompt_tokens").values()
    cases = [Table.of(rows, {"path": "path"}, columns) for rows in groups]
    empty = [""] * len(cases[0].header)
    lines = [row for case in cases for row in (empty, *case.rows)][1:]
    table = terminal_table(Table(cases[0].header, lines, cases[0].align))
    caption = f"ratio: time over that of generate, median of {report['repeats']}; range: lowest-highest"
    return Group(table, Text(caption, style="dim italic"))


def _batches(engine: PadEngine, recipe: BenchRecipe) -> Iterator[PromptBatch]:
    items = None if recipe.benchmark is None else load_benchmark(recipe.benchmark)
    for batch_size in recipe.batch_sizes:
        if items is not None:
            yield benchmark_prompts(engine, items, batch_size)
        else:
            yield from (random_prompts(engine, batch_size, length) for length in recipe.prompt_tokens)


def _check_length(paths: Paths) -> None:
    for model, prompts in ((paths.policy, paths.batch.prompts), (paths.backbone, paths.batch.backbone_prompts)):
        length = max(map(len, prompts)) + paths.new_tokens
        if model.context_length is not None and length > model.context_length:
            raise UsageError(
                f"{length} tokens of prompt and answer are too many for '{model.name}', which reads "
                f"{model.context_length}.",
                "Lower prompt_tokens or new_tokens.",
            )


def _measure(paths: Paths, recipe: BenchRecipe) -> list[dict[str, Any]]:
    """The rows of one batch size and prompt length, or of one batch of a benchmark's prompts."""
    clock = clock_of(paths.policy.device)
    with stage("Checking that all paths agree"):
        warm_up = _check(paths, recipe.decoding.candidates)
    seconds: dict[Name, list[float]] = {path: [] for path in paths.names}
    order, rng = list(paths.names), random.Random(_SEED)
    title = f"Timing batch {len(paths.batch)}, prompt {paths.batch.longest}"
    with bar(title, total=recipe.repeats * len(order)) as progress:
        for _ in range(recipe.repeats):
            rng.shuffle(order)
            for path in order:
                start = clock()
                paths.answer(path)
                seconds[path].append(clock() - start)
                progress.advance(status=path)
    return [{**_row(paths, path, seconds), **warm_up[path]} for path in paths.names]


def _check(paths: Paths, candidates: int) -> dict[Name, dict[str, Any]]:
    """Warm up and compare all paths; return the forwards a token of each, and on CUDA its peak memory."""
    on_gpu = paths.policy.device.type == "cuda"
    counts: dict[Name, dict[str, Any]] = {}
    written: dict[Name, Written] = {}
    for path in paths.names:
        watch = Watch(candidates)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(paths.policy.device)
        with count_forwards(paths.policy, paths.backbone) as passes:
            tokens = paths.answer(path, watch)
        peak = torch.cuda.max_memory_allocated(paths.policy.device) if on_gpu else None
        counts[path] = {"forwards_per_token": len(passes) / paths.new_tokens, "peak_memory_bytes": peak}
        written[path] = Written(path, torch.tensor(tokens), watch.top)
    exact = {paths.policy.dtype, paths.backbone.dtype} == {torch.float32}
    check_agreement(written["generate"], written["plain"], exact=exact)
    for path in paths.guided[1:]:
        check_agreement(written[paths.guided[0]], written[path], exact=exact)
    return counts


def _row(paths: Paths, path: Name, seconds: dict[Name, list[float]]) -> dict[str, Any]:
    ratios = [time / reference for time, reference in zip(seconds[path], seconds["generate"], strict=True)]
    median = statistics.median(seconds[path])
    return {
        "path": path,
        "policy": paths.policy.name,
        "dtype": dtype_name(paths.policy.dtype),
        "batch_size": len(paths.batch),
        "prompt_tokens": paths.batch.longest,
        "new_tokens": paths.new_tokens,
        "ms_per_token": 1000 * median / paths.new_tokens,
        "tokens_per_second": len(paths.batch) * paths.new_tokens / median,
        "ratio_to_generate": statistics.median(ratios),
        "ratio_low": min(ratios),
        "ratio_high": max(ratios),
    }
