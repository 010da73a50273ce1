"""The data report: what splits are like, and the whole as tables of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pad_cli.pairs.cleaning import prompt_key
from pad_cli.preference import Preference
from pad_cli.records import DataReport, Dropped, PreferencePair, PreferenceReport, SourceReport, SplitReport

_SHOWN = 64  # preferences that a report describes one by one


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        title: what it shows.
        header: names of its columns.
        rows: each as long as the header.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def split_report(name: str, pairs: Sequence[PreferencePair]) -> SplitReport:
    """What a split's pairs are like; lengths in characters."""
    keys = [prompt_key(pair.prompt) for pair in pairs]
    answers = {(key, text) for key, pair in zip(keys, pairs, strict=True) for text in (pair.chosen, pair.rejected)}
    by_preference: dict[str, list[PreferencePair]] = {}
    for pair in pairs:
        by_preference.setdefault(Preference(pair.preference, pair.texts).describe(), []).append(pair)
    frequent = sorted(by_preference.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    return SplitReport(
        name=name,
        pairs=len(pairs),
        prompts=len(set(keys)),
        answers=len(answers),
        mean_prompt=_mean(sum(len(content) for _, content in key) for key in set(keys)),
        mean_answer=_mean(len(text) for _, text in answers),
        preferences={words: _preference_report(group) for words, group in frequent[:_SHOWN]},
        more_preferences=max(len(frequent) - _SHOWN, 0),
    )


def describe(report: DataReport, most: int = _SHOWN) -> list[Table]:
    """The report as tables: the sources, what was not used or read differently, the splits, and their preferences.

    Args:
        report: on the data.
        most: preferences of a split that are described one by one.
    """
    dropped = [_dropped_row(source, entry) for source in report.sources for entry in source.dropped]
    changes = [
        (source.name, source.split, f"{entry.count:,}", entry.change, ", ".join(entry.examples))
        for source in report.sources
        for entry in source.changes
    ]
    preferences = [row for split in report.splits for row in _preference_rows(split, most)]
    tables = [
        Table(
            "Sources",
            ("source", "split", "rows", "used", "pairs", "kept", "contrast", "weight"),
            tuple(_source_row(source) for source in report.sources),
        ),
        Table("Not used", ("source", "split", "how many", "why", "for example"), tuple(dropped)),
        Table("Read differently, or not read", ("source", "split", "rows", "what", "for example"), tuple(changes)),
        Table(
            "Splits (lengths in characters)",
            ("split", "pairs", "prompts", "answers", "mean prompt", "mean answer"),
            tuple(_split_row(split) for split in report.splits),
        ),
        Table(
            "Preferences (longer: share of chosen answers that are; mean lengths in characters)",
            ("split", "preference", "pairs", "longer", "chosen", "rejected"),
            tuple(preferences),
        ),
    ]
    return [table for table in tables if table.rows]


def as_lines(tables: Iterable[Table]) -> list[str]:
    """Tables as plain text, columns aligned."""
    lines: list[str] = []
    for table in tables:
        widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
        lines += ["", table.title] if lines else [table.title]
        for row in (table.header, *table.rows):
            lines.append("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return lines


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


def _dropped_row(source: SourceReport, entry: Dropped) -> tuple[str, ...]:
    how_many = f"{entry.count:,} {entry.what}{'s' if entry.count > 1 else ''}"
    return source.name, source.split, how_many, entry.reason, ", ".join(entry.examples)


def _preference_rows(split: SplitReport, most: int) -> Iterator[tuple[str, ...]]:
    for words, one in list(split.preferences.items())[:most]:
        yield (split.name, words, *_preference_cells(one))
    if more := split.more_preferences + max(0, len(split.preferences) - most):
        yield split.name, f"({more:,} more)", "", "", "", ""


def _preference_cells(one: PreferenceReport) -> tuple[str, ...]:
    return f"{one.pairs:,}", f"{one.chosen_longer:.2f}", f"{one.mean_chosen:.0f}", f"{one.mean_rejected:.0f}"


def _source_row(source: SourceReport) -> tuple[str, ...]:
    counts = (source.rows, source.rows_used, source.pairs_made, source.pairs_kept, source.contrast_pairs)
    return (source.name, source.split, *(f"{count:,}" for count in counts), f"{source.weight:g}")


def _split_row(split: SplitReport) -> tuple[str, ...]:
    counts = (split.pairs, split.prompts, split.answers)
    return (split.name, *(f"{count:,}" for count in counts), f"{split.mean_prompt:.0f}", f"{split.mean_answer:.0f}")
