"""`load_pairs`: everything a recipe's `data` asks for, cleaned, counted and described."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from pad_cli.errors import DataError, RecipeError
from pad_cli.pairs.cleaning import clean, normalised_prompts, without_leaks
from pad_cli.pairs.contrast import contrast_pairs
from pad_cli.pairs.data_report import split_report
from pad_cli.pairs.ledger import Found, Ledger
from pad_cli.pairs.preferences import PreferenceReader
from pad_cli.pairs.sources import read_source
from pad_cli.pairs.wordings import read_wordings, worded_splits
from pad_cli.recipe import DataSettings, PairsSettings
from pad_cli.recipe.options import make_with
from pad_cli.records import DataReport, PairData, PairSplit, PreferencePair
from pad_cli.registry import PAIR_SOURCES

_MOST_NAMES = 64  # more distinct names are hardly principles: every one would get its own head
_HELD_OUT = "held_out"


def load_pairs(settings: DataSettings, seed: int, principles: Sequence[str] | None = None) -> PairData:
    """The pairs a recipe asks for, with a report of what was left out and why.

    Sources are read and cleaned; training pairs whose prompt is in a validation split are dropped; prompts are held
    out; contrast pairs are added; each source is repeated or thinned by its weight; `limit` draws from the whole. Every
    draw is decided by the seed.

    Args:
        settings: the recipe's `data`.
        seed: of all draws.
        principles: the names that have a head. A preference in a row is then read as a user types it: names, weights,
            `not formal`, free text. An empty sequence makes everything free text. None: every distinct name is a
            principle.

    Raises:
        DataError: a source cannot be read, a row is wrong, or nothing is left.
        RecipeError: a source or format does not take the given options.
        UsageError: there is no such source or format.
    """
    reader = PreferenceReader(principles)
    if _HELD_OUT in settings.validation and settings.validation_share:
        raise RecipeError(
            f"data.validation: `{_HELD_OUT}` is the name of what `validation_share` holds out.",
            "Give your split another name, or leave out `validation_share`.",
        )
    texts, held_out = read_wordings(settings.texts)
    splits, ledgers = _validation(settings, reader)
    measured = [pair for split in splits for pair in split.pairs]
    if settings.source is not None:
        found, books, made = _from_registry(settings, seed)
        splits, texts = [*made.validation, *splits], {**made.texts, **texts}
    else:
        found, books = _training(settings, reader)
    found = without_leaks(found, measured)
    _refuse_nothing("training", found, books)
    if settings.validation_share:
        found, held = _hold_out(found, settings.validation_share, seed)
        splits.append(PairSplit(_HELD_OUT, tuple(one.pair for one in held)))
    splits += worded_splits(splits, held_out)
    if settings.contrast and settings.source is None:
        found = [*found, *contrast_pairs(found)]
    train = [pair for number, book in enumerate(books) for pair in _weighted(found, book, f"{seed} source {number}")]
    if settings.limit is not None and settings.limit < len(train):
        train = random.Random(seed).sample(train, settings.limit)
    if principles is None:
        _refuse_many_names([*train, *(pair for split in splits for pair in split.pairs)])
    described = [split_report("train", train), *(split_report(split.name, split.pairs) for split in splits)]
    report = DataReport(tuple(book.report() for book in [*books, *ledgers]), tuple(described))
    return PairData(tuple(train), tuple(splits), texts, report)


def _from_registry(settings: DataSettings, seed: int) -> tuple[list[Found], list[Ledger], PairData]:
    """What a registered source writes, as it writes it."""
    assert settings.source is not None
    entry, given = PAIR_SOURCES.get(settings.source), {"seed": seed, **settings.options}
    data: PairData = make_with(entry, given, "data.options", f"See the options of the source '{settings.source}'.")
    count = len(data.train)
    book = Ledger(settings.source, "train", rows=count, rows_used=count, pairs_made=count)
    found = [Found(pair, f"{settings.source}[{number}]", book) for number, pair in enumerate(data.train)]
    return found, [book], data


def _validation(settings: DataSettings, reader: PreferenceReader) -> tuple[list[PairSplit], list[Ledger]]:
    splits, ledgers = [], []
    for name, source in settings.validation.items():
        read = read_source(
            _as_source(source), f"data.validation.{name}", name, reader, drop_bad=settings.bad_rows == "drop"
        )
        found = clean(read[0])
        _refuse_nothing(f"validation ({name})", found, [read[1]])
        splits.append(PairSplit(name, tuple(one.pair for one in found)))
        ledgers.append(read[1])
    return splits, ledgers


def _training(settings: DataSettings, reader: PreferenceReader) -> tuple[list[Found], list[Ledger]]:
    """All training sources, cleaned together: a pair that two of them hold is trained on once."""
    single = not isinstance(settings.train, list)
    sources = settings.train if isinstance(settings.train, list) else [settings.train]
    found: list[Found] = []
    ledgers = []
    for number, source in enumerate(sources):
        assert source is not None
        key = "data.train" if single else f"data.train.{number}"
        read = read_source(_as_source(source), key, "train", reader, drop_bad=settings.bad_rows == "drop")
        found += read[0]
        ledgers.append(read[1])
    return clean(found), ledgers


def _as_source(source: str | PairsSettings) -> PairsSettings:
    return PairsSettings(path=source) if isinstance(source, str) else source


def _hold_out(found: Sequence[Found], share: float, seed: int) -> tuple[list[Found], list[Found]]:
    """Split by whole prompts: what stays, and a share of the prompts, at least one and never all."""
    keys = normalised_prompts(one.pair for one in found)
    prompts = list(dict.fromkeys(keys))
    if len(prompts) < 2:
        raise DataError(
            "data.validation_share: the training pairs have one prompt only, which cannot be split",
            hint="Name a validation file, or set data.validation_share to 0.",
        )
    count = min(max(round(share * len(prompts)), 1), len(prompts) - 1)
    held = set(random.Random(f"{seed} held out").sample(prompts, count))
    kept = [one for one, key in zip(found, keys, strict=True) if key not in held]
    return kept, [one for one, key in zip(found, keys, strict=True) if key in held]


def _weighted(found: Iterable[Found], book: Ledger, seed: str) -> list[PreferencePair]:
    """The pairs of one source, as often as its weight says; a fraction of them is drawn, at least one."""
    pairs = [one.pair for one in found if one.ledger is book]
    whole = int(book.weight)
    count = round((book.weight - whole) * len(pairs))
    if pairs and not whole:
        count = max(count, 1)
    drawn = sorted(random.Random(seed).sample(range(len(pairs)), count))
    return pairs * whole + [pairs[place] for place in drawn]


def _refuse_nothing(what: str, found: Sequence[Found], ledgers: Iterable[Ledger]) -> None:
    if found:
        return
    reasons = [
        f"{entry.count} {entry.what}{'s' if entry.count > 1 else ''}: {entry.reason} ({', '.join(entry.examples)})"
        for ledger in ledgers
        for entry in ledger.dropped()
    ]
    raise DataError(
        "\n  ".join([f"no {what} pairs are left", *reasons]), hint="Correct these rows, or choose other data."
    )


def _refuse_many_names(pairs: Iterable[PreferencePair]) -> None:
    names = sorted({name for pair in pairs for name in pair.preference})
    if len(names) > _MOST_NAMES:
        raise DataError(
            f"{len(names)} distinct preferences ({', '.join(names[:3])}, ...), each of which would be a principle",
            hint="Set heads.principles to the names that matter, so that the others are read as free text, or set "
            "`conditioning: prompt`.",
        )
