"""The answers of a finished evaluation, and which are compared: those of two methods to one item with one seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from pad_cli.errors import DataError, UsageError, did_you_mean
from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.comparisons import reference_of
from pad_cli.evaluation.contract import Method, load_method
from pad_cli.evaluation.evaluate import ANSWERS, items_by_policy
from pad_cli.evaluation.outputs import read_answered
from pad_cli.evaluation.report import REPORT
from pad_cli.prompts import load_benchmarks
from pad_cli.recipe import EvalRecipe, JudgeSettings, read_recipe
from pad_cli.records import BenchmarkItem
from pad_cli.system.progress import note
from pad_cli.system.runs import RECIPE, ResultLog, fingerprint

_SWEPT = ("guidance_weight", "seed")  # of decoding: an evaluation has lists of them in their place


class System(NamedTuple):
    """A method at one guidance weight on one policy."""

    policy: str
    method: str
    guidance_weight: float


class Answer(NamedTuple):
    """One answer to be judged."""

    system: System
    item: BenchmarkItem
    seed: int
    text: str


class Match(NamedTuple):
    """Two answers to one item."""

    answer: Answer
    opponent: Answer


@dataclass(frozen=True)
class Answers:
    """The answers of a run.

    Attributes:
        answers: all that can be judged, item by item.
        opponents: for each policy, what the others are judged against.
    """

    answers: tuple[Answer, ...]
    opponents: Mapping[str, tuple[System, ...]]

    def matches(self) -> Iterator[Match]:
        """Every answer with those of the opponents to the same item, item by item."""
        for _, some in groupby(self.answers, key=lambda answer: id(answer.item)):
            by_system = {(answer.system, answer.seed): answer for answer in some}
            for (system, seed), answer in by_system.items():
                for opponent in self.opponents[system.policy]:
                    if opponent.method != system.method and (opponent, seed) in by_system:
                        yield Match(answer, by_system[opponent, seed])


def read_run(directory: Path, overrides: Iterable[str] = ()) -> EvalRecipe:
    """The recipe of a finished evaluation, with `key=value` overrides, for example `judge.model=...`.

    Raises:
        UsageError: there is no finished evaluation.
        RecipeError: the recipe, as overridden, is wrong.
        DataError: its file is damaged.
    """
    path = directory / RECIPE
    if not path.is_file() or not (directory / REPORT).is_file():
        raise UsageError(f"{directory}: no finished evaluation.", "Run `pad eval` first, and give its directory.")
    decoding = {key: value for key, value in _content(directory).get("decoding", {}).items() if key not in _SWEPT}
    recipe = read_recipe(str(path), [f"decoding={json.dumps(decoding)}", *overrides])
    if recipe.kind != "eval":
        raise UsageError(f"{directory}: a run of kind '{recipe.kind}'.", "Give the directory of a `pad eval`.")
    return recipe


def read_answers(directory: Path, recipe: EvalRecipe, settings: JudgeSettings) -> Answers:
    """The answers that the run's report is about, and what each is compared with.

    Raises:
        UsageError: `judge.opponent` is no method of the recipe; or the run does not say which answers are its own.
        DataError: nothing in the run answers the recipe's items, or its answers are damaged.
    """
    methods = {method.label: load_method(method) for method in recipe.methods}
    systems = list(_systems(recipe, methods))
    benchmarks = load_benchmarks(recipe.benchmarks)
    requested = {policy: set(map(id, items)) for policy, items in items_by_policy(recipe, benchmarks).items()}
    items = _sampled([item for some in benchmarks for item in some], settings.limit)
    texts = _texts(directory, methods)
    answers = [
        Answer(system, item, seed, text)
        for item in items
        for system in systems
        if id(item) in requested[system.policy]
        for seed in recipe.seeds
        if (text := texts.get((system, seed, _place(methods[system.method], item)))) is not None
    ]
    if not answers:
        raise DataError("no answer to any item of the recipe", path=directory / ANSWERS, hint="Run `pad eval` again.")
    if lacking := len(items) - len({id(answer.item) for answer in answers}):
        note(f"{lacking} of {len(items)} items have no answer in this run; they are not judged.")
    opponent = settings.opponent or reference_of(recipe, methods).method
    if opponent not in methods:
        raise UsageError(f"judge.opponent: no method is called '{opponent}'.", did_you_mean(opponent, methods))
    opponents = {
        policy: tuple(system for system in systems if (system.policy, system.method) == (policy, opponent))
        for policy in recipe.policies
    }
    return Answers(tuple(answers), opponents)


def _systems(recipe: EvalRecipe, methods: Mapping[str, Method]) -> Iterator[System]:
    for policy in recipe.policies:
        for name, method in methods.items():
            for weight in recipe.guidance_weights if method.weighted else [0.0]:
                yield System(policy, name, weight)


def _sampled(items: Sequence[BenchmarkItem], limit: int | None) -> list[BenchmarkItem]:
    """Items in an order that does not depend on what they ask, at most `limit` of a group.

    A part of them, cut off by a budget or a limit, is then a fair sample, and a larger limit contains a smaller one's.
    """
    counts: dict[str, int] = {}
    sample = []
    for item in sorted(items, key=lambda item: fingerprint([item.id, prompt_key(item), item.preference])):
        counts[item.group] = counts.get(item.group, 0) + 1
        if limit is None or counts[item.group] <= limit:
            sample.append(item)
    return sample


def _place(method: Method, item: BenchmarkItem) -> tuple[Any, ...]:
    """The key of a method's answer to an item; a method that reads no preference answers a prompt once."""
    return (item.id, prompt_key(item), *item.preference) if method.reads_preference else (prompt_key(item),)


def _texts(directory: Path, methods: Mapping[str, Method]) -> dict[tuple[System, int, tuple[Any, ...]], str]:
    """The texts of the finished evaluation, by system, seed and place."""
    rows = ResultLog(directory / ANSWERS).done
    texts: dict[tuple[System, int, tuple[Any, ...]], str] = {}
    for who, keys in read_answered(directory, _content(directory)).items():
        if (method := methods.get(who.method)) is None:
            continue
        system = System(who.policy, who.method, who.guidance_weight)
        for row in (rows[key] for key in keys if key in rows):
            try:
                prompt = fingerprint(row["prompt"])
                place = (row["item"], prompt, *row["preference"]) if method.reads_preference else (prompt,)
                texts[system, row["seed"], place] = str(row["text"])
            except (KeyError, TypeError) as error:
                raise _damaged(directory / ANSWERS) from error
    return texts


def _content(directory: Path) -> dict[str, Any]:
    """The recipe of a run, as it was written."""
    try:
        content = json.loads((directory / RECIPE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(directory / RECIPE) from error
    if not isinstance(content, dict) or not isinstance(content.get("decoding", {}), dict):
        raise _damaged(directory / RECIPE)
    return content


def _damaged(path: Path) -> DataError:
    return DataError("cannot be read", path=path, hint="Run `pad eval` again; it answers only what is missing.")
