"""The trained competitors: LoRA adapters of the policy, one for each goal, trained by plain DPO and kept on disk.

A goal is a preference over named principles. That of one principle learns from the pairs which ask for it alone; a
mixed one from the pairs which ask for that mixture, and from those of its principles in proportion to their weights
(the data of a linear scalarisation). Where a weight is negative, an answer that wins under the principle loses. DPO:
Rafailov et al. 2023 (arXiv 2305.18290); LoRA: Hu et al. 2021 (arXiv 2106.09685).

Adapters are in `PAD_HOME/competitors`, each under a key of the policy, the pairs and the settings, with what it cost.
A killed training goes on where it was.
"""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError

from pad_cli.decoding.mixture import Voice, generate_mixture
from pad_cli.errors import DataError
from pad_cli.evaluation.contract import Cost, Subject
from pad_cli.models.adapter import WEIGHTS, Adapter
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.tensor_file import load_tensors
from pad_cli.pairs import load_pairs
from pad_cli.preference import parse_preference
from pad_cli.recipe import AdapterStage, DataSettings, DecodingSettings, LoraStage
from pad_cli.recipe.options import read_options
from pad_cli.records import BenchmarkItem, Generation, PreferencePair
from pad_cli.system.progress import note
from pad_cli.system.runs import fingerprint, home, in_turn, whole_directory, write_json
from pad_cli.training.pair_table import SequenceBook, tabulate

Goal = Mapping[str, float]
"""Principle to weight, never zero; empty for the plain policy."""

COST = "cost.json"
_CLOCK = "clock.json"
_DIRECTION_DIGITS = 6  # preferences that differ by less are one goal


class CompetitorSettings(LoraStage):
    """Options of every trained competitor: what it learns from, and the settings of a stage `adapter`."""

    data: DataSettings = Field(description="The preference pairs, as in a recipe of kind train-rm.")
    principles: list[str] | None = Field(
        None, min_length=1, description="Principles that pairs may name, as in `heads`; by default all they name."
    )
    anchor: float = Field(0.0, ge=0, description="Weight c of the likelihood anchor; 0 is plain DPO.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")

    @model_validator(mode="after")
    def _trained_to_the_end(self) -> CompetitorSettings:
        if self.evaluate_every is not None:
            raise ValueError("`evaluate_every` has no effect here: competitors are not measured while they are trained")
        return self

    @property
    def stage(self) -> AdapterStage:
        return AdapterStage(stage="adapter", **self.model_dump(exclude={"data", "principles", "seed"}))


class Competitor(NamedTuple):
    """A trained adapter: the directory of its PEFT files, and what it cost."""

    directory: Path
    cost: Cost


