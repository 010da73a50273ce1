"""Benchmarks from data sets, on the hub or on the disk, by their columns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pad_cli.errors import RecipeError
from pad_cli.pairs import Row, RowError, is_text, note_changes, prompt_of, scan_data_set
from pad_cli.prompts.grid import Prompt, ask, distinct, group_of, read_asked
from pad_cli.recipe import PairsSettings, read_options
from pad_cli.records import BenchmarkItem

T = TypeVar("T")


def load_data_set(
    *,
    dataset: str,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    prompt: str = "prompt",
    preference: str | None = None,
    facts: Sequence[str] = (),
    **asked: Any,
) -> list[BenchmarkItem]:
    """Every distinct prompt of a data set under every preference, or each under the preference of its own row.

    Args:
        dataset: id on the hub, or directory.
        config: configuration of the data set.
        split: its split, `train` if none is named; parts of it, `train[:100]`, too.
        revision: branch, tag or commit on the hub.
        prompt: column with the prompts: texts, or conversations that end with the user.
        preference: column with a specification or a list of them, in place of `preferences`.
        facts: columns that scorers want to see.
        asked: `preferences`, `combine`, `unseen` and `limit`; see `Asked`. With `preference`, `limit` alone: of each.

    Raises:
        RecipeError: an option is wrong.
        DataError: the data set cannot be had, or a row is wrong.
    """
    name = Path(dataset).name
    if preference is not None and (clash := asked.keys() & {"preferences", "combine", "unseen"}):
        raise RecipeError(
            f"benchmark: options of 'dataset': `{min(clash)}` and `preference` exclude each other.",
            "`preference` is the column with each row's own; leave it out to ask all prompts under `preferences`.",
        )
    read = read_asked("dataset", asked if preference is None else {"preferences": {}, **asked})
    rows = list(scan(dataset, config=config, split=split, revision=revision))
    prompts = [
        Prompt(prompt_of(row, prompt), {key: _read_cell(row, key, _read_fact) for key in facts}, row.place)
        for row in rows
    ]
    wanted = [] if preference is None else [_read_cell(row, preference, _read_specs) for row in rows]
    note_changes(rows)
    if preference is None:
        return ask(name, prompts, read)
    return _under_its_own(name, prompts, wanted, read.limit)


def scan(dataset: str, **options: str | None) -> Iterable[Row]:
    """The rows of a data set.

    Raises:
        RecipeError: an option is wrong.
        DataError: it cannot be had, or has no such split.
    """
    given = {"dataset": dataset, **{key: value for key, value in options.items() if value is not None}}
    settings = read_options(PairsSettings, given, "benchmark", "Name a data set as in a recipe's `data.train`.")
    return scan_data_set(settings)


def _read_cell(row: Row, column: str, read: Callable[[Any, str], T]) -> T:
    """What a reader makes of one cell.

    Raises:
        DataError: it cannot be read; says where it stands.
    """
    try:
        return read(row.values.get(column), column)
    except RowError as problem:
        raise problem.at(row) from problem


def _under_its_own(
    name: str, prompts: Sequence[Prompt], wanted: Sequence[tuple[str, ...]], limit: int | None
) -> list[BenchmarkItem]:
    """Each distinct prompt under the preferences of its rows."""
    by_preference: dict[tuple[str, ...], list[Prompt]] = {}
    for prompt, specs in zip(prompts, wanted, strict=True):
        by_preference.setdefault(specs, []).append(prompt)
    return [
        BenchmarkItem(
            id=f"{name}/{'+'.join(specs)}/{number}",
            group=group_of(len(specs)),
            label="+".join(specs),
            prompt=prompt.messages,
            preference=specs,
            facts={**prompt.facts, "asked": list(specs)},
            place=prompt.place,
        )
        for specs, mine in by_preference.items()
        for number, prompt in enumerate(distinct(mine)[:limit])
    ]


def _read_specs(value: Any, field: str) -> tuple[str, ...]:
    specs = tuple(value) if isinstance(value, list) else (value,)
    if specs and all(is_text(spec) for spec in specs):
        return specs
    raise RowError("neither a specification nor a list of them", field=field, hint="For example: humorous")


def _read_fact(value: Any, field: str) -> Any:
    if value is None:
        raise RowError("missing", field=field, hint="Name columns of the data set in `facts`.")
    return value
