"""`load_pairs`: everything a recipe's `data` asks for, cleaned, counted and described."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from pad_cli.errors import DataError, RecipeError
from pad_cli.pairs.sources import (
    PreferenceReader,
    SourcedPair,
    clean,
    contrast_pairs,
    normalised_prompts,
    prompt_key,
    read_source,
    without_leaks,
)
from pad_cli.preference import Preference
from pad_cli.principles import load_principles, shipped_principles
from pad_cli.recipe import DataSettings, PairsSettings, Settings, make_with
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
        RecipeError: a source or format does not take the options.
        UsageError: there is no such source or format.
    """
    reader = PreferenceReader(principles)
    if _HELD_OUT in settings.validation and settings.validation_share:
        raise RecipeError(
            f"data.validation: `{_HELD_OUT}` is the name of what `validation_share` holds out.",
            "Give your split another name, or leave out `validation_share`.",
        )
    texts, unseen_texts = read_paraphrases(settings.texts)
    splits, validation_reports = [], []
    for name, source in settings.validation.items():
        sourced, of_split = _read_all({f"data.validation.{name}": source}, name, settings, reader)
        _require(f"validation ({name})", sourced, of_split)
        splits.append(PairSplit(name, tuple(pair for pair, _ in sourced)))
        validation_reports += of_split
    measured = [pair for split in splits for pair in split.pairs]
    if settings.source is not None:
        pairs, reports, made = _registered(settings, seed)
        splits, texts = [*made.validation, *splits], {**made.texts, **texts}
    else:
        given = settings.train or []
        keys = ["data.train"] if len(given) == 1 else [f"data.train.{number}" for number in range(len(given))]
        pairs, reports = _read_all(dict(zip(keys, given, strict=True)), "train", settings, reader)
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
    return PairData(tuple(train), tuple(splits), texts, DataReport(sources, tuple(described)))


def _registered(settings: DataSettings, seed: int) -> tuple[list[SourcedPair], list[SourceReport], PairData]:
    """What a registered source writes, as it writes it."""
    name, options = str(settings.source), {"seed": seed, **settings.options}
    data: PairData = make_with(
        PAIR_SOURCES.get(name), options, "data.options", f"See the options of the source '{name}'."
    )
    count = len(data.train)
    report = SourceReport(name, "train", rows=count, rows_used=count, pairs_made=count, pairs_kept=count)
    placed = (replace(pair, place=f"{name}[{number}]") for number, pair in enumerate(data.train))
    return [SourcedPair(pair, report) for pair in placed], [report], data


def _read_all(
    sources: Mapping[str, PairsSettings], split: str, settings: DataSettings, reader: PreferenceReader
) -> tuple[list[SourcedPair], list[SourceReport]]:
    """Sources by their keys in the recipe, cleaned together: a pair that two of them hold counts once."""
    pairs: list[SourcedPair] = []
    reports = []
    for key, source in sources.items():
        read, report = read_source(source, key, split, reader, drop_bad=settings.bad_rows == "drop")
        pairs += read
        reports.append(report)
    return clean(pairs), reports


def _hold_out(pairs: Sequence[SourcedPair], share: float, seed: int) -> tuple[list[SourcedPair], list[SourcedPair]]:
    """Split by whole prompts: what stays, and a share of the prompts, at least one and never all."""
    keys = normalised_prompts(pair for pair, _ in pairs)
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
            hint="Set heads.principles to the names that matter, so that the others are read as free text, or set "
            "`conditioning: prompt`.",
        )


# Paraphrases of principles: what the preference encoder learns from, and what it is measured on


_Text = Annotated[str, Field(pattern=r"\S")]


class _Entry(Settings):
    train: Annotated[tuple[_Text, ...], Field(min_length=1)]
    held_out: tuple[_Text, ...] = ()


_FILE: TypeAdapter[dict[str, _Entry]] = TypeAdapter(dict[str, _Entry])


def read_paraphrases(texts: Mapping[str, list[str]] | str) -> tuple[Paraphrases, Paraphrases]:
    """Paraphrases for training, and held-out ones for validation.

    Args:
        texts: principle to paraphrases, all for training; or a JSON file of {principle: {"train": [...], "held_out":
            [...]}}, a YAML file of principles (see `pad_cli.principles`), or `shipped`.

    Raises:
        DataError: the file is missing or of another form.
    """
    if not isinstance(texts, str):
        return {name: tuple(paraphrases) for name, paraphrases in texts.items()}, {}
    if texts != SHIPPED and not texts.endswith((".yaml", ".yml")):
        return _of_json(Path(texts))
    principles = shipped_principles() if texts == SHIPPED else load_principles(Path(texts))
    train, held_out = _of_json(shipped("data") / "wordings-dsp.json") if texts == SHIPPED else ({}, {})
    return (
        {**train, **{name: principle.wordings for name, principle in principles.items()}},
        {**held_out, **{name: principle.held_out for name, principle in principles.items()}},
    )


def _of_json(path: Path) -> tuple[Paraphrases, Paraphrases]:
    try:
        entries = _FILE.validate_json(path.read_text(encoding="utf-8"), strict=True)
    except ValidationError as error:
        problem = error.errors()[0]
        reason = f"not a map of principles to paraphrases: {problem['msg']}"
        hint = 'Write {"humorous": {"train": ["be funny", ...], "held_out": ["make me laugh"]}, ...}.'
        raise DataError(reason, path=path, field=".".join(map(str, problem["loc"])), hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as UTF-8 text: {error}", path=path, hint="Check data.texts.") from error
    train = {name: entry.train for name, entry in entries.items()}
    return train, {name: entry.held_out for name, entry in entries.items()}


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
