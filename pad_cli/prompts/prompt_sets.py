"""Benchmarks made of prompts: a user's file or data set, the prompts that ship with pad, and those of HelpSteer2.

All take `preferences`, `combine` and `limit`, see `GridSettings`. A wrong option is a RecipeError, and a file or data
set that cannot be read a DataError that names the row.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError, RecipeError, did_you_mean
from pad_cli.pairs import Row, RowError, is_text, note_changes, prompt_of, read_rows, read_steer_text, scan_data_set
from pad_cli.prompts.benchmarks import Prompt, distinct, grid_items, preference_items, read_grid
from pad_cli.recipe import PairsSettings, read_options
from pad_cli.records import BenchmarkItem
from pad_cli.system.resources import shipped

_EVERYDAY = "everyday"  # prompts for any principle; every other file is named for its three
_KIND = ("kind",)  # a column for readers of our own prompts
_LONGEST = 100  # prompt of HelpSteer2 that is asked, in characters


def load_jsonl(*, path: str, **grid: Any) -> list[BenchmarkItem]:
    """Every distinct prompt of a file of rows (`pad_cli.pairs.files`) under every preference."""
    settings = read_grid("jsonl", grid)
    return grid_items(Path(path).stem, _read_prompts(Path(path)), settings)


def load_shipped(*, name: str = "helpful-harmless-humorous", **grid: Any) -> list[BenchmarkItem]:
    """Our own prompts: everyday instructions, for the three principles that give a file its name or for any.

    `helpful-harmless-humorous` and `expert-informative-creative` ask by default for each of the three, for each pair
    and for all of them; `everyday` needs `preferences`.
    """
    files = {file.stem: file for file in sorted((shipped("data") / "prompts").glob("*.jsonl"))}
    if name not in files:
        raise RecipeError(f"benchmark: no prompts are called '{name}'.", did_you_mean(name, files))
    if name != _EVERYDAY and "preferences" not in grid:
        grid = {"preferences": name.split("-"), "combine": [1, 2, 3], **grid}
    return grid_items(name, _read_prompts(files[name], unread=_KIND), read_grid("prompts", grid))


def load_data_set(
    *,
    dataset: str,
    config: str | None = None,
    split: str | None = None,
    revision: str | None = None,
    prompt: str = "prompt",
    preference: str | None = None,
    facts: Sequence[str] = (),
    **grid: Any,
) -> list[BenchmarkItem]:
    """Every distinct prompt of a data set under every preference, or each under the preference of its own row.

    Args:
        dataset: this, `config`, `split` and `revision` are as in `PairsSettings`.
        prompt: column with the prompts: texts, or conversations that end with the user.
        preference: column with a specification or a list of them, in place of `preferences`.
        facts: columns that scorers want to see.
        grid: with `preference` only `limit`, which counts the prompts of each preference.
    """
    name = Path(dataset).name
    if preference is not None and (clash := grid.keys() & {"preferences", "combine"}):
        hint = "`preference` is the column with each row's own; leave it out to ask all prompts under `preferences`."
        raise RecipeError(f"benchmark: options of 'dataset': `{min(clash)}` and `preference` exclude each other.", hint)
    settings = read_grid("dataset", grid if preference is None else {"preferences": {}, **grid})
    rows = list(_scan(dataset, config=config, split=split, revision=revision))
    by_preference: dict[tuple[str, ...], list[Prompt]] = {}
    for row in rows:
        own = () if preference is None else _read_specs(row, preference)
        each = Prompt(prompt_of(row, prompt), {key: _read_fact(row, key) for key in facts}, row.place)
        by_preference.setdefault(own, []).append(each)
    note_changes(rows)
    if preference is None:
        return grid_items(name, by_preference.get((), []), settings)
    return [
        item
        for own, prompts in by_preference.items()
        for item in preference_items(name, distinct(prompts)[: settings.limit], own, own)
    ]


def load_helpsteer2(
    *, dataset: str = "nvidia/HelpSteer2", split: str = "validation", revision: str | None = None, **grid: Any
) -> list[BenchmarkItem]:
    """Short prompts of HelpSteer2, chosen as the authors of PAD do (their inference/collect_model_outs.py).

    They take the rows with prompts of at most 100 characters, and every second one of these: a prompt has two rows, one
    for each of its rated answers. A prompt that is left twice is asked once here.
    """
    settings = read_grid("helpsteer2", grid)
    rows = _scan(dataset, split=split, revision=revision)
    short = [row for row in rows if len(str(row.values.get("prompt"))) <= _LONGEST]
    prompts = [Prompt(prompt_of(row, read=read_steer_text), place=row.place) for row in short[1::2]]
    return grid_items("helpsteer2", prompts, settings)


def _read_prompts(file: Path, unread: Container[str] = ()) -> list[Prompt]:
    rows = read_rows(file)
    if not rows:
        raise DataError("the file has no rows", path=file, hint="One JSON object a line.")
    prompts = [Prompt(prompt_of(row), place=row.place) for row in rows]
    note_changes(rows, unread)
    return prompts


def _scan(dataset: str, **options: str | None) -> Iterable[Row]:
    stated = {"dataset": dataset, **{key: value for key, value in options.items() if value is not None}}
    return scan_data_set(
        read_options(PairsSettings, stated, "benchmark", "Name a data set as in a recipe's `data.train`.")
    )


def _read_specs(row: Row, column: str) -> tuple[str, ...]:
    value = row.values.get(column)
    specs = tuple(value) if isinstance(value, list) else (value,)
    if not specs or not all(is_text(spec) for spec in specs):
        problem = RowError("neither a specification nor a list of them", field=column, hint="For example: humorous")
        raise problem.at(row)
    return specs


def _read_fact(row: Row, column: str) -> Any:
    value = row.values.get(column)
    if value is None:
        raise RowError("missing", field=column, hint="Name columns of the data set in `facts`.").at(row)
    return value
