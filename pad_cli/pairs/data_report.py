"""The data report: what splits are like, and the whole as tables of text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from pad_cli.pairs.ledger import label, prompt_key
from pad_cli.records import DataReport, PreferencePair, PreferenceReport, SplitReport
from pad_cli.reports.document import Table

_LISTED = 64  # preferences that a report describes one by one


def split_report(name: str, pairs: Sequence[PreferencePair]) -> SplitReport:
    """What a split's pairs are like; lengths in characters."""
    keys = [prompt_key(pair.prompt) for pair in pairs]
    answers = {(key, text) for key, pair in zip(keys, pairs, strict=True) for text in (pair.chosen, pair.rejected)}
    by_preference: dict[str, list[PreferencePair]] = {}
    for pair in pairs:
        by_preference.setdefault(label(pair), []).append(pair)
    frequent = sorted(by_preference.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    return SplitReport(
        name=name,
        pairs=len(pairs),
        prompts=len(set(keys)),
        answers=len(answers),
        mean_prompt=_mean(sum(len(content) for _, content in key) for key in set(keys)),
        mean_answer=_mean(len(text) for _, text in answers),
        preferences={words: _preference_report(group) for words, group in frequent[:_LISTED]},
        more_preferences=max(len(frequent) - _LISTED, 0),
    )


def describe(report: DataReport, most: int = _LISTED) -> list[Table]:
    """The report as tables: the sources, what was not used or read differently, the splits, and their preferences.

    Args:
        report: on the data.
        most: preferences of a split that are described one by one.
    """
    sources = [
        (
            *(source.name, source.split),
            *_counts(source.rows, source.rows_used, source.pairs_made, source.pairs_kept, source.contrast_pairs),
            f"{source.weight:g}",
        )
        for source in report.sources
    ]
    dropped = [
        (
            *(source.name, source.split, f"{each.count:,} {each.what}{'s' if each.count > 1 else ''}"),
            *(each.reason, ", ".join(each.examples)),
        )
        for source in report.sources
        for each in source.dropped
    ]
    changes = [
        (source.name, source.split, f"{each.count:,}", each.change, ", ".join(each.examples))
        for source in report.sources
        for each in source.changes
    ]
    splits = [
        (
            split.name,
            *_counts(split.pairs, split.prompts, split.answers),
            *(f"{split.mean_prompt:.0f}", f"{split.mean_answer:.0f}"),
        )
        for split in report.splits
    ]
    preferences = [row for split in report.splits for row in _preference_rows(split, most)]
    tables = [
        _table("Sources", ["source", "split", "rows", "used", "pairs", "kept", "contrast", "weight"], sources),
        _table("Not used", ["source", "split", "how many", "why", "for example"], dropped),
        _table("Read differently, or not read", ["source", "split", "rows", "what", "for example"], changes),
        _table(
            "Splits (lengths in characters)",
            ["split", "pairs", "prompts", "answers", "mean prompt", "mean answer"],
            splits,
        ),
        _table(
            "Preferences (longer: share of chosen answers that are; mean lengths in characters)",
            ["split", "preference", "pairs", "longer", "chosen", "rejected"],
            preferences,
        ),
    ]
    return [table for table in tables if table.rows]


def _preference_report(pairs: Sequence[PreferencePair]) -> PreferenceReport:
    longer = ((len(pair.chosen) > len(pair.rejected)) + (len(pair.chosen) >= len(pair.rejected)) for pair in pairs)
    return PreferenceReport(
        pairs=len(pairs),
        chosen_longer=_mean(twice / 2 for twice in longer),
        mean_chosen=_mean(len(pair.chosen) for pair in pairs),
        mean_rejected=_mean(len(pair.rejected) for pair in pairs),
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0


def _preference_rows(split: SplitReport, most: int) -> Iterator[tuple[str, ...]]:
    for words, one in list(split.preferences.items())[:most]:
        lengths = (f"{one.mean_chosen:.0f}", f"{one.mean_rejected:.0f}")
        yield split.name, words, f"{one.pairs:,}", f"{one.chosen_longer:.2f}", *lengths
    if more := split.more_preferences + max(0, len(split.preferences) - most):
        yield split.name, f"({more:,} more)", "", "", "", ""


def _counts(*counts: int) -> Iterator[str]:
    return (f"{count:,}" for count in counts)


def _table(title: str, header: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Table:
    """A table whose columns of numbers stand to the right."""
    numeric = [all(re.fullmatch(r"[\d,.]*", cell) for cell in column) for column in zip(*rows, strict=True)]
    return Table(header, rows, "".join(">" if each else "<" for each in numeric), title)
