"""The data report: what splits are like, and the whole as tables of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict

from pad_cli.pairs.cleaning import prompt_key
from pad_cli.preference import Preference
from pad_cli.records import DataReport, PreferencePair, PreferenceReport, SplitReport
from pad_cli.reports.document import Column, Row, Table, number

_LISTED = 64  # preferences that a report describes one by one


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
        preferences={words: _preference_report(group) for words, group in frequent[:_LISTED]},
        more_preferences=max(len(frequent) - _LISTED, 0),
    )


def describe(report: DataReport, most: int = _LISTED) -> list[Table]:
    """The report as tables: sources, what was not used or read differently, splits, and the preferences of each."""
    content = asdict(report)
    sources, splits = content["sources"], content["splits"]
    place: dict[str, Column] = {"source": "source", "split": "split"}
    examples: dict[str, Column] = {"for example": lambda row: ", ".join(row["examples"])}
    counts = {"rows": "rows", "used": "rows_used", "pairs": "pairs_made", "kept": "pairs_kept"}
    counts["contrast"] = "contrast_pairs"

    def parts(key: str) -> list[Row]:
        return [{**each, "source": of["name"], "split": of["split"]} for of in sources for each in of[key]]

    def numbers(keys: Mapping[str, str], digits: str = ",") -> dict[str, Column]:
        return {name: number(key, digits) for name, key in keys.items()}

    lengths = {"mean prompt": "mean_prompt", "mean answer": "mean_answer"}
    tables = [
        Table.of(
            sources,
            {"source": "name", "split": "split"},
            {**numbers(counts), "weight": number("weight", "g")},
            "Sources",
        ),
        Table.of(parts("dropped"), {**place, "how many": _how_many, "why": "reason", **examples}, {}, "Not used"),
        Table.of(
            parts("changes"),
            {**place, "rows": number("count"), "what": "change", **examples},
            {},
            "Read differently, or not read",
        ),
        Table.of(
            splits,
            {"split": "name"},
            {**numbers({name: name for name in ("pairs", "prompts", "answers")}), **numbers(lengths, ".0f")},
            "Splits (lengths in characters)",
        ),
        Table.of(
            [row for split in splits for row in _preferences(split, most)],
            {"split": "split", "preference": "preference"},
            {
                "pairs": number("pairs"),
                "longer": number("chosen_longer", ".2f"),
                **numbers({"chosen": "mean_chosen", "rejected": "mean_rejected"}, ".0f"),
            },
            "Preferences (longer: share of chosen answers that are; mean lengths in characters)",
        ),
    ]
    return [table for table in tables if table.rows]


def _how_many(row: Row) -> str:
    return f"{row['count']:,} {row['what']}{'s' * (row['count'] > 1)}"


def _preferences(split: Row, most: int) -> Iterator[Row]:
    for words, one in list(split["preferences"].items())[:most]:
        yield {"split": split["name"], "preference": words, **one}
    if more := split["more_preferences"] + max(0, len(split["preferences"]) - most):
        empty = dict.fromkeys(("pairs", "chosen_longer", "mean_chosen", "mean_rejected"))
        yield {"split": split["name"], "preference": f"({more:,} more)", **empty}


def _preference_report(pairs: Sequence[PreferencePair]) -> PreferenceReport:
    longer = ((len(pair.chosen) > len(pair.rejected)) + (len(pair.chosen) >= len(pair.rejected)) for pair in pairs)
    return PreferenceReport(
        pairs=len(pairs),
        chosen_longer=_mean(twice / 2 for twice in longer),
        mean_chosen=_mean(len(pair.chosen) for pair in pairs),
        mean_rejected=_mean(len(pair.rejected) for pair in pairs),
    )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
