"""Methods that answer with policies trained for goals: preferences over named principles.

dpo       the adapter of the strongest principle alone
soup      the adapters of all principles, averaged: the policy plus sum_k v_k s B_k A_k with v = w / sum w
          (rewarded soups: Rame et al. 2023, arXiv 2306.04488)
morl-dpo  an adapter of its own for each distinct preference
mod       log pi(a) = log p(a) + sum_k v_k (log p_k(a) - log p(a)), p the policy, p_k trained for principle k,
          v = w / sum |w|: with positive weights the plain policy cancels out (Shi et al. 2024, arXiv 2406.18853)
sum       the same with v = w: every log-ratio at full strength, like a reward model that gives token rewards
          (GenARM: Xu et al. 2024, arXiv 2410.08193)

A soup averages the updates, not their factors: the mean of the B_k times the mean of the A_k is something else.

Adapters are LoRA (Hu et al. 2021, arXiv 2106.09685), each trained for one goal by plain DPO (Rafailov et al. 2023,
arXiv 2305.18290). A goal of one principle learns from the pairs that ask for it alone; a mixed one from the pairs that
ask for that mixture, and from those of its principles in proportion to their weights (the data of a linear
scalarisation). If a weight is negative, the chosen and rejected answers of its pairs are swapped. They are kept in
`PAD_HOME/competitors`, under a key of policy, pairs and settings, with their cost; an interrupted training resumes.
"""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pad_cli.decoding.mixture import Expert, generate_mixture
from pad_cli.errors import DataError
from pad_cli.evaluation.contract import HINT, Cost, EvalContext, Method
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, load_tensors
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.pairs import load_pairs
from pad_cli.preference import parse_preference
from pad_cli.recipe import AdapterStage, DataSettings, DecodingSettings, LoraStage
from pad_cli.recipe.settings import read_options
from pad_cli.records import BenchmarkItem, Generation, PreferencePair
from pad_cli.system.progress import note
from pad_cli.system.runs import fingerprint, home, in_turn, whole_directory, write_json, write_whole
from pad_cli.training.pair_table import SequenceBook, tabulate

Goal = Mapping[str, float]
"""Principle to weight, never zero; empty for the plain policy."""
Components = Sequence[tuple[Adapter | None, float]]
"""Adapters (None for the plain policy) and the weights of their log-probabilities in a mixture."""

_COST, _SECONDS = "cost.json", "seconds"
_DIRECTION_DIGITS = 6  # preferences that differ by less are one goal
_NOTHING = 1e-9  # a weight below this is a rounding error


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
    """Trains and finds the adapters of one method, whose name is for messages.

    Raises:
        RecipeError: the options are wrong, see `CompetitorSettings`.
    """

    def __init__(self, method: str, options: Mapping[str, Any]) -> None:
        self.settings = read_options(CompetitorSettings, options, f"methods: options of '{method}'", HINT)
        self._limits = self.settings.data.max_prompt_tokens, self.settings.data.max_answer_tokens
        self._adapters: dict[Any, Competitor] = {}

    def key(self, context: EvalContext) -> Any:
        """What decides the adapters beside the policy, and how preferences are read."""
        pairs = fingerprint([pair.content() for pair in self._pairs])
        return [self.settings.model_dump(exclude={"data"}), pairs, self._limits, self._names(context)]

    def named(self, context: EvalContext, item: BenchmarkItem) -> Goal:
        """The named part of an item's preference; free text has no competitor and is left out."""
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

    def _names(self, context: EvalContext) -> list[str]:
        """All names that a preference may use: those in the pairs, and the reward model's."""
        in_pairs = {name for pair in self._pairs for name in pair.preference}
        return sorted(in_pairs | set(context.reward_model.principles))


def normalised(weights: Goal) -> Goal:
    """The same direction with absolute weights that sum to 1."""
    total = sum(abs(weight) for weight in weights.values())
    return {name: weight / total for name, weight in weights.items()}