class Competitors:
    """Trains, keeps and finds the adapters of one method.

    Args:
        method: its name, for messages.
        options: of the method, see `CompetitorSettings`.

    Raises:
        RecipeError: the options are wrong.
    """

    def __init__(self, method: str, options: Mapping[str, Any]) -> None:
        where, hint = f"methods: options of '{method}'", "See docs/evaluation.md for what it takes."
        self.settings = read_options(CompetitorSettings, options, where, hint)
        self._found: dict[Any, Competitor] = {}

    def key(self, subject: Subject) -> Any:
        """What decides the adapters beside the policy, and how preferences are read."""
        return [self.settings.model_dump(exclude={"data"}), self._data_key, self._limits, self._names(subject)]

    def named(self, subject: Subject, item: BenchmarkItem) -> Goal:
        """The named part of an item's preference; free text has no competitor and is left out.

        Raises:
            PreferenceError: it cannot be read.
        """
        return parse_preference(item.preference, self._names(subject), accepts_text=True).weights

    def prepare(self, subject: Subject, goals: Iterable[Goal]) -> Cost:
        """Train what is missing for some goals; what all of them cost together, whenever they were trained.

        Raises:
            DataError: no pair asks for a principle alone.
            RecipeError, StorageError, TrainingError: see `pad_cli.errors`.
        """
        wanted = {tuple(sorted(goal.items())): goal for goal in goals if goal}
        costs = [self.adapter(subject.policy, goal).cost for goal in wanted.values()]
        return Cost(sum(c.seconds or 0.0 for c in costs), len(costs), sum(c.parameters for c in costs))

    def adapter(self, policy: LanguageModel, goal: Goal) -> Competitor:
        """The adapter of a goal, trained if it is not there yet; raises as `prepare`."""
        number_format = str(policy.head.weight.dtype)
        place = (policy.fingerprint, number_format, tuple(goal.items()))
        if place not in self._found:
            settings, pairs = self.settings, goal_pairs(self._pairs, goal)
            context = [policy.fingerprint, number_format, settings.stage.model_dump(), settings.seed, self._limits]
            target = home() / "competitors" / fingerprint([*context, [pair.content() for pair in pairs]])
            cost = _kept_cost(target)
            if cost is None:
                with in_turn(target):
                    if (cost := _kept_cost(target)) is None:
                        note(f"Training the policy for {_shown(goal)} by DPO (once, {len(pairs)} pairs).")
                        cost = _train(settings, policy, pairs, target)
            shutil.rmtree(_work(target), ignore_errors=True)
            self._found[place] = Competitor(target, cost)
        return self._found[place]

    @functools.cached_property
    def _pairs(self) -> tuple[PreferencePair, ...]:
        return load_pairs(self.settings.data, self.settings.seed, self.settings.principles).train

    @functools.cached_property
    def _data_key(self) -> str:
        return fingerprint([pair.content() for pair in self._pairs])

    @property
    def _limits(self) -> tuple[int, int]:
        return self.settings.data.max_prompt_tokens, self.settings.data.max_answer_tokens

    def _names(self, subject: Subject) -> list[str]:
        """All names that a preference may use: those in the pairs, and the reward model's."""
        paired = {name for pair in self._pairs for name in pair.preference}
        return sorted(paired | set(subject.reward_model.principles))


@contextmanager
def attached(policy: LanguageModel, directory: Path) -> Iterator[Adapter]:
    """An adapter of the policy's, ready to be read through; attached only meanwhile, since it slows all else.

    Raises:
        CheckpointError: the adapter is damaged.
    """
    adapter = Adapter.load(directory, policy.model)
    try:
        yield adapter
    finally:
        adapter.detach()


def answer_mixed(
    subject: Subject,
    items: Sequence[BenchmarkItem],
    settings: DecodingSettings,
    voices: Sequence[tuple[Adapter | None, float]],
) -> list[Generation]:
    """Answers by the weighted log-probabilities of the policy through some adapters; None is the policy as it is."""
    prompts = [encode_prompt(subject.policy.tokenizer, item.prompt) for item in items]
    mixture = [Voice(subject.policy, prompts, [weight] * len(items), adapter) for adapter, weight in voices]
    answers = generate_mixture(mixture, settings, [item.id for item in items])
    return [subject.engine.read_answer(tokens) for tokens in answers]


def answer_by_goal(
    items: Sequence[BenchmarkItem],
    goal_of: Callable[[BenchmarkItem], Goal],
    answer: Callable[[Goal, list[BenchmarkItem]], list[Generation]],
) -> list[Generation]:
    """Answers to some items, in order; those of one goal are given together."""
    groups: dict[tuple[tuple[str, float], ...], list[int]] = {}
    for number, item in enumerate(items):
        groups.setdefault(tuple(goal_of(item).items()), []).append(number)
    answers: dict[int, Generation] = {}
    for goal, numbers in groups.items():
        answers.update(zip(numbers, answer(dict(goal), [items[number] for number in numbers]), strict=True))
    return [answers[number] for number in range(len(items))]


def normalised(weights: Goal) -> Goal:
    """The same direction with absolute weights that add up to 1."""
    total = sum(abs(weight) for weight in weights.values())
    return {name: weight / total for name, weight in weights.items()}


