"""`run_sweep`: the trade-off between several preferences.

Grids over weights, guidance weight and candidates, with every method, each answered and scored as `evaluate` does, and
Pareto fronts over the means. The shape of `sweep.json`:

    {"version", "recipe", "environment", "reference": [...],
     "objectives": [{"principle", "scorer", "higher_is_better"}],
     "points": [{"method", "guidance_weight", "candidates", "weights": {principle: weight}, "n", "failed",
                 "means": {scorer: mean}, "on_front"}],
     "fronts": [{"method", "guidance_weight", "candidates", "points", "on_front",
                 "hypervolume", "low", "high"}]}

A front is that of one method at one guidance weight and number of candidates over all weights, so that no method gets
more points than another. `n` counts prompts. In arrays of points, more is better in every column.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import moocore
import numpy as np
from numpy.typing import NDArray

from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.contract import Scorer
from pad_cli.evaluation.evaluate import answer_and_score, is_evaluation
from pad_cli.evaluation.report import DIGITS, rounded
from pad_cli.prompts import load_benchmark
from pad_cli.recipe import EvalRecipe, ScorerSettings, SweepRecipe
from pad_cli.records import BenchmarkItem
from pad_cli.reports.document import page
from pad_cli.reports.evaluation_tables import sweep_document
from pad_cli.system.progress import stage
from pad_cli.system.runs import check_output, environment, only_here, write_json, write_whole

SWEEP, PAGE = "sweep.json", "sweep.html"
_VERSION = 1

Floats = NDArray[np.float64]
Weights = tuple[float, ...]
"""One for each principle."""
Values = dict[str, list[float | None]]
"""Scorer to the scores of one point, in the prompts' order."""


class Family(NamedTuple):
    """Points that form one front."""

    method: str
    guidance_weight: float
    candidates: int


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
        check_output(output, "sweep of pad sweep", _is_sweep, overwrite=overwrite)
        weightings = weight_grid(len(recipe.objectives), recipe.weight_steps)
        grid = {"/".join(f"{weight:g}" for weight in weights): weights for weights in weightings}
        items = _items(recipe, grid)
        points: dict[tuple[Family, str], Values] = {}
        objectives: list[Scorer] = []
        for candidates in recipe.candidates:
            evaluation = _evaluation(recipe, candidates)
            with only_here(Path(evaluation.output)):
                results = answer_and_score(evaluation, {"policy": tuple(items)})
            objectives = [results.scorers[name] for name in recipe.objectives]
            for score in results.scored:
                cell = score.cell
                point = Family(cell.method, cell.guidance_weight, candidates), cell.preference
                points.setdefault(point, {}).setdefault(cell.scorer, []).append(score.value)
        with stage("Computing Pareto fronts"):
            result = _result(recipe, grid, points, objectives)
        write_json(output / SWEEP, result)
        write_whole(output / PAGE, page(sweep_document(result)))
        return result


def _is_sweep(directory: Path) -> bool:
    return (directory / SWEEP).is_file() or any(map(is_evaluation, directory.glob("candidates-*")))


def _items(recipe: SweepRecipe, grid: dict[str, Weights]) -> list[BenchmarkItem]:
    """Every prompt under every weighting."""
    source = load_benchmark(recipe.benchmark)
    first = {prompt_key(item): item for item in reversed(source)}
    items = []
    for label, weights in grid.items():
        weighted = zip(recipe.objectives, weights, strict=True)
        preference = tuple(f"{name}={weight:g}" for name, weight in weighted if weight)
        for number, item in enumerate(list(first.values())[::-1][: recipe.prompts]):
            place = f"sweep/{label}/{number}"
            items.append(BenchmarkItem(place, "sweep", label, item.prompt, preference, facts=item.facts))
    return items


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
        benchmarks=[recipe.benchmark],
        scorers=[*objectives, *recipe.scorers],
        decoding=recipe.decoding.model_copy(update={"candidates": candidates}),
        seeds=[recipe.seed],
        **{name: getattr(recipe, name) for name in ("reward_model", "methods", "guidance_weights")},
    )


