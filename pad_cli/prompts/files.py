"""Benchmarks from files: your own, and the prompts that ship with this package."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError, RecipeError, did_you_mean
from pad_cli.pairs import note_changes, prompt_of, read_rows
from pad_cli.prompts.grid import Prompt, ask, read_asked
from pad_cli.records import BenchmarkItem
from pad_cli.system.resources import shipped


def load_jsonl(*, path: str, **asked: Any) -> list[BenchmarkItem]:
    """Every distinct prompt of a file under every preference.

    Args:
        path: JSON lines with a `prompt` each, one JSON array, CSV or Parquet; compressed or not.
        asked: `preferences`, `combine`, `unseen` and `limit`; see `Asked`.

    Raises:
        RecipeError: an option is wrong.
        DataError: a line is wrong, or there is none.
    """
    file, wanted = Path(path), read_asked("jsonl", asked)
    return ask(file.stem, read_prompts(file), wanted)


_EVERYDAY = "everyday"  # prompts for whatever principle; every other file is named for its three
_KIND = ("kind",)  # a column for readers of our own prompts


def load_shipped(*, name: str = "helpful-harmless-humorous", **asked: Any) -> list[BenchmarkItem]:
    """Our own prompts: everyday instructions, for the three principles that give a file its name or for any.

    Where three principles give the name, by default each of them, each pair and all three are asked for.

    Args:
        name: `helpful-harmless-humorous`, `expert-informative-creative`, or `everyday`, which needs `preferences`.
        asked: `preferences`, `combine`, `unseen` and `limit`; see `Asked`.

    Raises:
        RecipeError: an option is wrong, or there is no such set of prompts.
    """
    files = {file.stem: file for file in sorted((shipped("data") / "prompts").glob("*.jsonl"))}
    if name not in files:
        raise RecipeError(f"benchmark: no prompts are called '{name}'.", did_you_mean(name, files))
    own = None if name == _EVERYDAY else name.split("-")
    return ask(name, read_prompts(files[name], unread=_KIND), read_asked("prompts", asked, own=own))


def read_prompts(file: Path, unread: Container[str] = ()) -> list[Prompt]:
    """The prompt of every row of a file.

    Args:
        file: the rows.
        unread: columns that need not be read.

    Raises:
        DataError: a row is wrong, or there is none.
    """
    rows = read_rows(file)
    if not rows:
        raise DataError("the file has no rows", path=file, hint="One JSON object a line.")
    prompts = [Prompt(prompt_of(row), place=row.place) for row in rows]
    note_changes(rows, unread)
    return prompts
