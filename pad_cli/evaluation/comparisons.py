"""Every method against a reference, on the same items: is the difference more than chance?

The p-values of one policy, group and scorer form a table and are corrected together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from pad_cli.evaluation.cells import DIGITS, POOLED, CellKey, Scores, limits, rounded
from pad_cli.evaluation.contract import Method, Scorer
from pad_cli.evaluation.statistics import Sample, by_prompt, holm, intervals, p_values
from pad_cli.recipe import EvalRecipe
from pad_cli.system.runs import fingerprint

Verdict = Literal["better", "worse", "undecided"]


class Reference(NamedTuple):
    """What the other methods are compared with."""

    method: str
    guidance_weight: float


@dataclass(frozen=True)
class Comparison:
    """A method against the reference on one policy and group, by one scorer, over the n items that both answered.

    `difference` is the mean of the method's scores minus the reference's, on its interval (None for one prompt); `p` is
    that of the paired test, `effect_size` Cohen's d_z over prompts. All figures are None if a score is missing. The
    verdict is in the scorer's direction, and `undecided` if p_holm is above 1 - confidence.
    """

    policy: str
    group: str
    scorer: str
    method: str
    guidance_weight: float
    reference: str
    reference_weight: float
    n: int
    prompts: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    effect_size: float | None = None
    verdict: Verdict = "undecided"


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
) -> list[Comparison]:
    """All comparisons, in the order of the pooled cells."""
    groups: dict[tuple[str, str], dict[CellKey, Scores]] = {}
    for key, scores in cells.items():
        if key.preference == POOLED:
            groups.setdefault((key.policy, key.group), {})[key] = scores
    return [row for group in groups.values() for row in _compare_group(group, reference, scorers, recipe)]


def _compare_group(
    cells: Mapping[CellKey, Scores], reference: Reference, scorers: Mapping[str, Scorer], recipe: EvalRecipe
) -> Iterator[Comparison]:
    """The comparisons on one policy and group, by every scorer."""
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
        comparison = Comparison(
            policy=key.policy,
            group=key.group,
            scorer=key.scorer,
            method=key.method,
            guidance_weight=key.guidance_weight,
            reference=reference.method,
            reference_weight=reference.guidance_weight,
            n=len(items),
            prompts=len({item.prompt for item in items}),
        )
        if key not in whole:  # a score is missing
            yield comparison
            continue
        difference, interval = whole[key].mean, interval_of[key]
        yield replace(
            comparison,
            difference=rounded(difference),
            low=rounded(interval.low) if interval else None,
            high=rounded(interval.high) if interval else None,
            p=_significant(p[key]),
            p_holm=_significant(p_holm[key]),
            effect_size=rounded(whole[key].effect_size),
            verdict=_verdict(difference, p_holm[key], scorers[key.scorer].higher_is_better, recipe.confidence),
        )


def _differences(ours: Scores, theirs: Scores) -> Sample:
    left, right = ours.means, theirs.means
    return by_prompt((item.prompt, left[item] - right[item]) for item in left if item in right)


def _verdict(difference: float, p_holm: float, higher_is_better: bool, confidence: float) -> Verdict:
    if not difference or p_holm > round(1 - confidence, DIGITS):
        return "undecided"
    return "better" if (difference > 0) == higher_is_better else "worse"


def _significant(p: float) -> float:
    """Three significant digits."""
    return float(f"{p:.3g}")
