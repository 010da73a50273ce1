"""Scores grouped into the cells of a report: those of one method, policy, group, preference, weight and scorer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pad_cli.evaluation.contract import Scorer
from pad_cli.evaluation.statistics import Sample, by_prompt

POOLED = "*"
"""In place of a preference: all preferences of the group."""
DIGITS = 4
"""Of figures in the report."""


class Scored(NamedTuple):
    """One scorer's number for one answer; `value` is None if the scorer failed on it.

    `item` is an id and `prompt` a `prompt_key`: items of one prompt under several preferences are not independent.
    """

    method: str
    policy: str
    group: str
    preference: str
    guidance_weight: float
    scorer: str
    item: str
    prompt: str
    value: float | None
    truncated: bool = False


class CellKey(NamedTuple):
    """Which cell of the report."""

    method: str
    policy: str
    group: str
    preference: str
    guidance_weight: float
    scorer: str


class ItemKey(NamedTuple):
    """Which item; the id alone is not unique across benchmarks."""

    prompt: str
    preference: str
    id: str


@dataclass
class Scores:
    """The scores of one cell: one a seed for each item; how many failed, and how many are of a truncated answer."""

    values: dict[ItemKey, list[float]] = field(default_factory=dict)
    truncated: int = 0
    failed: int = 0

    def add(self, scored: Scored) -> None:
        values = self.values.setdefault(ItemKey(scored.prompt, scored.preference, scored.item), [])
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
        for preference in (POOLED, score.preference):
            key = CellKey(score.method, score.policy, score.group, preference, score.guidance_weight, score.scorer)
            cells.setdefault(key, Scores()).add(score)
    return cells


def limits(scorer: Scorer, scores: Scores) -> tuple[float, float] | None:
    """Bounds of a cell's scores: 0 and 1 if the scorer has no unit and all scores lie between them, else unknown."""
    if scorer.unit or not all(0 <= value <= 1 for values in scores.values.values() for value in values):
        return None
    return 0.0, 1.0


def rounded(value: float | None) -> float | None:
    """A figure as the report writes it."""
    return None if value is None else round(value, DIGITS)
