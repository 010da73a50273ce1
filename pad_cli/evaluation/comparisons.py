"""Every method against one, on the same items: is the difference more than chance?

One policy x group x scorer is a table; its p-values are corrected together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pad_cli.evaluation.cells import DIGITS, POOLED, Place, Scores, limits, rounded
from pad_cli.evaluation.contract import Method, Scorer
from pad_cli.evaluation.statistics import Interval, Sample, by_prompt, holm, intervals, p_values
from pad_cli.recipe import EvalRecipe
from pad_cli.system.runs import fingerprint

Verdict = Literal["better", "worse", "undecided"]


class Reference(NamedTuple):
    """What the others are compared with."""

    method: str
    guidance_weight: float


@dataclass(frozen=True)
class Comparison:
    """One method against the reference on one policy and group, by one scorer.

    Figures are None where a scorer failed on an answer of either side.

    Attributes:
        policy: whose answers they are.
        group: of the items.
        scorer: what scored them.
        method: what is compared with the reference.
        guidance_weight: of the method.
        reference: the method that it is compared with.
        reference_weight: its guidance weight.
        n: items that both answered.
        prompts: of these items.
        difference: mean of the method's scores less the reference's.
        low: lower end of its interval; None for one prompt.
        high: upper end.
        p: of the paired test.
        p_holm: corrected for the table.
        effect_size: Cohen's d_z over prompts; None where it does not exist.
        verdict: on the method, in the scorer's direction; `undecided` where p_holm is above 1 - confidence.
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
    difference: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    effect_size: float | None
    verdict: Verdict


def reference_of(recipe: EvalRecipe, methods: Mapping[str, Method]) -> Reference:
    """What a recipe's methods are compared with: `compare_with`, else the first weighted method, else the last one.

    A weighted one is taken at the first of the recipe's guidance weights.

    Args:
        recipe: whose methods they are.
        methods: by their names in the report.
    """
    weighted = [name for name, method in methods.items() if method.weighted]
    name = recipe.compare_with or (weighted or list(methods))[0 if weighted else -1]
    return Reference(name, recipe.guidance_weights[0] if name in weighted else 0.0)


def compare(
    cells: Mapping[Place, Scores], reference: Reference, scorers: Mapping[str, Scorer], recipe: EvalRecipe
) -> list[Comparison]:
    """All comparisons, in the order of the pooled cells."""
    tables: dict[tuple[str, str], dict[Place, Scores]] = {}
    for place, scores in cells.items():
        if place.preference == POOLED:
            tables.setdefault((place.policy, place.group), {})[place] = scores
    return [row for table in tables.values() for row in _compare_group(table, reference, scorers, recipe)]


class _Test(NamedTuple):
    """What is known of one difference."""

    differences: Sample
    interval: Interval | None
    p: float


def _compare_group(
    cells: Mapping[Place, Scores], reference: Reference, scorers: Mapping[str, Scorer], recipe: EvalRecipe
) -> Iterator[Comparison]:
    """The comparisons on one policy and group, by every scorer."""
    sides: dict[Place, tuple[Scores, Scores]] = {}
    for place, scores in cells.items():
        theirs = cells.get(place._replace(method=reference.method, guidance_weight=reference.guidance_weight))
        if theirs is not None and theirs is not scores:
            sides[place] = (scores, theirs)
    whole = {place: pair for place, pair in sides.items() if not any(side.failed for side in pair)}
    tests = _test(whole, scorers, recipe) if whole else {}
    corrected: dict[Place, float] = {}
    for scorer in scorers:
        table = [place for place in tests if place.scorer == scorer]
        corrected.update(zip(table, holm([tests[place].p for place in table]), strict=True))
    for place, (ours, theirs) in sides.items():
        asked = ours.values.keys() & theirs.values.keys()
        test, p_holm = tests.get(place), corrected.get(place, 1.0)
        difference = test.differences.mean if test else None
        yield Comparison(
            policy=place.policy,
            group=place.group,
            scorer=place.scorer,
            method=place.method,
            guidance_weight=place.guidance_weight,
            reference=reference.method,
            reference_weight=reference.guidance_weight,
            n=len(asked),
            prompts=len({item.prompt for item in asked}),
            difference=rounded(difference),
            low=rounded(test.interval.low) if test and test.interval else None,
            high=rounded(test.interval.high) if test and test.interval else None,
            p=_significant(test.p) if test else None,
            p_holm=_significant(p_holm) if test else None,
            effect_size=rounded(test.differences.effect_size) if test else None,
            verdict=_verdict(difference, p_holm, scorers[place.scorer].higher_is_better, recipe.confidence),
        )


def _test(
    sides: Mapping[Place, tuple[Scores, Scores]], scorers: Mapping[str, Scorer], recipe: EvalRecipe
) -> dict[Place, _Test]:
    """Tests of pairs of cells of one policy and group."""
    samples, bounds = [], []
    for place, (ours, theirs) in sides.items():
        left, right = ours.means, theirs.means
        samples.append(by_prompt((item.prompt, left[item] - right[item]) for item in left if item in right))
        ends = limits(scorers[place.scorer], ours), limits(scorers[place.scorer], theirs)
        bounds.append((-1.0, 1.0) if all(ends) else None)
    first = next(iter(sides))
    seed = int(fingerprint([first.policy, first.group]), 16)
    found = intervals(samples, confidence=recipe.confidence, resamples=recipe.resamples, seed=seed, bounds=bounds)
    return dict(zip(sides, map(_Test, samples, found, p_values(samples, seed=seed)), strict=True))


def _verdict(difference: float | None, p_holm: float, higher_is_better: bool, confidence: float) -> Verdict:
    if not difference or p_holm > round(1 - confidence, DIGITS):
        return "undecided"
    return "better" if (difference > 0) == higher_is_better else "worse"


def _significant(p: float) -> float:
    """Three digits of a p-value."""
    return float(f"{p:.3g}")
