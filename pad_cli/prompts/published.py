"""The prompts of the paper's experiments (arXiv 2410.04070): Personalized Soups, and HelpSteer2."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError, RecipeError
from pad_cli.pairs import Row, prompt_of, read_steer_text
from pad_cli.prompts.data_set import scan
from pad_cli.prompts.files import read_prompts
from pad_cli.prompts.grid import Prompt, ask, read_asked
from pad_cli.records import BenchmarkItem
from pad_cli.system.offline import hub_hint

SOUPS = {
    "P1A": "text:easy to follow for a child in primary school",
    "P1B": "text:written for specialists who know the field",
    "P2A": "text:short without a wasted word",
    "P2B": "text:thorough with all the background",
    "P3A": "text:warm like a close friend who jokes",
    "P3B": "text:cold in an unfriendly tone",
}
"""What the preferences of Personalized Soups (arXiv 2310.11564, table 1) mean, in words of ours: two opposites each of
expertise, informativeness and style."""

_OPPOSITES = [{"P1A", "P1B"}, {"P2A", "P2B"}, {"P3A", "P3B"}]


def load_psoups(
    *,
    path: str | None = None,
    dataset: str | None = None,
    file: str = "koala_eval_50.json",
    revision: str | None = None,
    **asked: Any,
) -> list[BenchmarkItem]:
    """The evaluation prompts of Personalized Soups: 50 of the Koala evaluation's.

    By default they are asked under the six preferences of that paper, under every two and under every three that do
    not exclude each other, in free text (`SOUPS`); for a reward model of named principles, give `preferences` with the
    same labels, for example `{P2A: concise, P3A: humorous}`, or others.

    Args:
        path: a JSON file, a list of `{"id", "prompt"}`; the authors of PAD have it in their repository
            (zjuruizhechen/PAD, inference/data/koala_eval_50.json).
        dataset: in place of `path`, a data set on the hub that has such a file.
        file: its name there.
        revision: branch, tag or commit there.
        asked: `preferences`, `combine`, `unseen` and `limit`; see `Asked`.

    Raises:
        RecipeError: an option is wrong, or neither `path` nor `dataset` is given.
        DataError: the file cannot be had, or is of another form.
    """
    given = read_asked("psoups", asked, own=SOUPS)
    if (path is None) == (dataset is None):
        raise RecipeError(
            "benchmark: options of 'psoups': give either `path` or `dataset`.",
            "`path` is a file such as koala_eval_50.json, from the repository zjuruizhechen/PAD, inference/data.",
        )
    place = Path(path) if path is not None else _fetched(str(dataset), file, revision)
    return ask("psoups", read_prompts(place), given, _OPPOSITES)


def load_helpsteer2(
    *,
    dataset: str = "nvidia/HelpSteer2",
    split: str = "validation",
    revision: str | None = None,
    max_characters: int = 100,
    every: int = 2,
    **asked: Any,
) -> list[BenchmarkItem]:
    """Short prompts of HelpSteer2, chosen as the authors of PAD do (their inference/collect_model_outs.py).

    They take the rows with prompts of at most 100 characters, of these every second one: a prompt has two rows, one
    for each of its rated answers. A prompt that is left twice is asked once here.

    Args:
        dataset: id on the hub, or a directory that holds the same.
        split: its split.
        revision: branch, tag or commit on the hub.
        max_characters: of a prompt, as it stands in its row.
        every: take every so manieth row of those, the last of each so many.
        asked: `preferences`, `combine`, `unseen` and `limit`; see `Asked`.

    Raises:
        RecipeError: an option is wrong.
        DataError: the data set cannot be had, or a row is wrong.
    """
    given = read_asked("helpsteer2", asked)
    if every < 1:
        raise RecipeError("benchmark: options of 'helpsteer2': `every` is at least 1.", "1 takes every row.")
    rows = [row for row in scan(dataset, split=split, revision=revision) if _length(row) <= max_characters]
    chosen = rows[every - 1 :: every]
    return ask("helpsteer2", [Prompt(prompt_of(row, read=read_steer_text), place=row.place) for row in chosen], given)


def _length(row: Row) -> int:
    prompt = row.values.get("prompt")
    return len(prompt) if isinstance(prompt, str) else 0


def _fetched(dataset: str, file: str, revision: str | None) -> Path:
    """A file of a data set on the hub; without a network, as it was fetched before."""
    hub = importlib.import_module("huggingface_hub")
    try:
        return Path(hub.hf_hub_download(dataset, file, repo_type="dataset", revision=revision))
    except Exception as error:  # the hub client's errors have no common base
        raise DataError(
            f"cannot fetch {file}: {' '.join(str(error).split())[:300]}",
            path=dataset,
            hint=hub_hint(
                "Check the name and the network, or name a file as `path`.",
                f"hf download --repo-type dataset {dataset} {file}",
            ),
        ) from error
