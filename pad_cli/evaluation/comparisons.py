"""Scores grouped into the cells of a report, and every method against a reference: is the difference more than chance?

A cell is one method, policy, group, preference, guidance weight and scorer. Methods are compared on the same items; the
p-values of one policy, group and scorer form a table and are corrected together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pad_cli.evaluation.contract import Method, Scorer
from pad_cli.evaluation.statistics import Sample, by_prompt, holm, intervals, p_values
from pad_cli.recipe import EvalRecipe
from pad_cli.system.runs import fingerprint

POOLED = "*"
"""In place of a preference: all preferences of the group."""
_DIGITS = 4  # of figures in the report


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


@dataclass
class Scores:
    """The scores of one cell: one a seed for each item; how many failed, and how many are of a truncated answer."""

    values: dict[ItemKey, list[float]] = field(default_factory=dict)
    truncated: int = 0
    failed: int = 0

    def add(self, scored: Scored) -> None:
        values = self.values.setdefault(scored.item, [])
        if scored.value is None:
            self.failed += 1
        else:
            values.append(scored.value)
        self.truncated += scored.truncated

    @property
    def means(self) -> dict[ItemKey, float]:
        """Each item's mean over its seeds, if nothing failed."""
        return {item: sum(values) / len(values) for item, values in self.values.items()}

    @property
    def sample(self) -> Sample:
        """The items' means by prompt, if nothing failed."""
        return by_prompt((item.prompt, mean) for item, mean in self.means.items())


def into_cells(scored: Iterable[Scored]) -> dict[CellKey, Scores]:
    """The cells in the order of their first score; a pooled cell comes before its parts."""
    cells: dict[CellKey, Scores] = {}
    for score in scored:
        for preference in (POOLED, score.cell.preference):
            cells.setdefault(score.cell._replace(preference=preference), Scores()).add(score)
    return cells


def limits(scorer: Scorer, scores: Scores) -> tuple[float, float] | None:
    """Bounds of a cell's scores: 0 and 1 if the scorer has no unit and all scores lie between them, else unknown."""
    if scorer.unit or not all(0 <= value <= 1 for values in scores.values.values() for value in values):
        return None
    return 0.0, 1.0


def rounded(value: float | None) -> float | None:
    """A figure as the report writes it."""
    return None if value is None else round(value, _DIGITS)


class Reference(NamedTuple):
    """What the other methods are compared with."""

    method: str
    guidance_weight: float


def reference_of(recipe: EvalRecipe, methods: Mapping[str, Method]) -> Reference:
    """What a recipe's methods (by name in the report) are compared with.

    That is `compare_with`, else the first weighted method, else the last one; a weighted one at the first of the
    recipe's guidance weights.
    """
    weighted = [name for name, method in methods.items() if method.weighted]
    name = recipe.compare_with or (weighted or list(methods))[0 if weighted else -1]
    return Reference(name, recipe.guidance_weights[0] if name in weighted else 0.0)


def compare(
    cells: Mapping[CellKey, Scores], reference: Reference, scorers: Mapping[str, Scorer], recipe: EvalRecipe
) -> list[dict[str, Any]]:
    """All comparisons, as in `report.json`, in the order of the pooled cells."""
    groups: dict[tuple[str, str], dict[CellKey, Scores]] = {}
    for key, scores in cells.items():
        if key.preference == POOLED:
            groups.setdefault((key.policy, key.group), {})[key] = scores
    return [row for group in groups.values() for row in _compare_group(group, reference, scorers, recipe)]


def _compare_group(
    cells: Mapping[CellKey, Scores], reference: Reference, scorers: Mapping[str, Scorer], recipe: EvalRecipe
) -> Iterator[dict[str, Any]]:
    """The comparisons on one policy and group, by every scorer; without figures where a score is missing."""
    sides: dict[CellKey, tuple[Scores, Scores]] = {}
    for key, scores in cells.items():
        theirs = cells.get(key._replace(method=reference.method, guidance_weight=reference.guidance_weight))
        if theirs is not None and theirs is not scores:
            sides[key] = (scores, theirs)
    whole = {key: _differences(*pair) for key, pair in sides.items() if not any(side.failed for side in pair)}
    bounds = [(-1.0, 1.0) if all(limits(scorers[key.scorer], side) for side in sides[key]) else None for key in whole]
    first = next(iter(cells))
    seed = int(fingerprint([first.policy, first.group]), 16)
    samples = list(whole.values())
    ends = intervals(samples, confidence=recipe.confidence, resamples=recipe.resamples, seed=seed, bounds=bounds)
    interval_of = dict(zip(whole, ends, strict=True))
    p = dict(zip(whole, p_values(samples, seed=seed), strict=True))
    p_holm: dict[CellKey, float] = {}
    for scorer in scorers:
        table = [key for key in whole if key.scorer == scorer]
        p_holm.update(zip(table, holm([p[key] for key in table]), strict=True))
    for key, (ours, theirs) in sides.items():
        items = ours.values.keys() & theirs.values.keys()
        difference, interval = whole.get(key), interval_of.get(key)
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


def _differences(ours: Scores, theirs: Scores) -> Sample:
    left, right = ours.means, theirs.means
    return by_prompt((item.prompt, left[item] - right[item]) for item in left if item in right)


def _verdict(difference: float, p_holm: float, higher_is_better: bool, confidence: float) -> str:
    if not difference or p_holm > round(1 - confidence, _DIGITS):
        return "undecided"
    return "better" if (difference > 0) == higher_is_better else "worse"


def _significant(p: float) -> float:
    """Three significant digits."""
    return float(f"{p:.3g}")