def goal_pairs(pairs: Sequence[PreferencePair], goal: Goal) -> list[PreferencePair]:
    """What a goal learns from: pairs in whose order the goal, and nothing else, decides.

    Raises:
        DataError: no pair asks for a principle of it alone.
    """
    alone = {name: _asking_alone(pairs, name) for name in goal}
    if lacking := [name for name, found in alone.items() if not found]:
        raise DataError(
            f"no training pair asks for {', '.join(lacking)} alone, so there is no competitor for it",
            hint="Give the method other data, or leave those preferences out of the benchmark.",
        )
    if len(goal) == 1:
        ((name, weight),) = goal.items()
        return alone[name] if weight > 0 else [_swapped(pair) for pair in alone[name]]
    total, chosen = sum(map(len, alone.values())), [pair for pair in pairs if _asks(pair, goal)]
    for name, share in normalised(goal).items():
        drawn = itertools.islice(itertools.cycle(alone[name]), round(abs(share) * total))
        chosen += drawn if share > 0 else map(_swapped, drawn)
    return chosen


def _asking_alone(pairs: Iterable[PreferencePair], name: str) -> list[PreferencePair]:
    """Pairs of one principle as if each asked for it: those which ask for its absence are turned round."""
    return [
        pair if pair.preference[name] > 0 else _swapped(pair)
        for pair in pairs
        if not pair.texts and pair.preference.keys() == {name}
    ]


def _swapped(pair: PreferencePair) -> PreferencePair:
    turned = {name: -weight for name, weight in pair.preference.items()}
    return PreferencePair(pair.prompt, turned, pair.rejected, pair.chosen)


def _asks(pair: PreferencePair, goal: Goal) -> bool:
    """Does the pair's preference point in the direction of the goal?"""
    return not pair.texts and bool(pair.preference) and _direction(pair.preference) == _direction(goal)


def _direction(weights: Goal) -> dict[str, float]:
    return {name: round(weight, _DIRECTION_DIGITS) for name, weight in normalised(weights).items()}


def _shown(goal: Goal) -> str:
    return ", ".join(name if weight == 1 else f"{name}={weight:.3g}" for name, weight in goal.items())


def _kept_cost(target: Path) -> Cost | None:
    """What a finished adapter cost; None when there is none, or it is damaged."""
    try:
        load_tensors(target / WEIGHTS)
        return Cost(**json.loads((target / COST).read_text(encoding="utf-8")))
    except (OSError, SafetensorError, ValueError, TypeError):
        return None


def _train(settings: CompetitorSettings, policy: LanguageModel, pairs: list[PreferencePair], target: Path) -> Cost:
    """Train an adapter, or go on, and keep it with its cost."""
    from pad_cli.training.trainer import train_lora

    work = _work(target)
    before, started = _start_clock(work), time.monotonic()
    book = SequenceBook(policy.tokenizer, settings.data.max_prompt_tokens, settings.data.max_answer_tokens)
    table = tabulate(pairs, book)
    no_weights = torch.zeros(len(table), 0)  # of preference heads, which there are none of
    adapter, _ = train_lora(
        settings.stage, policy, None, book.sequences, table, no_weights, directory=work, seed=settings.seed
    )
    cost = Cost(before + time.monotonic() - started, 1, sum(tensor.numel() for tensor in adapter.tensors))
    try:
        with whole_directory(target) as scratch:
            adapter.save(scratch)
            write_json(scratch / COST, asdict(cost))
    finally:
        adapter.detach()
    return cost


def _work(target: Path) -> Path:
    """The files of an unfinished training; gone once it is finished."""
    return target.with_name(f"{target.name}.unfinished")


def _start_clock(work: Path) -> float:
    """Seconds of training that killed runs left in their checkpoints; from now on another run is timed."""
    spent = 0.0
    try:
        clock = json.loads((work / _CLOCK).read_text(encoding="utf-8"))
        written = [path.stat().st_mtime for path in work.glob("checkpoint-*/*")]
        spent = clock["seconds"] + max(max(written, default=0.0) - clock["started"], 0.0)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    write_json(work / _CLOCK, {"seconds": spent, "started": time.time()})
    return spent
