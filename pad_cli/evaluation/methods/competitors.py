"""The trained competitors: LoRA adapters of the policy, one for each goal, trained by plain DPO and kept on disk.

A goal is a preference over named principles. A goal of one principle learns from the pairs that ask for it alone; a
mixed one from the pairs that ask for that mixture, and from those of its principles in proportion to their weights
(the data of a linear scalarisation). If a weight is negative, the chosen and rejected answers of its pairs are swapped.
DPO: Rafailov et al. 2023 (arXiv 2305.18290); LoRA: Hu et al. 2021 (arXiv 2106.09685).

Adapters are in `PAD_HOME/competitors`, each under a key of the policy, the pairs and the settings, with its cost.
An interrupted training resumes from its last checkpoint.
"""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, model_validator
from safetensors import SafetensorError

from pad_cli.errors import DataError
from pad_cli.evaluation.contract import HINT, Cost, EvalContext
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint_files import ADAPTER_WEIGHTS, load_tensors
from pad_cli.models.language_model import LanguageModel
from pad_cli.pairs import load_pairs
from pad_cli.preference import parse_preference
from pad_cli.recipe import AdapterStage, DataSettings, LoraStage
from pad_cli.recipe.settings import read_options
from pad_cli.records import BenchmarkItem, PreferencePair
from pad_cli.system.progress import note
from pad_cli.system.runs import fingerprint, home, in_turn, whole_directory, write_json, write_whole
from pad_cli.training.pair_table import SequenceBook, tabulate

Goal = Mapping[str, float]
"""Principle to weight, never zero; empty for the plain policy."""

COST, _SECONDS = "cost.json", "seconds"
_DIRECTION_DIGITS = 6  # preferences that differ by less are one goal


class CompetitorSettings(LoraStage):
    """Options of every trained competitor: the training data, and the settings of a stage `adapter`."""

    data: DataSettings = Field(description="The preference pairs, as in a recipe of kind train-rm.")
    principles: list[str] | None = Field(
        None, min_length=1, description="Principles that pairs may name, as in `heads`; by default all they name."
    )
    anchor: float = Field(0.0, ge=0, description="Plain DPO has no likelihood anchor: 0.")
    seed: int = Field(0, ge=0, description="Seed of everything random.")

    @model_validator(mode="after")
    def _trained_to_the_end(self) -> CompetitorSettings:
        if self.evaluate_every is not None:
            raise ValueError("`evaluate_every` has no effect here: competitors are not measured while they are trained")
        if self.anchor or self.label_smoothing:
            raise ValueError("competitors learn by plain DPO, without `anchor` and `label_smoothing`")
        return self

    @property
    def stage(self) -> AdapterStage:
        return AdapterStage(stage="adapter", **self.model_dump(exclude={"data", "principles", "seed"}))


class Competitor(NamedTuple):
    """A trained adapter: the directory of its PEFT files, and its cost."""

    directory: Path
    cost: Cost


class Competitors:
    """Trains and finds the adapters of one method.

    Args:
        method: its name, for messages.
        options: of the method, see `CompetitorSettings`.

    Raises:
        RecipeError: the options are wrong.
    """

    def __init__(self, method: str, options: Mapping[str, Any]) -> None:
        self.settings = read_options(CompetitorSettings, options, f"methods: options of '{method}'", HINT)
        self._adapters: dict[Any, Competitor] = {}

    def key(self, context: EvalContext) -> Any:
        """What decides the adapters beside the policy, and how preferences are read."""
        return [self.settings.model_dump(exclude={"data"}), self._data_key, self._limits, self._names(context)]

    def named(self, context: EvalContext, item: BenchmarkItem) -> Goal:
        """The named part of an item's preference; free text has no competitor and is left out.

        Raises:
            PreferenceError: it cannot be read.
        """
        return parse_preference(item.preference, self._names(context), accepts_text=True).weights

    def prepare(self, context: EvalContext, goals: Iterable[Goal]) -> Cost:
        """Train what is missing for some goals; returns the cost of all of them, whenever they were trained.

        Raises:
            DataError: no pair asks for a principle alone.
            RecipeError, StorageError, TrainingError: see `pad_cli.errors`.
        """
        distinct = {tuple(sorted(goal.items())): goal for goal in goals if goal}
        costs = [self.adapter(context.policy, goal).cost for goal in distinct.values()]
        return Cost(sum(c.seconds or 0.0 for c in costs), len(costs), sum(c.parameters for c in costs))

    def adapter(self, policy: LanguageModel, goal: Goal) -> Competitor:
        """The adapter of a goal, trained if it is missing; raises as `prepare`."""
        dtype = str(policy.head.weight.dtype)
        trained_for = (policy.fingerprint, dtype, tuple(goal.items()))
        if trained_for not in self._adapters:
            settings, pairs = self.settings, goal_pairs(self._pairs, goal)
            decided_by = [policy.fingerprint, dtype, settings.stage.model_dump(), settings.seed, self._limits]
            target = home() / "competitors" / fingerprint([*decided_by, [pair.content() for pair in pairs]])
            cost = _finished_cost(target)
            if cost is None:
                with in_turn(target):
                    if (cost := _finished_cost(target)) is None:
                        words = ", ".join(name if w == 1 else f"{name}={w:.3g}" for name, w in goal.items())
                        note(f"Training the policy for {words} by DPO (once, {len(pairs)} pairs).")
                        cost = _train(settings, policy, pairs, target)
            shutil.rmtree(_work(target), ignore_errors=True)
            self._adapters[trained_for] = Competitor(target, cost)
        return self._adapters[trained_for]

    @functools.cached_property
    def _pairs(self) -> tuple[PreferencePair, ...]:
        return load_pairs(self.settings.data, self.settings.seed, self.settings.principles).train

    @functools.cached_property
    def _data_key(self) -> str:
        return fingerprint([pair.content() for pair in self._pairs])

    @property
    def _limits(self) -> tuple[int, int]:
        return self.settings.data.max_prompt_tokens, self.settings.data.max_answer_tokens

    def _names(self, context: EvalContext) -> list[str]:
        """All names that a preference may use: those in the pairs, and the reward model's."""
        in_pairs = {name for pair in self._pairs for name in pair.preference}
        return sorted(in_pairs | set(context.reward_model.principles))


