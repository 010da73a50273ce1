"""The books of one source: every row and every pair that is not used is counted with its reason."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

from pad_cli.preference import Preference
from pad_cli.records import Change, Dropped, Messages, PreferencePair, SourceReport

_EXAMPLES = 3

What = Literal["row", "part", "pair"]


@dataclass
class Ledger:
    """Counts of one source, filled while its pairs are read and cleaned."""

    name: str
    split: str
    weight: float = 1.0
    rows: int = 0
    rows_used: int = 0
    pairs_made: int = 0
    contrast_pairs: int = 0
    _dropped: dict[tuple[What, str], list[str]] = field(default_factory=dict)
    _counts: dict[tuple[What, str], int] = field(default_factory=dict)
    _changes: dict[str, tuple[int, tuple[str, ...]]] = field(default_factory=dict)

    def drop(self, what: What, reason: str, place: str) -> None:
        """Count one row, part or pair that is not used."""
        key = (what, reason)
        self._counts[key] = self._counts.get(key, 0) + 1
        examples = self._dropped.setdefault(key, [])
        if len(examples) < _EXAMPLES and place not in examples:
            examples.append(place)

    def change(self, what: str, place: str) -> None:
        """Count one row of which something was read differently, or not read."""
        count, examples = self._changes.get(what, (0, ()))
        self._changes[what] = count + 1, examples if len(examples) == _EXAMPLES else (*examples, place)

    def dropped(self) -> tuple[Dropped, ...]:
        """What was not used, rows first, the most frequent reason first."""
        order = ("row", "part", "pair")
        keys = sorted(self._counts, key=lambda key: (order.index(key[0]), -self._counts[key], key[1]))
        return tuple(Dropped(*key, self._counts[key], tuple(self._dropped[key])) for key in keys)

    def report(self) -> SourceReport:
        dropped = self.dropped()
        lost = sum(entry.count for entry in dropped if entry.what == "pair")
        return SourceReport(
            self.name,
            self.split,
            self.rows,
            self.rows_used,
            self.pairs_made,
            self.pairs_made - lost,
            self.contrast_pairs,
            self.weight,
            dropped,
            tuple(Change(what, *found) for what, found in self._changes.items()),
        )


@dataclass(frozen=True, eq=False)
class Found:
    """A preference pair, where it stands, and the books of its source."""

    pair: PreferencePair
    place: str
    ledger: Ledger


def prompt_key(prompt: Messages) -> tuple[tuple[str, str], ...]:
    """Equal for equal conversations."""
    return tuple((message["role"], message["content"]) for message in prompt)


def preference_key(pair: PreferencePair) -> Hashable:
    """Equal for equal preferences."""
    return frozenset(pair.preference.items()), frozenset(pair.texts.items())


def pair_key(pair: PreferencePair) -> tuple[Hashable, str, str]:
    """Equal for equal pairs; the question (prompt and preference), then the chosen and the rejected answer."""
    return (prompt_key(pair.prompt), preference_key(pair)), pair.chosen, pair.rejected


def label(pair: PreferencePair) -> str:
    """A pair's preference in words."""
    return Preference(pair.preference, pair.texts).describe()
