"""`run_sweep`: what can be had of several preferences at once. Grids over weights, guidance weight and candidates, with
every method as a competitor, each answered and scored as `evaluate` does, and Pareto fronts over the means.

The shape of `sweep.json`:

    {"version", "recipe", "environment", "reference": [...],
     "objectives": [{"principle", "scorer", "higher_is_better"}],
     "points": [{"method", "guidance_weight", "candidates", "weights": {principle: weight}, "n", "failed",
                 "means": {scorer: mean}, "on_front"}],
     "fronts": [{"method", "guidance_weight", "candidates", "points", "on_front",
                 "hypervolume", "low", "high", "spacing"}]}

A front is that of one method at one guidance weight and number of candidates over all weights, so that no method gets
more points than another. `n` counts prompts.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.contract import Scorer
from pad_cli.evaluation.pareto import Floats, pareto_front, weight_grid
from pad_cli.evaluation.run import is_evaluation, run_items
from pad_cli.evaluation.sweep_report import write_sweep_page
from pad_cli.prompts import load_benchmark
from pad_cli.recipe import EvalRecipe, ScorerSettings, SweepRecipe
from pad_cli.records import BenchmarkItem
from pad_cli.system.progress import stage
from pad_cli.system.runs import check_output, environment, only_here, write_json

SWEEP = "sweep.json"
_VERSION = 1
_DIGITS = 4


class Family(NamedTuple):
    """Points that make up one front: one method at one guidance weight and number of candidates."""

    method: str
    guidance_weight: float
    candidates: int


Table = dict[tuple[Family, str], dict[str, list[float | None]]]
"""(family, weights as a label) to scorer to its values, in the prompts' order."""


def run_sweep(recipe: SweepRecipe, *, overwrite: bool = False) -> dict[str, Any]:
    """Run (or continue) a sweep.

    Args:
        recipe: what to do.
        overwrite: whether files in `recipe.output` may be replaced that no sweep wrote.

    Returns:
        The result, as written to `sweep.json` in `recipe.output`; `sweep.html` shows it.

    Raises:
        RecipeError, UsageError, DataError, CheckpointError, ModelLoadError, StorageError: see `pad_cli.errors`.
    """
    output = Path(recipe.output)
    with only_here(output):
        check_output(output, "sweep of pad sweep", _is_own, overwrite=overwrite)
        return _sweep(recipe)


def _is_own(directory: Path) -> bool:
    """Was this written by a sweep, finished or not?"""
    return (directory / SWEEP).is_file() or any(map(is_evaluation, directory.glob("candidates-*")))


def _sweep(recipe: SweepRecipe) -> dict[str, Any]:
    names = list(recipe.objectives)
    grid = {_label(weights): weights for weights in weight_grid(len(names), recipe.weight_steps)}
    items = _items(recipe, grid)
    table: Table = {}
    scorers: dict[str, Scorer] = {}
    for candidates in recipe.candidates:
        evaluation = _evaluation(recipe, candidates)
        with only_here(Path(evaluation.output)):
            outcome = run_items(evaluation, [items])
        scorers = outcome.scorers
        for score in outcome.scored:
            place = Family(score.method, score.guidance_weight, candidates), score.preference
            table.setdefault(place, {}).setdefault(score.scorer, []).append(score.value)
    with stage("Computing Pareto fronts"):
        result = _result(recipe, grid, table, [scorers[name] for name in names])
    write_json(Path(recipe.output) / SWEEP, result)
    write_sweep_page(result, Path(recipe.output))
    return result


def _items(recipe: SweepRecipe, grid: dict[str, tuple[float, ...]]) -> list[BenchmarkItem]:
    """Every prompt under every weighting."""
    source = load_benchmark(recipe.benchmark)
    prompts = list({prompt_key(item): item for item in reversed(source)}.values())[::-1][: recipe.prompts]
    return [
        BenchmarkItem(
            id=f"sweep/{label}/{number}",
            group="sweep",
            label=label,
            prompt=item.prompt,
            preference=tuple(
                f"{name}={weight:g}" for name, weight in zip(recipe.objectives, weights, strict=True) if weight
            ),
            facts=item.facts,
        )
        for label, weights in grid.items()
        for number, item in enumerate(prompts)
    ]


