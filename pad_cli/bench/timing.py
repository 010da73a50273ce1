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

from pad_cli.bench.measure import (
    Clock,
    Written,
    check_agreement,
    clock_of,
    conditions,
    count_forwards,
    machine,
    peak_memory,
    reset_peak_memory,
    top_two,
)
from pad_cli.bench.paths import Name, Paths, PromptBatch, Watch, benchmark_prompts, random_prompts
from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.models.dtype import dtype_name
from pad_cli.prompts import load_benchmark
from pad_cli.recipe import BenchRecipe, GenerateRecipe
from pad_cli.reports.document import Column, Table, grouped, number, terminal_table
from pad_cli.system.progress import bar, stage
from pad_cli.system.terminal import FittingTable

_SAMPLED_STEPS = 4  # tokens at which `uncached` is timed: the first, the last, and evenly between
_SEED = 0  # of the order of the paths


def run_bench(recipe: BenchRecipe, on_row: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """Time every path at every batch size, and every prompt length or on the benchmark of a recipe.

    `on_row` is called with each row as soon as its batch size and prompt length are finished.

    Returns:
        `machine`, one line that says where and how time was measured; `repeats`; and `rows`, one for each path, batch
        size and prompt length. Milliseconds a token are those to bring the whole batch one token further, prefill
        included, and the ratio is over the time of `generate`: medians over the repeats. `peak_memory_bytes` counts all
        models of the recipe, and is taken in a pass that is not timed: of tensors on CUDA, of the whole process on
        Linux; elsewhere it is the process's peak so far, which cannot tell paths apart. `sampled_steps` are the tokens
        of one answer from which the time of `uncached` is estimated; None where all were timed.

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
            for row in _Case(paths, clock_of(engine.policy.device), recipe.decoding.candidates).run(recipe.repeats):
                rows.append(row)
                if on_row is not None:
                    on_row(row)
        return {"machine": machine(engine.policy), "repeats": recipe.repeats, "rows": rows}


def bench_table(report: dict[str, Any]) -> FittingTable:
    """The rows of `run_bench` for a terminal of 80 columns; an empty line separates the cases."""
    columns: dict[str, Column] = {
        "batch": lambda row: str(row["batch_size"]),
        "prompt": lambda row: str(row["prompt_tokens"]),
        "ms/token": number("ms_per_token", ".1f"),
        "ratio": number("ratio_to_generate", ".2f"),
        "range": lambda row: f"{row['ratio_low']:.2f}-{row['ratio_high']:.2f}",
        "forwards": lambda row: f"{round(row['forwards_per_token'], 2):g}",
        "MiB": lambda row: f"{row['peak_memory_bytes'] / 2**20:.0f}",
    }
    path: dict[str, Column] = {"path": lambda row: row["path"] + ("*" if row["sampled_steps"] else "")}
    cases = [Table.of(rows, path, columns) for rows in grouped(report["rows"], "batch_size", "prompt_tokens").values()]
    empty = [""] * len(cases[0].header)
    lines = [row for case in cases for row in (empty, *case.rows)][1:]
    caption = f"ratio: time over that of generate, median of {report['repeats']}; range: lowest-highest\n"
    caption += "MiB: peak memory, all loaded models included"
    if sampled := [row for row in report["rows"] if row["sampled_steps"]]:
        steps, tokens = sampled[0]["sampled_steps"], report["rows"][0]["new_tokens"]
        caption += f"\n* the authors' algorithm, estimated from {steps} of {tokens} tokens of one answer"
    table = terminal_table(Table(cases[0].header, lines, cases[0].align))
    table.caption, table.caption_justify = caption, "left"
    return table


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


class _Case:
    """One batch size and prompt length, or one batch of a benchmark's prompts."""

    def __init__(self, paths: Paths, clock: Clock, candidates: int) -> None:
        self._paths, self._clock, self._candidates = paths, clock, candidates
        count = min(_SAMPLED_STEPS, paths.new_tokens)
        self._steps: list[int] = torch.linspace(0, paths.new_tokens - 1, count).round().long().tolist()

    def run(self, repeats: int) -> list[dict[str, Any]]:
        names, batch, device = self._paths.names, self._paths.batch, self._paths.policy.device
        memory: dict[str, int] = {}
        with stage("Checking that all paths agree, and measuring their memory"):
            forwards, answer = self._check()
            for path in names:  # in a pass of its own: it disturbs the clock
                reset_peak_memory(device)
                self._time(path, answer)
                memory[path] = peak_memory(device)
        seconds: dict[str, list[float]] = {path: [] for path in names}
        order, rng = list(names), random.Random(_SEED)
        with bar(f"Timing batch {len(batch)}, prompt {batch.longest}", total=repeats * len(order)) as progress:
            for _ in range(repeats):
                rng.shuffle(order)
                for path in order:
                    seconds[path].append(self._time(path, answer))
                    progress.advance(status=path)
        return [self._row(path, seconds[path], seconds["generate"], memory[path], forwards[path]) for path in names]

    def _check(self) -> tuple[dict[str, float], list[int]]:
        """Warm up and compare; return the forwards a token of each path, and the first row's guided answer."""
        paths = self._paths
        forwards: dict[str, float] = {}
        written: dict[str, Written] = {}
        exact = {paths.policy.dtype, paths.backbone.dtype} == {torch.float32}
        for path in paths.whole:
            watch = Watch(self._candidates)
            with count_forwards(paths.policy, paths.backbone) as passes:
                tokens = paths.answer(path, watch)
            forwards[path] = len(passes) / paths.new_tokens
            written[path] = Written(path, torch.tensor(tokens), watch.top)
        check_agreement(written["generate"], written["plain"], exact=exact)
        reference = written[paths.guided[0]]
        for path in paths.guided[1:]:
            check_agreement(reference, written[path], exact=exact)
        answer: list[int] = reference.tokens[0].tolist()
        if "uncached" in paths.names:
            with count_forwards(paths.policy, paths.backbone) as passes:
                scored = [paths.uncached_step(answer[:step]) for step in self._steps]
            forwards["uncached"] = len(paths.batch) * len(passes) / len(scored)
            for step, (candidates, scores) in zip(self._steps, scored, strict=True):
                token = candidates.gather(1, scores.argmax(-1, keepdim=True)).cpu()
                here = slice(step, step + 1)
                same_step = Written(reference.path, reference.tokens[:1, here], reference.top[:1, here])
                uncached = Written("uncached", token, top_two(scores, self._candidates)[:, None])
                check_agreement(same_step, uncached, exact=exact)
        return forwards, answer

    def _time(self, path: Name, answer: list[int]) -> float:
        """Seconds of the whole batch; of `uncached` estimated from the sampled steps."""
        paths, start = self._paths, self._clock()
        if path != "uncached":
            paths.answer(path)
            return self._clock() - start
        for step in self._steps:
            paths.uncached_step(answer[:step])
        return (self._clock() - start) / len(self._steps) * paths.new_tokens * len(paths.batch)

    def _row(
        self, path: str, seconds: list[float], generate: list[float], memory: int, forwards: float
    ) -> dict[str, Any]:
        ratios = [total / reference for total, reference in zip(seconds, generate, strict=True)]
        total, length, count = statistics.median(seconds), self._paths.new_tokens, len(self._paths.batch)
        return {
            "path": path,
            "policy": self._paths.policy.name,
            "dtype": dtype_name(self._paths.policy.dtype),
            "batch_size": count,
            "prompt_tokens": self._paths.batch.longest,
            "new_tokens": length,
            "ms_per_token": 1000 * total / length,
            "tokens_per_second": count * length / total,
            "ratio_to_generate": statistics.median(ratios),
            "ratio_low": min(ratios),
            "ratio_high": max(ratios),
            "peak_memory_bytes": memory,
            "forwards_per_token": forwards,
            "sampled_steps": len(self._steps) if path == "uncached" else None,
        }
