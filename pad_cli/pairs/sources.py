"""From one source of a recipe to its pairs: rows, then their format, then their preferences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from pad_cli.errors import DataError
from pad_cli.pairs.data_sets import scan_data_set
from pad_cli.pairs.files import scan_file
from pad_cli.pairs.ledger import Found, Ledger
from pad_cli.pairs.preferences import PreferenceReader
from pad_cli.pairs.readings import PairFormat, RawPair, Reading
from pad_cli.pairs.rows import Row, RowError
from pad_cli.recipe import PairsSettings, make_with, read_options
from pad_cli.records import PreferencePair
from pad_cli.registry import PAIR_FORMATS

_SHOWN = 20  # bad rows that an error lists


def read_source(
    settings: PairsSettings, key: str, split: str, reader: PreferenceReader, *, drop_bad: bool
) -> tuple[list[Found], Ledger]:
    """The pairs of one source, not yet cleaned, and its books.

    Args:
        settings: where the rows are and what they mean.
        key: the recipe's key of these settings, for messages.
        split: what the pairs are for.
        reader: reads preferences.
        drop_bad: leave out rows that cannot be read, and count them.

    Raises:
        DataError: the source cannot be read or is empty; or some of its rows cannot, of which it names up to 20.
        RecipeError: the format does not take these options.
        UsageError: there is no such format.
    """
    pair_format = _format(settings, key)
    rows, readings = _scan(settings)
    if not rows and not readings:
        hint = "One JSON object a line." if settings.path else "Check `split`."
        raise DataError("has no rows", path=settings.path or settings.dataset, hint=hint)
    ledger = Ledger(_name(settings), split, settings.weight)
    found: list[Found] = []
    bad: list[tuple[Row, RowError]] = []
    for reading in [*readings, *pair_format.read(rows)]:
        ledger.rows += len(reading.rows)
        problem, place = reading.problem, reading.rows[0].place
        pairs: list[PreferencePair] = []
        if problem is None:
            try:
                pairs = [_with_preference(raw, reader, place) for raw in reading.pairs]
            except RowError as error:
                problem = error
        if problem is not None:
            bad.append((reading.rows[0], problem))
        for row in reading.rows if not pairs else ():
            ledger.drop("row", problem.kind if problem else reading.reason, row.place)
        for part in reading.parts if pairs else ():
            ledger.drop("part", part, place)
        for row in reading.rows if pairs else ():
            for change in row.all_changes():
                ledger.change(change, row.place)
        ledger.rows_used += len(reading.rows) if pairs else 0
        ledger.pairs_made += len(pairs)
        found += [Found(pair, place, ledger) for pair in pairs]
    if bad and not drop_bad:
        raise _bad_rows(bad)
    return found, ledger


def read_pairs(path: Path) -> tuple[PreferencePair, ...]:
    """All pairs of a file with prompt, preference, chosen and rejected, as they stand.

    Raises:
        DataError: the file is missing, empty, or lines are wrong; names file, line and field.
    """
    settings = PairsSettings(path=str(path))
    found, _ = read_source(settings, "path", "train", PreferenceReader(None), drop_bad=False)
    return tuple(one.pair for one in found)


def _scan(settings: PairsSettings) -> tuple[list[Row], list[Reading]]:
    """The rows that could be parsed, and a reading with its problem for each of the others."""
    if settings.path is None:
        return list(scan_data_set(settings)), []
    scanned = list(scan_file(Path(settings.path)))
    rows = [row for row, problem in scanned if problem is None]
    return rows, [Reading((row,), problem=problem) for row, problem in scanned if problem is not None]


def _format(settings: PairsSettings, key: str) -> PairFormat:
    make = PAIR_FORMATS.get(settings.format)
    where, hint = f"{key}: options of the format '{settings.format}'", "See docs/training.md for what it takes."
    modelled = isinstance(make, type) and issubclass(make, BaseModel)
    pair_format: PairFormat = (read_options if modelled else make_with)(make, settings.options, where, hint)
    return pair_format


def _with_preference(raw: RawPair, reader: PreferenceReader, place: str) -> PreferencePair:
    preference = reader.read(raw.preference)
    return PreferencePair(raw.prompt, preference.weights, raw.chosen, raw.rejected, preference.texts, place)


def _name(settings: PairsSettings) -> str:
    if settings.path is not None:
        return settings.path
    config = f"/{settings.config}" if settings.config else ""
    return f"{settings.dataset}{config} [{settings.split}]"


def _bad_rows(bad: Sequence[tuple[Row, RowError]]) -> DataError:
    """One row's own error; of several, all in one, in the file's order."""
    bad = sorted(bad, key=lambda entry: entry[0].number)
    errors = [problem.at(row) for row, problem in bad[:_SHOWN]]
    if len(bad) == 1:
        return errors[0]
    lines = [f"  {error.message}" for error in errors]
    if len(bad) > _SHOWN:
        lines.append(f"  and {len(bad) - _SHOWN} more")
    hints = list(dict.fromkeys(error.hint for error in errors if error.hint))[:3]
    return DataError(
        "\n".join([f"{len(bad)} rows cannot be read", *lines]),
        path=bad[0][0].origin,
        hint="\n".join([*hints, "`data.bad_rows: drop` leaves such rows out and counts them."]),
    )
