"""From scores to the report: means with intervals, and every method against one.

A cell is one method, policy, group, preference, guidance weight and scorer. Methods are compared on the same items; the
p-values of one policy, group and scorer form a table and are corrected together.

The shape of `report.json` is a promise:

    {"version": 2, "recipe", "environment",
     "reference": {"method", "guidance_weight"},
     "rows": [{"method", "policy", "group", "preference", "guidance_weight", "scorer", "n", "prompts", "mean", "stderr",
               "low", "high", "truncated", "failed", "higher_is_better", "dimension", "unit"}],
     "comparisons": [{"policy", "group", "scorer", "method", "guidance_weight", "reference", "reference_weight", "n",
                      "prompts", "difference", "low", "high", "p", "p_holm", "effect_size", "verdict"}],
     "pairs": [{"policy", "split", "guidance_weight", "n", "prompts", "pair_accuracy", "pair_low", "pair_high",
                "policy_accuracy", "policy_low", "policy_high", "fluency": {scorer: mean}}]}

A row whose preference is `*` pools all preferences of its group. `n` counts items, `truncated` and `failed` answers: an
item has one a seed, and its score is their mean. `low` and `high` bound the mean with the recipe's confidence, over
prompts. Where a scorer failed on an answer, `mean` and what follows from it are null; running again tries it again.

A comparison is one on the n items that both methods answered, on one policy and group, by one scorer: `difference` is
the mean of the method's scores minus the reference's, on its interval (null for one prompt); `p` is that of the paired
test, `effect_size` Cohen's d_z over prompts. All are null if a score is missing. `verdict` is in the scorer's
direction, and `undecided` if p_holm is above 1 - confidence.

What pairs hold is said in `pair_accuracy.py` (none where the recipe has no `pairs`), how figures are computed in
`statistics.py`. Nothing in it depends on when, or in how many attempts, the run was made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pad_cli.evaluation.contract import Method, Scorer
from pad_cli.evaluation.statistics import Interval, Sample, by_prompt, holm, intervals, p_values
from pad_cli.recipe import EvalRecipe
from pad_cli.system.runs import environment, fingerprint

POOLED = "*"
"""In place of a preference: all preferences of the group."""
DIGITS = 4  # of figures in the report
_VERSION = 2


class CellKey(NamedTuple):
    """Which cell of the report."""

    method: str
    policy: str
    group: str
    preference: str
    guidance_weight: float
    scorer: str


class ItemKey(NamedTuple):
    """Which item; the id alone is not unique across benchmarks.

    `prompt` is a `prompt_key`: items of one prompt under several preferences are not independent.
    """

    prompt: str
    preference: str
    id: str


class Scored(NamedTuple):
    """One scorer's number for one answer; `value` is None if the scorer failed on it."""

    cell: CellKey
    item: ItemKey
    value: float | None
    truncated: bool = False


Cells = Mapping[CellKey, Sequence[Scored]]
"""The scores of each cell."""


def into_cells(scored: Iterable[Scored]) -> Cells:
    """The cells, those of one policy and group together, in the order of their first score.

    A pooled cell comes before its parts.
    """
    cells: dict[CellKey, list[Scored]] = {}
    groups: dict[tuple[str, str], int] = {}
    for score in scored:
        groups.setdefault((score.cell.policy, score.cell.group), len(groups))
        for preference in (POOLED, score.cell.preference):
            cells.setdefault(score.cell._replace(preference=preference), []).append(score)
    return dict(sorted(cells.items(), key=lambda cell: groups[cell[0].policy, cell[0].group]))


def item_means(scores: Iterable[Scored]) -> dict[ItemKey, float] | None:
    """Each item's mean over its seeds; None if the scorer failed on an answer."""
    values: dict[ItemKey, list[float]] = {}
    for score in scores:
        if score.value is None:
            return None
        values.setdefault(score.item, []).append(score.value)
    return {item: sum(each) / len(each) for item, each in values.items()}


def limits(scorer: Scorer, scores: Iterable[Scored]) -> tuple[float, float] | None:
    """Bounds of scores: 0 and 1 if the scorer has no unit and all of them lie there, else unknown."""
    if scorer.unit or not all(score.value is None or 0 <= score.value <= 1 for score in scores):
        return None
    return 0.0, 1.0


def rounded(value: float | None) -> float | None:
    """A figure as the report writes it."""
    return None if value is None else round(value, DIGITS)


class Reference(NamedTuple):
    """What the other methods are compared with."""

    method: str
    guidance_weight: float


def reference_of(recipe: EvalRecipe, methods: Mapping[str, Method]) -> Reference:
    """What a recipe's methods (by name in the report) are compared with.

    That is `compare_with`, else the first weighted method, else the last one; a weighted one at the first of its
    guidance weights.
    """
    weighted = [name for name, method in methods.items() if method.weighted]
    name = recipe.compare_with or (weighted or list(methods))[0 if weighted else -1]
    return Reference(name, recipe.weights_of(name)[0] if name in weighted else 0.0)