def goal_pairs(pairs: Sequence[PreferencePair], goal: Goal) -> list[PreferencePair]:
    """The training pairs of a goal: those whose order the goal alone decides.

    Raises:
        DataError: no pair asks for a principle of it alone.
    """
    pairs = [pair for pair in pairs if pair.preference and not pair.texts]
    alone = {
        name: [
            pair if pair.preference[name] > 0 else _swapped(pair) for pair in pairs if pair.preference.keys() == {name}
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
    result = [pair for pair in pairs if _direction(pair.preference) == direction]
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
        return Cost(**json.loads((target / _COST).read_text(encoding="utf-8")))
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
            write_json(scratch / _COST, asdict(cost))
    finally:
        adapter.detach()
    return cost


def _work(target: Path) -> Path:
    """The files of an unfinished training; deleted once it is finished."""
    return target.with_name(f"{target.name}.unfinished")


@contextmanager
def attached(policy: LanguageModel, directory: Path) -> Iterator[Adapter]:
    """An adapter of the policy's; attached only inside the block, since it slows everything else down."""
    adapter = Adapter.load(directory, policy.model)
    try:
        yield adapter
    finally:
        adapter.detach()


class Trained(Method):
    """A method whose adapters are trained before it answers. Options: see `CompetitorSettings`."""

    name: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        self._competitors = Competitors(self.name, options)

    def key(self, context: EvalContext) -> Any:
        return [self.name, self._competitors.key(context)]

    def prepare(self, context: EvalContext) -> Cost:
        goals = (self._goal(self._competitors.named(context, item)) for item in context.items)
        return self._competitors.prepare(context, [part for goal in goals for part in self._parts(goal)])

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        """Answers in order; items of one goal are answered together, those of none by the plain policy."""
        groups: dict[tuple[tuple[str, float], ...], list[int]] = {}
        for number, item in enumerate(items):
            goal = self._goal(self._competitors.named(context, item))
            groups.setdefault(tuple(goal.items()), []).append(number)
        answers: dict[int, Generation] = {}
        for key, numbers in groups.items():
            goal, group = dict(key), [items[number] for number in numbers]
            plain: Components = [(None, 1.0)]
            with self._components(context.policy, goal) if goal else nullcontext(plain) as components:
                prompts = [encode_prompt(context.policy.tokenizer, item.prompt) for item in group]
                mixture = [
                    Expert(context.policy, prompts, [weight] * len(group), adapter) for adapter, weight in components
                ]
                tokens = generate_mixture(mixture, self._decoding(settings, context), [item.id for item in group])
            answers.update(zip(numbers, map(context.engine.read_answer, tokens), strict=True))
        return [answers[number] for number in range(len(items))]

    def _goal(self, named: Goal) -> Goal:
        """What the method can aim at of the named part of a preference."""
        return named

    def _parts(self, goal: Goal) -> list[Goal]:
        """The goals of the adapters that it needs for a goal."""
        return [{name: 1.0} for name in goal]

    def _decoding(self, settings: DecodingSettings, context: EvalContext) -> DecodingSettings:
        return settings

    @contextmanager
    def _components(self, policy: LanguageModel, goal: Goal) -> Iterator[Components]:
        """The mixture that answers for a goal: by default the adapter trained for exactly that."""
        with attached(policy, self._competitors.adapter(policy, goal).directory) as adapter:
            yield [(adapter, 1.0)]

    def _weighted(self, policy: LanguageModel, shares: Goal) -> list[tuple[Path, float]]:
        """The directory of each principle's adapter, and its share."""
        return [(self._competitors.adapter(policy, {name: 1.0}).directory, share) for name, share in shares.items()]


class Dpo(Trained):
    name = "dpo"
    description = (
        "the policy trained by DPO for the preference's strongest principle (the first of equal ones) and no other; "
        "negative weights and free text have no effect, and with nothing left the plain policy answers"
    )

    def _goal(self, named: Goal) -> Goal:
        positive = _positive(named)
        return {max(positive, key=lambda name: positive[name]): 1.0} if positive else {}


class Soup(Trained):
    name = "soup"
    description = (
        "the policy with the average of one DPO adapter a principle, by the preference's weights (rewarded soups); "
        "negative weights and free text have no effect, and with nothing left the plain policy answers"
    )

    def _goal(self, named: Goal) -> Goal:
        return _positive(named)

    @contextmanager
    def _components(self, policy: LanguageModel, goal: Goal) -> Iterator[Components]:
        with tempfile.TemporaryDirectory() as scratch:
            write_soup(self._weighted(policy, normalised(goal)), Path(scratch))
            with attached(policy, Path(scratch)) as adapter:
                yield [(adapter, 1.0)]


class MorlDpo(Trained):
    name = "morl-dpo"
    description = (
        "the policy trained by DPO for this very preference, one training for each preference that is asked; "
        "free text has no effect, and with nothing left the plain policy answers"
    )

    def _goal(self, named: Goal) -> Goal:
        return normalised(dict(sorted(named.items()))) if named else {}

    def _parts(self, goal: Goal) -> list[Goal]:
        return [goal]


class Mod(Trained):
    name = "mod"
    description = (
        "the weighted mean of the log-probabilities of one DPO-trained policy a principle (MOD); free text has no "
        "effect, and with nothing left the plain policy answers"
    )

    relative: ClassVar[bool] = True  # only the proportions of weights count

    @contextmanager
    def _components(self, policy: LanguageModel, goal: Goal) -> Iterator[Components]:
        shares = normalised(goal) if self.relative else goal
        components: list[tuple[Adapter | None, float]] = [(None, 1 - sum(shares.values()))]
        with ExitStack() as stack:
            for directory, share in self._weighted(policy, shares):
                components.append((stack.enter_context(attached(policy, directory)), share))
            yield [(adapter, weight) for adapter, weight in components if abs(weight) > _NOTHING]

    def _decoding(self, settings: DecodingSettings, context: EvalContext) -> DecodingSettings:
        """Among the C best tokens of the mixture, not of its first component."""
        best = min(settings.candidates, settings.top_k or settings.candidates)
        return settings.model_copy(update={"candidates": context.policy.vocabulary_size, "top_k": best})


class Sum(Mod):
    name = "sum"
    description = (
        "the policy's log-probabilities plus the full-strength weighted sum of the log-ratios of one DPO-trained "
        "policy a principle (GenARM-like); free text has no effect, and with nothing left the plain policy answers"
    )
    relative = False


def write_soup(parts: Sequence[tuple[Path, float]], target: Path) -> None:
    """Write the weighted sum of adapters with the same layers and settings, as one adapter of all their ranks."""
    adapters = [(load_file(directory / ADAPTER_WEIGHTS), share) for directory, share in parts]
    config = json.loads((parts[0][0] / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    stacked: dict[str, Callable[[str], torch.Tensor]] = {
        "lora_A": lambda name: torch.cat([tensors[name] for tensors, _ in adapters]),
        "lora_B": lambda name: torch.cat([share * tensors[name] for tensors, share in adapters], dim=1),
    }
    mixed = {name: stacked[name.split(".")[-2]](name).contiguous() for name in adapters[0][0]}
    save_file(mixed, target / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    larger = {key: len(parts) * config[key] for key in ("r", "lora_alpha")}  # updates scale with alpha / r
    write_json(target / ADAPTER_CONFIG, {**config, **larger})


def _positive(weights: Goal) -> Goal:
    return {name: weight for name, weight in weights.items() if weight > 0}