def _label(weights: Sequence[float]) -> str:
    return "/".join(f"{weight:g}" for weight in weights)


def _evaluation(recipe: SweepRecipe, candidates: int) -> EvalRecipe:
    """The part of a sweep at one number of candidates, as a run of its own."""
    objectives = [
        ScorerSettings(scorer=scorer.scorer, name=name, options=scorer.options)
        for name, scorer in recipe.objectives.items()
    ]
    return EvalRecipe(
        kind="eval",
        output=str(Path(recipe.output) / f"candidates-{candidates}"),
        policies={"policy": recipe.policy},
        reward_model=recipe.reward_model,
        methods=recipe.methods,
        guidance_weights=recipe.guidance_weights,
        benchmarks=[recipe.benchmark],
        scorers=[*objectives, *recipe.scorers],
        decoding=recipe.decoding.model_copy(update={"candidates": candidates}),
        seeds=[recipe.seed],
    )


def _result(
    recipe: SweepRecipe, grid: dict[str, tuple[float, ...]], table: Table, scorers: Sequence[Scorer]
) -> dict[str, Any]:
    names = list(recipe.objectives)
    signs = np.array([1.0 if scorer.higher_is_better else -1.0 for scorer in scorers])
    whole = {place: _objectives(values, names) * signs for place, values in table.items() if _complete(values, names)}
    if recipe.reference is not None:
        reference = np.array(recipe.reference) * signs
    else:
        reference = np.min([values.mean(axis=0) for values in whole.values()], axis=0) if whole else 0 * signs
    members: set[tuple[Family, str]] = set()
    fronts = []
    for family in dict.fromkeys(family for family, _ in table):
        labels = [label for label in grid if (family, label) in whole]
        if not labels:
            continue
        front = pareto_front(
            np.stack([whole[family, label] for label in labels]),
            reference,
            resamples=recipe.resamples,
            confidence=recipe.confidence,
            seed=recipe.seed,
        )
        members |= {(family, label) for label, on_it in zip(labels, front.members, strict=True) if on_it}
        fronts.append(
            {
                **family._asdict(),
                "points": len(labels),
                "on_front": int(front.members.sum()),
                **{key: round(getattr(front, key), _DIGITS) for key in ("hypervolume", "low", "high", "spacing")},
            }
        )
    return {
        "version": _VERSION,
        "recipe": recipe.model_dump(),
        "environment": environment(),
        "objectives": [
            {"principle": name, "scorer": recipe.objectives[name].scorer, "higher_is_better": scorer.higher_is_better}
            for name, scorer in zip(names, scorers, strict=True)
        ],
        "reference": [round(float(value), _DIGITS) for value in reference * signs],
        "points": [
            {
                **family._asdict(),
                "weights": dict(zip(names, grid[label], strict=True)),
                "n": len(next(iter(values.values()))),
                "failed": sum(value is None for column in values.values() for value in column),
                "means": {scorer: _mean(column) for scorer, column in values.items()},
                "on_front": (family, label) in members,
            }
            for (family, label), values in table.items()
        ],
        "fronts": fronts,
    }


def _complete(values: dict[str, list[float | None]], names: Sequence[str]) -> bool:
    """A point with an answer that could not be scored stays off every front."""
    return all(value is not None for name in names for value in values[name])


def _objectives(values: dict[str, list[float | None]], names: Sequence[str]) -> Floats:
    """(prompts, objectives)."""
    return np.array([values[name] for name in names], dtype=np.float64).T


def _mean(column: Sequence[float | None]) -> float | None:
    found = [value for value in column if value is not None]
    return round(statistics.fmean(found), _DIGITS) if len(found) == len(column) else None