def _result(
    recipe: SweepRecipe, grid: dict[str, Weights], points: dict[tuple[Family, str], Values], scorers: Sequence[Scorer]
) -> dict[str, Any]:
    """`sweep.json`; a point with a missing score is on no front."""
    names = list(recipe.objectives)
    signs = np.array([1.0 if scorer.higher_is_better else -1.0 for scorer in scorers])
    complete = {
        point: np.array([values[name] for name in names], dtype=np.float64).T * signs  # (prompts, objectives)
        for point, values in points.items()
        if not any(value is None for name in names for value in values[name])
    }
    if recipe.reference is not None:
        reference = np.array(recipe.reference) * signs
    else:
        reference = np.min([values.mean(axis=0) for values in complete.values()], axis=0) if complete else 0 * signs
    on_front: set[tuple[Family, str]] = set()
    fronts = []
    for family in dict.fromkeys(family for family, _ in points):
        labels = [label for label in grid if (family, label) in complete]
        if labels:
            values = np.stack([complete[family, label] for label in labels])
            members, figures = pareto_front(
                values, reference, resamples=recipe.resamples, confidence=recipe.confidence, seed=recipe.seed
            )
            on_front |= {(family, label) for label, member in zip(labels, members, strict=True) if member}
            figures = {name: round(figure, DIGITS) for name, figure in figures.items()}
            fronts.append({**family._asdict(), "points": len(labels), "on_front": int(members.sum()), **figures})
    return {
        "version": _VERSION,
        "recipe": recipe.model_dump(),
        "environment": environment(),
        "objectives": [
            {"principle": name, "scorer": recipe.objectives[name].scorer, "higher_is_better": scorer.higher_is_better}
            for name, scorer in zip(names, scorers, strict=True)
        ],
        "reference": [rounded(float(value)) for value in reference * signs],
        "points": [
            {
                **family._asdict(),
                "weights": dict(zip(names, grid[label], strict=True)),
                "n": len(next(iter(values.values()))),
                "failed": sum(value is None for column in values.values() for value in column),
                "means": {scorer: _mean(column) for scorer, column in values.items()},
                "on_front": (family, label) in on_front,
            }
            for (family, label), values in points.items()
        ],
        "fronts": fronts,
    }


def _mean(column: Sequence[float | None]) -> float | None:
    known = [value for value in column if value is not None]
    return rounded(statistics.fmean(known)) if len(known) == len(column) else None


def pareto_front(
    values: Floats, reference: Floats, *, resamples: int, confidence: float, seed: int
) -> tuple[NDArray[np.bool_], dict[str, float]]:
    """The front of N points from their scores (N, P, D) on P prompts.

    What does not exceed the `reference` point (D,) in every column has no volume.

    Returns:
        Which points are on the front (N,), of equal points the first one; and its `hypervolume`, with the ends `low`
        and `high` of a bootstrap interval over prompts.
    """
    means: Floats = values.mean(axis=1)
    rng = np.random.default_rng(seed)
    prompts = values.shape[1]
    volumes = [
        hypervolume(values[:, rng.integers(prompts, size=prompts)].mean(axis=1), reference) for _ in range(resamples)
    ]
    low, high = np.quantile(volumes, [(1 - confidence) / 2, (1 + confidence) / 2])
    members: NDArray[np.bool_] = moocore.is_nondominated(means, maximise=True)
    return members, {"hypervolume": hypervolume(means, reference), "low": float(low), "high": float(high)}


def hypervolume(points: Floats, reference: Floats) -> float:
    """Volume of what the points dominate and the reference point does not (Zitzler and Thiele, 1998)."""
    return float(moocore.hypervolume(points, ref=reference, maximise=True))


def weight_grid(principles: int, steps: int) -> list[Weights]:
    """Weights that sum to 1, each a multiple of 1 / steps: for two principles (1, 0), ..., (0, 1)."""
    parts = itertools.product(range(steps, -1, -1), repeat=principles)
    return [tuple(part / steps for part in some) for some in parts if sum(some) == steps]
