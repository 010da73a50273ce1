"""From one source of a recipe to its pairs: rows, then their format, then their preferences; and cleaning pairs."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from pad_cli.errors import DataError, PreferenceError
from pad_cli.pairs.files import scan_data_set, scan_file
from pad_cli.pairs.parsed_rows import PairFormat, ParsedRows, RawPair, Row, RowError, is_text
from pad_cli.preference import LARGEST, Preference, parse_preference
from pad_cli.recipe import PairsSettings, make_with, read_options
from pad_cli.records import Messages, PreferencePair, SourceReport
from pad_cli.registry import PAIR_FORMATS

_MOST_ERRORS = 20  # bad rows that an error lists


class SourcedPair(NamedTuple):
    """A preference pair, and the report on its source."""

    pair: PreferencePair
    source: SourceReport

    def drop(self, reason: str) -> None:
        self.source.drop("pair", reason, self.pair.place)


def read_preference(value: Any, principles: Sequence[str] | None) -> Preference:
    """The preference of a row, with at least one weight that is not zero (RowError: it has none, or another form).

    Args:
        value: a name, a list of names, or a map of names to weights.
        principles: the names that are known; anything else is a specification (`not formal`, `a, b`) or free text.
            None: every name is a principle, whatever it looks like.
    """
    weights: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    for name, weight in _weights(value).items():
        part = _parse(name, None if principles is None else tuple(principles))
        weights.update({key: weight * share for key, share in part.weights.items()})
        texts.update({key: weight * share for key, share in part.texts.items()})
    preference = Preference({k: w for k, w in weights.items() if w}, {t: w for t, w in texts.items() if w})
    if not preference or not all(map(math.isfinite, [*weights.values(), *texts.values()])):
        hint = "Leave the row out, or give a weight."
        raise RowError("no weight other than zero", field="preference", hint=hint)
    return preference


def _weights(value: Any) -> dict[str, float]:
    """Name or text to weight."""
    if is_text(value):
        return {value.strip(): 1.0}
    if isinstance(value, list) and value and all(is_text(name) for name in value):
        return {name: float(count) for name, count in Counter(name.strip() for name in value).items()}
    if isinstance(value, dict) and all(is_text(name) for name in value):
        # a data set gives every row all keys, and None where a row has none
        weights = {name.strip(): weight for name, weight in value.items() if weight is not None}
        if weights and all(type(w) in (int, float) and abs(w) <= LARGEST for w in weights.values()):
            return {name: float(weight) for name, weight in weights.items()}
    raise RowError(
        "neither a name, a list of names, nor a map of names to weights",
        field="preference",
        hint='Write "preference": "humorous" or "preference": {"humorous": 1, "formal": -1}.',
    )


@functools.lru_cache(maxsize=4096)  # most rows share their preference with many others
def _parse(name: str, principles: tuple[str, ...] | None) -> Preference:
    if principles is None:
        return Preference({name: 1.0}, {})
    try:
        return parse_preference([name], principles, accepts_text=True)
    except PreferenceError as error:
        raise RowError(error.message, field="preference", hint=error.hint) from error


def read_source(
    settings: PairsSettings, key: str, split: str, principles: Sequence[str] | None, *, drop_bad: bool
) -> tuple[list[SourcedPair], SourceReport]:
    """The pairs of one source, not yet cleaned, and the report on it; `key` is the recipe's key, for messages.

    Raises a DataError that names up to 20 bad rows, unless these are to be dropped.
    """
    pair_format = _format(settings, key)
    config = f"/{settings.config}" if settings.config else ""
    report = SourceReport(
        settings.path or f"{settings.dataset}{config} [{settings.split}]", split, weight=settings.weight
    )
    rows = list(scan_data_set(settings) if settings.path is None else scan_file(Path(settings.path)))
    if not rows:
        hint = "One JSON object a line." if settings.path else "Check `split`."
        raise DataError("has no rows", path=settings.path or settings.dataset, hint=hint)
    sourced: list[SourcedPair] = []
    bad: list[tuple[Row, RowError]] = []
    unparsed = [ParsedRows((row,), problem=row.problem) for row in rows if row.problem is not None]
    for parsed in [*unparsed, *pair_format.read([row for row in rows if row.problem is None])]:
        pairs: list[PreferencePair] = []
        problem = parsed.problem
        if problem is None:
            try:
                pairs = [_pair(raw, parsed.rows[0].place, principles) for raw in parsed.pairs]
            except RowError as error:
                problem = error
        if problem is not None:
            bad.append((parsed.rows[0], problem))
        _count(report, parsed, len(pairs), parsed.reason if problem is None else problem.kind)
        sourced += [SourcedPair(pair, report) for pair in pairs]
    if bad and not drop_bad:
        raise _bad_rows(bad)
    return sourced, report


def _pair(raw: RawPair, place: str, principles: Sequence[str] | None) -> PreferencePair:
    preference = read_preference(raw.preference, principles)
    return PreferencePair(raw.prompt, preference.weights, raw.chosen, raw.rejected, preference.texts, place)


def _format(settings: PairsSettings, key: str) -> PairFormat:
    entry = PAIR_FORMATS.get(settings.format)
    where, hint = f"{key}: options of the format '{settings.format}'", "See docs/training.md for what it takes."
    is_model = isinstance(entry, type) and issubclass(entry, BaseModel)
    pair_format: PairFormat = (read_options if is_model else make_with)(entry, settings.options, where, hint)
    return pair_format


def _count(report: SourceReport, parsed: ParsedRows, pairs: int, reason: str) -> None:
    report.rows += len(parsed.rows)
    report.pairs_made += pairs
    report.pairs_kept += pairs
    if not pairs:
        for row in parsed.rows:
            report.drop("row", reason, row.place)
        return
    report.rows_used += len(parsed.rows)
    for part in parsed.parts:
        report.drop("part", part, parsed.rows[0].place)
    for row in parsed.rows:
        for change in row.all_changes():
            report.change(change, row.place)


def _bad_rows(bad: Sequence[tuple[Row, RowError]]) -> DataError:
    """One row's own error; several in one error, in the file's order."""
    bad = sorted(bad, key=lambda entry: entry[0].number)
    errors = [problem.at(row) for row, problem in bad[:_MOST_ERRORS]]
    if len(bad) == 1:
        return errors[0]
    lines = [f"{len(bad)} rows cannot be read", *(f"  {error.message}" for error in errors)]
    lines += [f"  and {len(bad) - _MOST_ERRORS} more"] if len(bad) > _MOST_ERRORS else []
    hints = list(dict.fromkeys(error.hint for error in errors if error.hint))[:3]
    hints.append("`data.bad_rows: drop` leaves such rows out and counts them.")
    return DataError("\n".join(lines), path=bad[0][0].origin, hint="\n".join(hints))


# Taking out what teaches nothing, and adding contrast pairs


def prompt_key(prompt: Messages) -> tuple[tuple[str, str], ...]:
    """Equal for equal conversations."""
    return tuple((message["role"], message["content"]) for message in prompt)


def preference_key(pair: PreferencePair) -> Hashable:
    """Equal for equal preferences."""
    return frozenset(pair.preference.items()), frozenset(pair.texts.items())


def pair_key(pair: PreferencePair) -> tuple[Hashable, str, str]:
    """Equal for equal pairs; the question (prompt and preference), then the chosen and the rejected answer."""
    return (prompt_key(pair.prompt), preference_key(pair)), pair.chosen, pair.rejected


def clean(pairs: Iterable[SourcedPair]) -> list[SourcedPair]:
    """Drop pairs with equal answers, exact duplicates (all but the first), and contradictions (all of them)."""
    first: dict[tuple[Hashable, str, str], SourcedPair] = {}
    for sourced in pairs:
        if sourced.pair.chosen.strip() == sourced.pair.rejected.strip():
            sourced.drop("chosen equals rejected")
        elif first.setdefault(pair_key(sourced.pair), sourced) is not sourced:
            sourced.drop("duplicate")
    consistent = []
    for (question, chosen, rejected), sourced in first.items():
        if (question, rejected, chosen) in first:
            sourced.drop("contradiction: the same two answers also the other way round")
        else:
            consistent.append(sourced)
    return consistent


def without_leaks(pairs: Sequence[SourcedPair], validation: Iterable[PreferencePair]) -> list[SourcedPair]:
    """Training pairs whose prompt no validation pair has, white space and letter case aside."""
    measured = {normalised_prompt(pair) for pair in validation}
    clear = []
    for sourced in pairs:
        if normalised_prompt(sourced.pair) in measured:
            sourced.drop("prompt of a validation split")
        else:
            clear.append(sourced)
    return clear


def normalised_prompt(pair: PreferencePair) -> str:
    """A text that is equal for prompts which differ in white space and letter case only."""
    texts = ((message["role"], " ".join(message["content"].split()).casefold()) for message in pair.prompt)
    return "\0".join(f"{role}\0{text}" for role, text in texts)


def contrast_pairs(pairs: Sequence[SourcedPair]) -> list[SourcedPair]:
    """The pairs that follow where the answers to a prompt were each written for one preference.

    They separate a preference from quality: when an answer is chosen under one preference and rejected under another,
    only the preference can tell why. Answers were written so, for a prompt and source, when there are at least two
    preferences, each a single one of weight 1; every chosen answer is chosen under one of them only; and every rejected
    answer is chosen under another. Then each answer beats, under its own preference, every answer of another one.

    Returns:
        Those pairs that are not among the given ones, and contradict none of them.
    """
    known = {pair_key(pair) for pair, _ in pairs}
    groups: dict[Hashable, list[SourcedPair]] = {}
    for sourced in pairs:
        groups.setdefault((id(sourced.source), prompt_key(sourced.pair.prompt)), []).append(sourced)
    added = []
    for group in groups.values():
        written = _written_for([pair for pair, _ in group])
        source = group[0].source
        for winner, loser in permutations(written.values(), 2):
            if preference_key(winner) == preference_key(loser):
                continue
            pair = replace(winner, rejected=loser.chosen)
            question, chosen, rejected = key = pair_key(pair)
            if key not in known and (question, rejected, chosen) not in known:
                known.add(key)
                source.contrast_pairs += 1
                added.append(SourcedPair(pair, source))
    return added


def _written_for(group: Sequence[PreferencePair]) -> dict[str, PreferencePair]:
    """Answer to a pair of the preference it was written for; empty where answers were not written so."""
    written: dict[str, PreferencePair] = {}
    for pair in group:
        other = written.setdefault(pair.chosen, pair)
        if [*pair.preference.values(), *pair.texts.values()] != [1.0] or preference_key(other) != preference_key(pair):
            return {}
    for pair in group:
        loser = written.get(pair.rejected)
        if loser is None or preference_key(loser) == preference_key(pair):
            return {}
    return written
