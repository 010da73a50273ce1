"""`run_bench`: every path timed side by side in one process, once they agree on what they write.

Each repeat runs every path once, in shuffled order, and ratios are taken inside a repeat, so that a busy machine slows
all paths alike.
"""

from __future__ import annotations

import random
import statistics
from dataclasses import asdict
from typing import Any

import torch

from pad_cli.benchmarking.agreement import Written, best_of, check_agreement
from pad_cli.benchmarking.conditions import (
    Clock,
    clock_of,
    conditions,
    count_forwards,
    dtype_of,
    machine,
    peak_memory,
    reset_peak_memory,
)
from pad_cli.benchmarking.paths import Paths, Watch, path_names
from pad_cli.benchmarking.report import BenchRow
from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.progress import bar
from pad_cli.recipe import BenchRecipe, GenerateRecipe

_SAMPLED_STEPS = 4  # tokens at which `uncached` is timed: the first, the last, and evenly between
_SEED = 0  # of the order of the paths


def run_bench(recipe: BenchRecipe) -> dict[str, Any]:
    """Time every path at every batch size and prompt length of a recipe.

    Returns:
        `machine`, one line that says where and how time was measured; `repeats`; and `rows`, each a `BenchRow` as a
        mapping.

    Raises:
        PadError: two paths do not agree.
        UsageError: these models cannot take the path that the recipe forces, or are too short for its tokens.
        ModelLoadError, CheckpointError, VocabularyError: a model cannot be loaded, or they do not fit.
    """
    engine = PadEngine.from_recipe(
        GenerateRecipe(kind="generate", policy=recipe.policy, reward_model=recipe.reward_model)
    )
    guided = path_names(engine, recipe.decoding)
    _check_length(engine, max(recipe.prompt_tokens) + recipe.new_tokens)
    with conditions(engine.policy, recipe.threads):
        clock = clock_of(engine.policy.device)
        rows = []
        for batch_size in recipe.batch_sizes:
            for prompt_tokens in recipe.prompt_tokens:
                paths = Paths(engine, recipe.decoding, batch_size, prompt_tokens, recipe.new_tokens)
                rows += _Case(paths, guided, clock, recipe.decoding.candidates).run(recipe.repeats)
        return {"machine": machine(engine.policy), "repeats": recipe.repeats, "rows": [asdict(row) for row in rows]}


def _check_length(engine: PadEngine, length: int) -> None:
    assert engine.reward_model is not None
    for model in (engine.policy, engine.reward_model.backbone):
        longest = getattr(model.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        if longest is not None and length > longest:
            raise UsageError(
                f"{length} tokens of prompt and answer are too many for '{model.name}', which reads {longest}.",
                "Lower prompt_tokens or new_tokens.",
            )


class _Case:
    """One batch size and prompt length."""

    def __init__(self, paths: Paths, guided: tuple[str, ...], clock: Clock, candidates: int) -> None:
        self._paths, self._guided, self._clock, self._candidates = paths, guided, clock, candidates
        count = min(_SAMPLED_STEPS, paths.new_tokens)
        self._steps: list[int] = torch.linspace(0, paths.new_tokens - 1, count).round().long().tolist()

    def run(self, repeats: int) -> list[BenchRow]:
        forwards, answer = self._check()
        names, device = list(forwards), self._paths.policy.device
        totals: dict[str, list[float]] = {path: [] for path in names}
        firsts: dict[str, list[float]] = {path: [] for path in names}
        memory = dict.fromkeys(names, 0)
        order, chance = list(names), random.Random(_SEED)
        title = f"Timing batch {len(self._paths.prompts)}, prompt {len(self._paths.prompts[0])}"
        with bar(title, total=repeats * len(order)) as progress:
            for _ in range(repeats):
                chance.shuffle(order)
                for path in order:
                    reset_peak_memory(device)
                    total, first = self._time_uncached(answer) if path == "uncached" else self._time(path)
                    totals[path].append(total)
                    firsts[path].append(first)
                    memory[path] = max(memory[path], peak_memory(device))
                    progress.advance(status=path)
        return [self._row(p, totals[p], totals["generate"], firsts[p], memory[p], forwards[p]) for p in names]

    def _check(self) -> tuple[dict[str, float], list[int]]:
        """Warm up and compare; return the forwards a token of each path, and the first row's guided answer."""
        forwards: dict[str, float] = {}
        written: dict[str, Written] = {}
        exact = {dtype_of(self._paths.policy), dtype_of(self._paths.backbone)} == {"float32"}
        for path in ("generate", "plain", *self._guided):
            watch = Watch(self._clock, self._candidates)
            with count_forwards(self._paths.policy, self._paths.backbone) as counted:
                tokens = self._paths.answer(path, watch)
            forwards[path] = len(counted) / self._paths.new_tokens
            written[path] = Written(path, torch.tensor(tokens), torch.stack(watch.best, dim=1))
        reference = written[self._guided[0]]
        answer: list[int] = reference.tokens[0].tolist()
        with count_forwards(self._paths.policy, self._paths.backbone) as counted:
            steps = [self._paths.uncached_step(answer[:step]) for step in self._steps]
        forwards["uncached"] = len(self._paths.prompts) * len(counted) / len(steps)
        check_agreement(written["generate"], written["plain"], exact=exact)
        for path in self._guided[1:]:
            check_agreement(reference, written[path], exact=exact)
        for step, (candidates, scores) in zip(self._steps, steps, strict=True):
            token = candidates.gather(1, scores.argmax(-1, keepdim=True)).cpu()
            same_step = Written(
                reference.path, reference.tokens[:1, step : step + 1], reference.best[:1, step : step + 1]
            )
            uncached = Written("uncached", token, best_of(scores, self._candidates)[:, None])
            check_agreement(same_step, uncached, exact=exact)
        return forwards, answer

    def _time(self, path: str) -> tuple[float, float]:
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
        return statistics.fmean(spent) * self._paths.new_tokens * len(self._paths.prompts), spent[0]

    def _row(
        self, path: str, totals: list[float], generate: list[float], firsts: list[float], memory: int, forwards: float
    ) -> BenchRow:
        ratios = [mine / its for mine, its in zip(totals, generate, strict=True)]
        seconds, length = statistics.median(totals), self._paths.new_tokens
        return BenchRow(
            path=path,
            policy=self._paths.policy.name,
            dtype=dtype_of(self._paths.policy),
            batch_size=len(self._paths.prompts),
            prompt_tokens=len(self._paths.prompts[0]),
            new_tokens=length,
            ms_per_token=1000 * seconds / length,
            tokens_per_second=len(self._paths.prompts) * length / seconds,
            first_token_ms=1000 * statistics.median(firsts),
            ratio_to_generate=statistics.median(ratios),
            ratio_low=min(ratios),
            ratio_high=max(ratios),
            peak_memory_bytes=memory,
            forwards_per_token=forwards,
            sampled_steps=len(self._steps) if path == "uncached" else None,
        )
