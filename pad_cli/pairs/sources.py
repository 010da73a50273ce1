"""From one source of a recipe to its pairs: rows, then their format, then their preferences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from pad_cli.errors import DataError, PreferenceError
from pad_cli.pairs.cleaning import SourcedPair
from pad_cli.pairs.files import scan_data_set, scan_file
from pad_cli.pairs.parsed_rows import PairFormat, ParsedRows, Row, RowError, is_text
from pad_cli.preference import LARGEST, Preference, parse_preference
from pad_cli.recipe import PairsSettings, make_with, read_options
from pad_cli.records import PreferencePair, SourceReport
from pad_cli.registry import PAIR_FORMATS

_MOST_ERRORS = 20  # bad rows that an error lists


class PreferenceReader:
    """Reads the preferences of rows; most rows share theirs with many others, so each is parsed once.

    Args:
        principles: the names that are known; anything else is a specification (`not formal`, `a, b`) or free text.
            None: every name is a principle, whatever it looks like.
    """

    def __init__(self, principles: Sequence[str] | None) -> None:
        self._principles = principles
        self._parsed: dict[str, Preference] = {}

    def read(self, value: Any) -> Preference:
        """One preference, with at least one weight that is not zero."""
        key = repr(value)
        if key not in self._parsed:
            self._parsed[key] = self._parse(value)
        return self._parsed[key]

    def _parse(self, value: Any) -> Preference:
        weights: Counter[str] = Counter()
        texts: Counter[str] = Counter()
        for name, weight in _weights(value).items():
            part = Preference({name: 1.0}, {})
            if self._principles is not None:
                try:
                    part = parse_preference([name], self._principles, accepts_text=True)
                except PreferenceError as error:
                    raise RowError(error.message, field="preference", hint=error.hint) from error
            weights.update({key: weight * share for key, share in part.weights.items()})
            texts.update({key: weight * share for key, share in part.texts.items()})
        preference = Preference({k: w for k, w in weights.items() if w}, {t: w for t, w in texts.items() if w})
        if not preference or not all(map(math.isfinite, [*weights.values(), *texts.values()])):
            hint = "Leave the row out, or give a weight."
            raise RowError("no weight other than zero", field="preference", hint=hint)
        return preference


def _weights(value: Any) -> dict[str, float]:
    """A name, a list of names or a map of weights, as name or text to weight."""
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


def read_source(
    settings: PairsSettings, key: str, split: str, reader: PreferenceReader, *, drop_bad: bool
) -> tuple[list[SourcedPair], SourceReport]:
    """The pairs of one source, not yet cleaned, and the report on it; `key` is the recipe's key, for messages.

    Raises a DataError that names up to 20 bad rows, unless these are to be dropped.
    """
    pair_format = _format(settings, key)
    config = f"/{settings.config}" if settings.config else ""
    name = settings.path or f"{settings.dataset}{config} [{settings.split}]"
    rows = list(scan_data_set(settings) if settings.path is None else scan_file(Path(settings.path)))
    if not rows:
        hint = "One JSON object a line." if settings.path else "Check `split`."
        raise DataError("has no rows", path=settings.path or settings.dataset, hint=hint)
    report = SourceReport(name, split, weight=settings.weight)
    sourced: list[SourcedPair] = []
    bad: list[tuple[Row, RowError]] = []
    unparsed = [ParsedRows((row,), problem=row.problem) for row in rows if row.problem is not None]
    for parsed in [*unparsed, *pair_format.read([row for row in rows if row.problem is None])]:
        problem, place = parsed.problem, parsed.rows[0].place
        pairs: list[PreferencePair] = []
        try:
            for raw in parsed.pairs if problem is None else ():
                preference = reader.read(raw.preference)
                weights, texts = preference.weights, preference.texts
                pairs.append(PreferencePair(raw.prompt, weights, raw.chosen, raw.rejected, texts, place))
        except RowError as error:
            pairs, problem = [], error
        if problem is not None:
            bad.append((parsed.rows[0], problem))
        _count(report, parsed, len(pairs), parsed.reason if problem is None else problem.kind)
        sourced += [SourcedPair(pair, report) for pair in pairs]
    if bad and not drop_bad:
        raise _bad_rows(bad)
    return sourced, report


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
