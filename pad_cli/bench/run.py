"""`run_bench`: every path timed side by side in one process, once they agree on what they write.

Each repeat runs every path once, in shuffled order, and ratios are taken inside a repeat, so that a busy machine slows
all paths alike.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from pad_cli.bench.agreement import Written, check_agreement, top_two
from pad_cli.bench.conditions import Clock, clock_of, conditions, count_forwards, dtype_of, machine
from pad_cli.bench.memory import peak_memory, reset_peak_memory
from pad_cli.bench.paths import Name, Paths, Watch, Whole
from pad_cli.bench.questions import Questions, benchmark_questions, random_questions
from pad_cli.bench.rows import BenchRow
from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.prompts import load_benchmark
from pad_cli.recipe import BenchRecipe, GenerateRecipe
from pad_cli.system.progress import Bar, bar

_SAMPLED_STEPS = 4  # tokens at which `uncached` is timed: the first, the last, and evenly between
_SEED = 0  # of the order of the paths


def run_bench(recipe: BenchRecipe, on_row: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
    """Time every path at every batch size, and every prompt length or on the benchmark of a recipe.

    Args:
        recipe: what to time.
        on_row: called with each row as soon as its batch size and prompt length are finished.

    Returns:
        `machine`, one line that says where and how time was measured; `repeats`; and `rows`, each a `BenchRow` as a
        mapping.

    Raises:
        PadError: two paths do not agree.
        UsageError: these models cannot take the path that the recipe forces, or are too short for its tokens; or the
            benchmark has too few items, or is needed because the vocabularies differ.
        RecipeError, PreferenceError, DataError: the benchmark cannot be asked like this.
        ModelLoadError, CheckpointError, VocabularyError: a model cannot be loaded, or they do not fit.
    """
    engine = PadEngine.from_recipe(
        GenerateRecipe(kind="generate", policy=recipe.policy, reward_model=recipe.reward_model)
    )
    cases = [Paths(engine, recipe.decoding, asked, recipe.new_tokens) for asked in _questions(engine, recipe)]
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


def _questions(engine: PadEngine, recipe: BenchRecipe) -> Iterator[Questions]:
    items = None if recipe.benchmark is None else load_benchmark(recipe.benchmark)
    for batch_size in recipe.batch_sizes:
        if items is not None:
            yield benchmark_questions(engine, items, batch_size)
        else:
            yield from (random_questions(engine, batch_size, length) for length in recipe.prompt_tokens)


def _check_length(paths: Paths) -> None:
    asked = paths.questions
    for model, prompts in ((paths.policy, asked.prompts), (paths.backbone, asked.backbone_prompts)):
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
        names, asked = self._paths.names, self._paths.questions
        with bar("Checking that all paths agree", total=len(self._whole)) as progress:
            forwards, answer = self._check(progress)
        memory: dict[str, int] = {}
        with bar("Measuring memory", total=len(names)) as progress:
            for path in names:
                memory[path] = self._peak(path, answer)
                progress.advance(status=path)
        totals: dict[str, list[float]] = {path: [] for path in names}
        firsts: dict[str, list[float]] = {path: [] for path in names}
        order, chance = list(names), random.Random(_SEED)
        with bar(f"Timing batch {len(asked)}, prompt {asked.longest}", total=repeats * len(order)) as progress:
            for _ in range(repeats):
                chance.shuffle(order)
                for path in order:
                    total, first = self._time_uncached(answer) if path == "uncached" else self._time(path)
                    totals[path].append(total)
                    firsts[path].append(first)
                    progress.advance(status=path)
        return [self._row(p, totals[p], totals["generate"], firsts[p], memory[p], forwards[p]) for p in names]

    @property
    def _whole(self) -> tuple[Whole, ...]:
        """The paths that write whole answers."""
        return ("generate", "plain", *self._paths.guided)

    def _check(self, progress: Bar) -> tuple[dict[str, float], list[int]]:
        """Warm up and compare; return the forwards a token of each path, and the first row's guided answer."""
        forwards: dict[str, float] = {}
        written: dict[str, Written] = {}
        exact = {dtype_of(self._paths.policy), dtype_of(self._paths.backbone)} == {"float32"}
        for path in self._whole:
            watch = Watch(self._clock, self._candidates)
            with count_forwards(self._paths.policy, self._paths.backbone) as counted:
                tokens = self._paths.answer(path, watch)
            forwards[path] = len(counted) / self._paths.new_tokens
            written[path] = Written(path, torch.tensor(tokens), watch.top)
            progress.advance(status=path)
        check_agreement(written["generate"], written["plain"], exact=exact)
        reference = written[self._paths.guided[0]]
        for path in self._paths.guided[1:]:
            check_agreement(reference, written[path], exact=exact)
        if "uncached" in self._paths.names:
            forwards["uncached"] = self._check_uncached(reference, exact)
        answer: list[int] = reference.tokens[0].tolist()
        return forwards, answer

    def _check_uncached(self, reference: Written, exact: bool) -> float:
        """The same for the sampled steps of `uncached`: its forwards a token."""
        answer = reference.tokens[0].tolist()
        with count_forwards(self._paths.policy, self._paths.backbone) as counted:
            scored = [self._paths.uncached_step(answer[:step]) for step in self._steps]
        for step, (candidates, scores) in zip(self._steps, scored, strict=True):
            token = candidates.gather(1, scores.argmax(-1, keepdim=True)).cpu()
            same_step = Written(
                reference.path, reference.tokens[:1, step : step + 1], reference.top[:1, step : step + 1]
            )
            uncached = Written("uncached", token, top_two(scores, self._candidates)[:, None])
            check_agreement(same_step, uncached, exact=exact)
        return len(self._paths.questions) * len(counted) / len(scored)

    def _peak(self, path: Name, answer: list[int]) -> int:
        """Bytes at most on a path, in a pass of its own: taking stock disturbs the clock."""
        reset_peak_memory(self._paths.policy.device)
        if path == "uncached":
            self._paths.uncached_step(answer[: self._steps[-1]])
        else:
            self._paths.answer(path, Watch(self._clock))
        return peak_memory(self._paths.policy.device)

    def _time(self, path: Whole) -> tuple[float, float]:
        """Seconds of the whole batch, and until its first scores."""
        watch = Watch(self._clock)
        start = self._clock()
        self._paths.answer(path, watch)
        end = self._clock()
        assert watch.first is not None
        return end - start, watch.first - start

    def _time_uncached(self, answer: list[int]) -> tuple[float, float]:
        """The same, estimated from the sampled steps of the first answer."""
        spent = []
        for step in self._steps:
            start = self._clock()
            self._paths.uncached_step(answer[:step])
            spent.append(self._clock() - start)
        return statistics.fmean(spent) * self._paths.new_tokens * len(self._paths.questions), spent[0]

    def _row(
        self, path: str, totals: list[float], generate: list[float], firsts: list[float], memory: int, forwards: float
    ) -> BenchRow:
        ratios = [mine / its for mine, its in zip(totals, generate, strict=True)]
        seconds, length = statistics.median(totals), self._paths.new_tokens
        return BenchRow(
            path=path,
            policy=self._paths.policy.name,
            dtype=dtype_of(self._paths.policy),
            batch_size=len(self._paths.questions),
            prompt_tokens=self._paths.questions.longest,
            new_tokens=length,
            ms_per_token=1000 * seconds / length,
            tokens_per_second=len(self._paths.questions) * length / seconds,
            first_token_ms=1000 * statistics.median(firsts),
            ratio_to_generate=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
            peak_memory_bytes=memory,
            forwards_per_token=forwards,
            sampled_steps=len(self._steps) if path == "uncached" else None,
        )