def build_report(
    recipe: EvalRecipe,
    scored: Iterable[Scored],
    scorers: Mapping[str, Scorer],
    reference: Reference,
    pairs: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The report; its rows stand in the order of `into_cells`."""
    cells = into_cells(scored)
    return {
        "version": _VERSION,
        "recipe": recipe.model_dump(),
        "environment": environment(),
        "reference": reference._asdict(),
        "rows": list(_rows(cells, scorers, recipe)),
        "comparisons": _compare(cells, reference, scorers, recipe),
        "pairs": [dict(row) for row in pairs],
    }


def _rows(cells: Cells, scorers: Mapping[str, Scorer], recipe: EvalRecipe) -> Iterator[dict[str, Any]]:
    """One row a cell; the intervals of one policy, group and preference share their resamples."""
    samples = {
        place: by_prompt((item.prompt, mean) for item, mean in means.items())
        for place, scores in cells.items()
        if (means := item_means(scores)) is not None
    }
    strata: dict[tuple[str, str, str], list[CellKey]] = {}
    for place in samples:
        strata.setdefault((place.policy, place.group, place.preference), []).append(place)
    interval_of: dict[CellKey, Interval | None] = {}
    for stratum, places in strata.items():
        ends = intervals(
            [samples[place] for place in places],
            confidence=recipe.confidence,
            resamples=recipe.resamples,
            seed=int(fingerprint(stratum), 16),
            bounds=[limits(scorers[place.scorer], cells[place]) for place in places],
        )
        interval_of.update(zip(places, ends, strict=True))
    for place, scores in cells.items():
        scorer, sample, interval = scorers[place.scorer], samples.get(place), interval_of.get(place)
        items = {score.item for score in scores}
        yield {
            **place._asdict(),
            "n": len(items),
            "prompts": len({item.prompt for item in items}),
            "mean": rounded(sample.mean) if sample else None,
            "stderr": rounded(sample.stderr) if sample else None,
            "low": rounded(interval.low) if interval else None,
            "high": rounded(interval.high) if interval else None,
            "truncated": sum(score.truncated for score in scores),
            "failed": sum(score.value is None for score in scores),
            "higher_is_better": scorer.higher_is_better,
            "dimension": scorer.dimension,
            "unit": scorer.unit,
        }


def _compare(
    cells: Cells, reference: Reference, scorers: Mapping[str, Scorer], recipe: EvalRecipe
) -> list[dict[str, Any]]:
    """All comparisons, as in `report.json`, in the order of the pooled cells."""
    groups: dict[tuple[str, str], dict[CellKey, Sequence[Scored]]] = {}
    for key, scores in cells.items():
        if key.preference == POOLED:
            groups.setdefault((key.policy, key.group), {})[key] = scores
    return [row for group in groups.values() for row in _compare_group(group, reference, scorers, recipe)]


def _compare_group(
    cells: Cells, reference: Reference, scorers: Mapping[str, Scorer], recipe: EvalRecipe
) -> Iterator[dict[str, Any]]:
    """The comparisons on one policy and group, by every scorer; without figures where a score is missing."""
    sides: dict[CellKey, tuple[Sequence[Scored], Sequence[Scored]]] = {}
    differences: dict[CellKey, Sample] = {}
    bounds: list[tuple[float, float] | None] = []
    for key, scores in cells.items():
        opposite = cells.get(key._replace(method=reference.method, guidance_weight=reference.guidance_weight))
        if opposite is None or opposite is scores:
            continue
        sides[key] = scores, opposite
        left, right = map(item_means, sides[key])
        if left is not None and right is not None:
            differences[key] = by_prompt((item.prompt, left[item] - right[item]) for item in left if item in right)
            bounds.append((-1.0, 1.0) if all(limits(scorers[key.scorer], side) for side in sides[key]) else None)
    first = next(iter(cells))
    seed, samples = int(fingerprint([first.policy, first.group]), 16), list(differences.values())
    ends = intervals(samples, confidence=recipe.confidence, resamples=recipe.resamples, seed=seed, bounds=bounds)
    interval_of = dict(zip(differences, ends, strict=True))
    p = dict(zip(differences, p_values(samples, seed=seed), strict=True))
    p_holm: dict[CellKey, float] = {}
    for scorer in scorers:
        table = [key for key in differences if key.scorer == scorer]
        p_holm.update(zip(table, holm([p[key] for key in table]), strict=True))
    for key, (ours, theirs) in sides.items():
        items = {score.item for score in ours} & {score.item for score in theirs}
        difference, interval = differences.get(key), interval_of.get(key)
        better = scorers[key.scorer].higher_is_better
        yield {
            "policy": key.policy,
            "group": key.group,
            "scorer": key.scorer,
            "method": key.method,
            "guidance_weight": key.guidance_weight,
            "reference": reference.method,
            "reference_weight": reference.guidance_weight,
            "n": len(items),
            "prompts": len({item.prompt for item in items}),
            "difference": rounded(difference.mean) if difference else None,
            "low": rounded(interval.low) if interval else None,
            "high": rounded(interval.high) if interval else None,
            "p": _significant(p[key]) if difference else None,
            "p_holm": _significant(p_holm[key]) if difference else None,
            "effect_size": rounded(difference.effect_size) if difference else None,
            "verdict": _verdict(difference.mean, p_holm[key], better, recipe.confidence) if difference else "undecided",
        }


def _verdict(difference: float, p_holm: float, higher_is_better: bool, confidence: float) -> str:
    if not difference or p_holm > round(1 - confidence, DIGITS):
        return "undecided"
    return "better" if (difference > 0) == higher_is_better else "worse"


def _significant(p: float) -> float:
    """Three significant digits."""
    return float(f"{p:.3g}")