@contextmanager
def attached(policy: LanguageModel, directory: Path) -> Iterator[Adapter]:
    """An adapter of the policy's; attached only inside the block, since it slows everything else down.

    Raises:
        CheckpointError: the adapter is damaged.
    """
    adapter = Adapter.load(directory, policy.model)
    try:
        yield adapter
    finally:
        adapter.detach()


def normalised(weights: Goal) -> Goal:
    """The same direction with absolute weights that sum to 1."""
    total = sum(abs(weight) for weight in weights.values())
    return {name: weight / total for name, weight in weights.items()}


def goal_pairs(pairs: Sequence[PreferencePair], goal: Goal) -> list[PreferencePair]:
    """The training pairs of a goal: those whose order the goal alone decides.

    Raises:
        DataError: no pair asks for a principle of it alone.
    """
    alone = {
        name: [
            pair if pair.preference[name] > 0 else _swapped(pair)
            for pair in pairs
            if not pair.texts and pair.preference.keys() == {name}
        ]
        for name in goal
    }
    if lacking := [name for name, own_pairs in alone.items() if not own_pairs]:
        raise DataError(
            f"no training pair asks for {', '.join(lacking)} alone, so there is no competitor for it",
            hint="Give the method other data, or leave those preferences out of the benchmark.",
        )
    if len(goal) == 1:
        ((name, weight),) = goal.items()
        return alone[name] if weight > 0 else [_swapped(pair) for pair in alone[name]]
    direction = _direction(goal)
    result = [pair for pair in pairs if not pair.texts and pair.preference and _direction(pair.preference) == direction]
    total = sum(map(len, alone.values()))
    for name, share in normalised(goal).items():
        drawn = itertools.islice(itertools.cycle(alone[name]), round(abs(share) * total))
        result += drawn if share > 0 else map(_swapped, drawn)
    return result


def _swapped(pair: PreferencePair) -> PreferencePair:
    opposite = {name: -weight for name, weight in pair.preference.items()}
    return PreferencePair(pair.prompt, opposite, pair.rejected, pair.chosen)


def _direction(weights: Goal) -> dict[str, float]:
    return {name: round(weight, _DIRECTION_DIGITS) for name, weight in normalised(weights).items()}


def _finished_cost(target: Path) -> Cost | None:
    """The cost of a finished adapter; None if there is none, or it is damaged."""
    try:
        load_tensors(target / ADAPTER_WEIGHTS)
        return Cost(**json.loads((target / COST).read_text(encoding="utf-8")))
    except (OSError, SafetensorError, ValueError, TypeError):
        return None


def _train(settings: CompetitorSettings, policy: LanguageModel, pairs: list[PreferencePair], target: Path) -> Cost:
    """Train an adapter, or resume, and save it with its cost, which includes interrupted attempts."""
    from pad_cli.training.dpo import train_dpo

    book = SequenceBook(policy.tokenizer, settings.data.max_prompt_tokens, settings.data.max_answer_tokens)
    table = tabulate(pairs, book)
    work, started = _work(target), time.monotonic()
    clock = work / _SECONDS
    before = float(clock.read_text(encoding="utf-8")) if clock.exists() else 0.0
    try:
        adapter = train_dpo(settings.stage, policy, book.sequences, table, directory=work, seed=settings.seed)
    finally:
        seconds = before + time.monotonic() - started
        write_whole(clock, f"{seconds}\n")
    cost = Cost(seconds, 1, sum(tensor.numel() for tensor in adapter.tensors))
    try:
        with whole_directory(target) as scratch:
            adapter.save(scratch)
            write_json(scratch / COST, asdict(cost))
    finally:
        adapter.detach()
    return cost


def _work(target: Path) -> Path:
    """The files of an unfinished training; deleted once it is finished."""
    return target.with_name(f"{target.name}.unfinished")
