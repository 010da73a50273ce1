"""`run_bench`: every path timed side by side in one process, once they agree on what they write.

Each repeat runs every path once, in shuffled order, and ratios are taken inside a repeat, so that a busy machine slows
all paths alike.
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict
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
from pad_cli.bench.rows import BenchRow
from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.models.dtype import dtype_name
from pad_cli.prompts import load_benchmark
from pad_cli.recipe import BenchRecipe, GenerateRecipe
from pad_cli.system.progress import bar

_SAMPLED_STEPS = 4  # tokens at which `uncached` is timed: the first, the last, and evenly between
_SEED = 0  # of the order of the paths


def run_bench(recipe: BenchRecipe, on_row: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """Time every path at every batch size, and every prompt length or on the benchmark of a recipe.

    `on_row` is called with each row as soon as its batch size and prompt length are finished.

    Returns:
        `machine`, one line that says where and how time was measured; `repeats`; and `rows`, each a `BenchRow` as a
        mapping.

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
        clock = clock_of(engine.policy.device)
        rows = []
        for paths in cases:
            for row in _Case(paths, clock, recipe.decoding.candidates).run(recipe.repeats):
                rows.append(asdict(row))
                if on_row is not None:
                    on_row(rows[-1])
        return {"machine": machine(engine.policy), "repeats": recipe.repeats, "rows": rows}


def _batches(engine: PadEngine, recipe: BenchRecipe) -> Iterator[PromptBatch]:
    items = None if recipe.benchmark is None else load_benchmark(recipe.benchmark)
    for batch_size in recipe.batch_sizes:
        if items is not None:
            yield benchmark_prompts(engine, items, batch_size)
        else:
            yield from (random_prompts(engine, batch_size, length) for length in recipe.prompt_tokens)


def _check_length(paths: Paths) -> None:
    batch = paths.batch
    for model, prompts in ((paths.policy, batch.prompts), (paths.backbone, batch.backbone_prompts)):
        length = max(map(len, prompts)) + paths.new_tokens
        longest = model.context_length
        if longest is not None and length > longest:
            raise UsageError(
                f"{length} tokens of prompt and answer are too many for '{model.name}', which reads {longest}.",
                "Lower prompt_tokens or new_tokens.",
            )


class _Case:
    """One batch size and prompt length, or one batch of a benchmark's prompts."""

    def __init__(self, paths: Paths, clock: Clock, candidates: int) -> None:
        self._paths, self._clock, self._candidates = paths, clock, candidates
        count = min(_SAMPLED_STEPS, paths.new_tokens)
        self._steps: list[int] = torch.linspace(0, paths.new_tokens - 1, count).round().long().tolist()

    def run(self, repeats: int) -> list[BenchRow]:
        names, batch = self._paths.names, self._paths.batch
        with bar("Checking that all paths agree", total=len(names)) as progress:
            forwards, answer = self._check(progress.advance)
        memory: dict[str, int] = {}
        with bar("Measuring memory", total=len(names)) as progress:
            for path in names:  # in a pass of its own: it disturbs the clock
                reset_peak_memory(self._paths.policy.device)
                self._time(path, answer)
                memory[path] = peak_memory(self._paths.policy.device)
                progress.advance(status=path)
        seconds: dict[str, list[tuple[float, float]]] = {path: [] for path in names}
        order, rng = list(names), random.Random(_SEED)
        with bar(f"Timing batch {len(batch)}, prompt {batch.longest}", total=repeats * len(order)) as progress:
            for _ in range(repeats):
                rng.shuffle(order)
                for path in order:
                    seconds[path].append(self._time(path, answer))
                    progress.advance(status=path)
        return [self._row(path, seconds[path], seconds["generate"], memory[path], forwards[path]) for path in names]

    def _check(self, advance: Callable[[], None]) -> tuple[dict[str, float], list[int]]:
        """Warm up and compare; return the forwards a token of each path, and the first row's guided answer."""
        paths = self._paths
        forwards: dict[str, float] = {}
        written: dict[str, Written] = {}
        exact = {paths.policy.dtype, paths.backbone.dtype} == {torch.float32}
        for path in paths.whole:
            watch = Watch(self._clock, self._candidates)
            with count_forwards(paths.policy, paths.backbone) as passes:
                tokens = paths.answer(path, watch)
            forwards[path] = len(passes) / paths.new_tokens
            written[path] = Written(path, torch.tensor(tokens), watch.top)
            advance()
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
            advance()
        return forwards, answer

    def _time(self, path: Name, answer: list[int]) -> tuple[float, float]:
        """Seconds of the whole batch, and until its first scores; of `uncached` estimated from the sampled steps."""
        paths, clock = self._paths, self._clock
        if path == "uncached":
            times = [clock()]
            for step in self._steps:
                paths.uncached_step(answer[:step])
                times.append(clock())
            seconds = [after - before for before, after in itertools.pairwise(times)]
            return statistics.fmean(seconds) * paths.new_tokens * len(paths.batch), seconds[0]
        watch = Watch(clock)
        start = clock()
        paths.answer(path, watch)
        end = clock()
        assert watch.first is not None
        return end - start, watch.first - start

    def _row(
        self,
        path: str,
        seconds: list[tuple[float, float]],
        generate: list[tuple[float, float]],
        memory: int,
        forwards: float,
    ) -> BenchRow:
        ratios = [total / reference for (total, _), (reference, _) in zip(seconds, generate, strict=True)]
        total, length = statistics.median(total for total, _ in seconds), self._paths.new_tokens
        return BenchRow(
            path=path,
            policy=self._paths.policy.name,
            dtype=dtype_name(self._paths.policy.dtype),
            batch_size=len(self._paths.batch),
            prompt_tokens=self._paths.batch.longest,
            new_tokens=length,
            ms_per_token=1000 * total / length,
            tokens_per_second=len(self._paths.batch) * length / total,
            first_token_ms=1000 * statistics.median(first for _, first in seconds),
            ratio_to_generate=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
            peak_memory_bytes=memory,
            forwards_per_token=forwards,
            sampled_steps=len(self._steps) if path == "uncached" else None,
        )
