"""Benchmarks from files: your own, and the prompts that ship with this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pad_cli.benchmarks.grid import Prompt, ask, read_asked
from pad_cli.errors import DataError, RecipeError, did_you_mean
from pad_cli.pairs import note_changes, prompt_of, read_rows
from pad_cli.records import BenchmarkItem
from pad_cli.resources import shipped


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


def load_shipped(*, name: str = "helpful-harmless-humorous", **asked: Any) -> list[BenchmarkItem]:
    """Our own prompts: everyday instructions for the three principles that give a file its name.

    By default each of the three principles, each pair of them and all three are asked for.

    Args:
        name: `helpful-harmless-humorous` or `expert-informative-creative`.
        asked: `preferences`, `combine`, `unseen` and `limit`; see `Asked`.

    Raises:
        RecipeError: an option is wrong, or there is no such set of prompts.
    """
    files = {file.stem: file for file in sorted((shipped("data") / "prompts").glob("*.jsonl"))}
    if name not in files:
        raise RecipeError(f"benchmark: no prompts are called '{name}'.", did_you_mean(name, files))
    return ask(name, read_prompts(files[name]), read_asked("prompts", asked, own=name.split("-")))


def read_prompts(file: Path) -> list[Prompt]:
    """The prompt of every row of a file.

    Raises:
        DataError: a row is wrong, or there is none.
    """
    rows = read_rows(file)
    if not rows:
        raise DataError("the file has no rows", path=file, hint="One JSON object a line.")
    prompts = [Prompt(prompt_of(row), place=row.place) for row in rows]
    note_changes(rows)
    return prompts
