"""`load_pairs`: everything a recipe's `data` asks for, cleaned, counted and described."""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError, RecipeError
from pad_cli.pairs.sources import (
    SourcedPair,
    clean,
    contrast_pairs,
    normalised_prompt,
    prompt_key,
    read_source,
    without_leaks,
)
from pad_cli.preference import Preference
from pad_cli.principles import load_principles
from pad_cli.recipe import DataSettings, PairsSettings, make_with
from pad_cli.records import DataReport, PairData, PairSplit, PreferencePair, PreferenceReport, SourceReport, SplitReport
from pad_cli.registry import PAIR_SOURCES
from pad_cli.reports.document import Column, Row, Table, number
from pad_cli.system.resources import shipped

_MOST_NAMES = 64  # more distinct names are hardly principles: each would get its own head
_LISTED = 64  # preferences that a report describes one by one
_HELD_OUT = "held_out"
SHIPPED = "shipped"
"""In place of a file: the package's own paraphrases, of its ready principles and of the styles of the data set DSP."""

Paraphrases = Mapping[str, tuple[str, ...]]
"""Principle to texts."""


def load_pairs(
    settings: DataSettings,
    seed: int,
    principles: Sequence[str] | None = None,
    load_backbone: Callable[[], Any] | None = None,
) -> PairData:
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
        load_backbone: gives the language model to a registered source that wants it.

    Raises:
        DataError: a source cannot be read, a row is wrong, or nothing is left.
        RecipeError: a source or format does not take the options.
        UsageError: there is no such source or format.
    """
    if _HELD_OUT in settings.validation and settings.validation_share:
        raise RecipeError(
            f"data.validation: `{_HELD_OUT}` is the name of what `validation_share` holds out.",
            "Give your split another name, or leave out `validation_share`.",
        )
    texts, unseen_texts = read_paraphrases(settings.texts)
    splits, validation_reports = [], []
    for name, source in settings.validation.items():
        sourced, of_split = _read_all({f"data.validation.{name}": source}, name, settings, principles)
        _require(f"validation ({name})", sourced, of_split)
        splits.append(PairSplit(name, tuple(pair for pair, _ in sourced)))
        validation_reports += of_split
    measured = [pair for split in splits for pair in split.pairs]
    if settings.source is not None:
        pairs, reports, made = _registered(settings, seed, principles, load_backbone)
        splits, texts = [*made.validation, *splits], {**made.texts, **texts}
    else:
        given = settings.train or []
        keys = ["data.train"] if len(given) == 1 else [f"data.train.{number}" for number in range(len(given))]
        pairs, reports = _read_all(dict(zip(keys, given, strict=True)), "train", settings, principles)
    pairs = without_leaks(pairs, measured)
    _require("training", pairs, reports)
    if settings.validation_share:
        pairs, held_out = _hold_out(pairs, settings.validation_share, seed)
        splits.append(PairSplit(_HELD_OUT, tuple(pair for pair, _ in held_out)))
    splits += _paraphrased(splits, unseen_texts)
    if settings.contrast and settings.source is None:
        pairs = [*pairs, *contrast_pairs(pairs)]
    train = [pair for number, of in enumerate(reports) for pair in _weighted(pairs, of, f"{seed} source {number}")]
    if settings.limit is not None and settings.limit < len(train):
        train = random.Random(seed).sample(train, settings.limit)
    if principles is None:
        _refuse_many_names([*train, *(pair for split in splits for pair in split.pairs)])
    sources = (*reports, *validation_reports)
    for report in sources:
        report.sort()
    described = [split_report("train", train), *(split_report(split.name, split.pairs) for split in splits)]
    left_out = {} if settings.source is None else made.left_out
    return PairData(tuple(train), tuple(splits), texts, DataReport(sources, tuple(described)), left_out)


def makes_pairs(source: str) -> bool:
    """Does a registered source write its pairs with the language model, which takes long?"""
    return "load_backbone" in inspect.signature(PAIR_SOURCES.get(source)).parameters


def _registered(
    settings: DataSettings, seed: int, principles: Sequence[str] | None, load_backbone: Callable[[], Any] | None
) -> tuple[list[SourcedPair], list[SourceReport], PairData]:
    """What a registered source writes, as it writes it; it gets `principles` and `load_backbone` if it takes them."""
    name = str(settings.source)
    entry = PAIR_SOURCES.get(name)
    given = {"principles": principles, "load_backbone": load_backbone}
    wanted = {key: value for key, value in given.items() if key in inspect.signature(entry).parameters}
    maker = functools.partial(entry, **wanted) if wanted else entry
    options = {"seed": seed, **settings.options}
    data: PairData = make_with(maker, options, "data.options", f"See the options of the source '{name}'.")
    count = len(data.train)
    report = SourceReport(name, "train", rows=count, rows_used=count, pairs_made=count, pairs_kept=count)
    if data.report.sources:
        (report,) = data.report.sources
    placed = (replace(pair, place=f"{name}[{number}]") for number, pair in enumerate(data.train))
    return [SourcedPair(pair, report) for pair in placed], [report], data


def _read_all(
    sources: Mapping[str, PairsSettings], split: str, settings: DataSettings, principles: Sequence[str] | None
) -> tuple[list[SourcedPair], list[SourceReport]]:
    """Sources by their keys in the recipe, cleaned together: a pair that two of them hold counts once."""
    pairs: list[SourcedPair] = []
    reports = []
    for key, source in sources.items():
        read, report = read_source(source, key, split, principles, drop_bad=settings.bad_rows == "drop")
        pairs += read
        reports.append(report)
    return clean(pairs), reports


def _hold_out(pairs: Sequence[SourcedPair], share: float, seed: int) -> tuple[list[SourcedPair], list[SourcedPair]]:
    """Split by whole prompts: what stays, and a share of the prompts, at least one and never all."""
    keys = [normalised_prompt(pair) for pair, _ in pairs]
    prompts = list(dict.fromkeys(keys))
    if len(prompts) < 2:
        raise DataError(
            "data.validation_share: the training pairs have one prompt only, which cannot be split",
            hint="Name a validation file, or set data.validation_share to 0.",
        )
    count = min(max(round(share * len(prompts)), 1), len(prompts) - 1)
    chosen = set(random.Random(f"{seed} held out").sample(prompts, count))
    rest = [pair for pair, key in zip(pairs, keys, strict=True) if key not in chosen]
    return rest, [pair for pair, key in zip(pairs, keys, strict=True) if key in chosen]


def _weighted(pairs: Iterable[SourcedPair], source: SourceReport, seed: str) -> list[PreferencePair]:
    """The pairs of one source, as often as its weight says; a fraction of them is drawn, at least one."""
    own = [pair for pair, of_source in pairs if of_source is source]
    whole = int(source.weight)
    count = round((source.weight - whole) * len(own))
    if own and not whole:
        count = max(count, 1)
    drawn = sorted(random.Random(seed).sample(range(len(own)), count))
    return own * whole + [own[index] for index in drawn]


def _require(what: str, pairs: Sequence[SourcedPair], reports: Iterable[SourceReport]) -> None:
    if not pairs:
        reasons = [
            f"{entry.count} {entry.what}{'s' * (entry.count > 1)}: {entry.reason} ({', '.join(entry.examples)})"
            for report in reports
            for entry in report.dropped
        ]
        lines = "\n  ".join([f"no {what} pairs are left", *reasons])
        raise DataError(lines, hint="Correct these rows, or choose other data.")


def _refuse_many_names(pairs: Iterable[PreferencePair]) -> None:
    names = sorted({name for pair in pairs for name in pair.preference})
    if len(names) > _MOST_NAMES:
        raise DataError(
            f"{len(names)} distinct preferences ({', '.join(names[:3])}, ...), each of which would be a principle",
            hint="Set heads.principles to the names that matter, so that the others are read as free text.",
        )


# Paraphrases of principles: what the preference encoder learns from, and what it is measured on


def read_paraphrases(texts: Mapping[str, list[str]] | str) -> tuple[Paraphrases, Paraphrases]:
    """Paraphrases for training, and held-out ones for validation.

    Args:
        texts: principle to paraphrases, all for training; or a YAML file of principles (see `pad_cli.principles`); or
            `shipped`.

    Raises:
        DataError: the file is missing or of another form.
    """
    if not isinstance(texts, str):
        return {name: tuple(paraphrases) for name, paraphrases in texts.items()}, {}
    if texts.endswith(".json"):
        hint = "Write them as YAML: each principle with `instruction`, `wordings` (for `train`) and `held_out`."
        raise DataError("paraphrases in JSON are no longer read", path=texts, hint=hint)
    data = shipped("data")
    files = [data / "styles-dsp.yaml", data / "principles.yaml"] if texts == SHIPPED else [Path(texts)]
    principles = {name: principle for file in files for name, principle in load_principles(file).items()}
    train = {name: principle.wordings for name, principle in principles.items()}
    return train, {name: principle.held_out for name, principle in principles.items()}


def _paraphrased(splits: Iterable[PairSplit], held_out: Paraphrases) -> list[PairSplit]:
    """For each split a second one, `NAME_wordings`: its pairs that ask for one principle, in held-out paraphrases."""
    paraphrased = []
    for split in splits:
        single = [pair for pair in split.pairs if len(pair.preference) == 1 and not pair.texts]
        pairs = tuple(pair for pair in single if all(held_out.get(name) for name in pair.preference))
        if pairs and not split.texts:
            names = sorted({name for pair in pairs for name in pair.preference})
            paraphrased.append(PairSplit(f"{split.name}_wordings", pairs, {name: held_out[name] for name in names}))
    return paraphrased


# The data report: what splits are like, and the whole as tables


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
        preferences={
            words: PreferenceReport(len(group), _mean(map(_longer, group))) for words, group in frequent[:_LISTED]
        },
        more_preferences=max(len(frequent) - _LISTED, 0),
    )


def describe(report: DataReport, most: int = _LISTED) -> list[Table]:
    """The report as tables: sources, what was not used or not read, splits, and the preferences of each."""
    content = asdict(report)
    sources, splits = content["sources"], content["splits"]
    dropped, changes = (
        [{**entry, "source": source["name"], "split": source["split"]} for source in sources for entry in source[key]]
        for key in ("dropped", "changes")
    )
    preferences = [
        {"split": split["name"], "preference": words, **measured}
        for split in splits
        for words, measured in list(split["preferences"].items())[:most]
    ]

    place: dict[str, Column] = {"source": "source", "split": "split"}
    examples: dict[str, Column] = {"for example": lambda row: ", ".join(row["examples"])}
    counts = {"rows": "rows", "used": "rows_used", "pairs": "pairs_made", "kept": "pairs_kept"}
    rows = {name: number(key) for name, key in {**counts, "contrast": "contrast_pairs"}.items()}
    sizes: dict[str, Column] = {name: number(name) for name in ("pairs", "prompts", "answers")}
    sizes["preferences"] = lambda row: f"{len(row['preferences']) + row['more_preferences']:,}"
    lengths = {"mean prompt": number("mean_prompt", ".0f"), "mean answer": number("mean_answer", ".0f")}
    longer = {"pairs": number("pairs"), "longer": number("chosen_longer", ".2f")}
    shares = "The most frequent preferences (longer: share of chosen answers that are)"
    tables = [
        Table.of(sources, {"source": "name", "split": "split"}, {**rows, "weight": number("weight", "g")}, "Sources"),
        Table.of(dropped, {**place, "how many": _how_many, "why": "reason", **examples}, {}, "Not used"),
        Table.of(changes, {**place, "rows": number("count"), "what": "change", **examples}, {}, "Not read"),
        Table.of(splits, {"split": "name"}, {**sizes, **lengths}, "Splits (lengths in characters)"),
        Table.of(preferences, {"split": "split", "preference": "preference"}, longer, shares),
    ]
    return [table for table in tables if table.rows]


def _how_many(row: Row) -> str:
    return f"{row['count']:,} {row['what']}{'s' * (row['count'] > 1)}"


def _longer(pair: PreferencePair) -> float:
    """1 where the chosen answer is the longer one, 1/2 for a tie."""
    chosen, rejected = len(pair.chosen), len(pair.rejected)
    return ((chosen > rejected) + (chosen >= rejected)) / 2


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
