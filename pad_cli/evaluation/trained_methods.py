"""Methods that answer with policies trained for goals: preferences over named principles.

Negative weights have no effect on dpo and soup. Free text has no effect on any; with no principle left, the plain
policy answers.

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
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from pydantic import Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pad_cli.decoding.mixture import Expert, generate_mixture, prompt_lengths
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
"""Principle to weight, never zero."""
Mixture = list[tuple[Goal, float]]
"""The goals of the adapters that answer, each with its share; empty for the plain policy."""

Kind = TypeVar("Kind")

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


class Trained(Method):
    """A method whose adapters are trained before it answers. Options: see `CompetitorSettings`.

    Raises:
        RecipeError: the options are wrong.
    """

    name: ClassVar[str]

    def __init__(self, **options: Any) -> None:
        self.settings = read_options(CompetitorSettings, options, f"methods: options of '{self.name}'", HINT)
        self._limits = self.settings.data.max_prompt_tokens, self.settings.data.max_answer_tokens
        self._adapters: dict[Any, Competitor] = {}

    @abstractmethod
    def mixture(self, named: Goal) -> Mixture:
        """What answers for the named part of a preference."""

    def key(self, context: EvalContext) -> Any:
        pairs = fingerprint([pair.content() for pair in self._pairs])
        settings = self.settings.model_dump(exclude={"data"})
        return [self.name, [settings, pairs, self._limits, self._principles(context)]]

    def prepare(self, context: EvalContext) -> Cost:
        """Train what is missing for the items; returns the cost of all their adapters, whenever they were trained.

        Raises:
            DataError: no pair asks for a principle alone.
            RecipeError, StorageError, TrainingError: see `pad_cli.errors`.
        """
        goals = {tuple(sorted(goal.items())): goal for mix in self._mixtures(context, context.items) for goal, _ in mix}
        costs = [self.adapter(context.policy, goal).cost for goal in goals.values()]
        return Cost(sum(c.seconds or 0.0 for c in costs), len(costs), sum(c.parameters for c in costs))

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        """Answers in order; items of one mixture are answered together."""
        mixtures = self._mixtures(context, items)
        return answer_alike(
            items, mixtures, lambda mixture, alike: self._answer_with(mixture, context, alike, settings)
        )

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

    def _principles(self, context: EvalContext) -> list[str]:
        """All names that a preference may use: those in the pairs, and the reward model's."""
        in_pairs = {name for pair in self._pairs for name in pair.preference}
        return sorted(in_pairs | set(context.reward_model.principles))

    def _mixtures(self, context: EvalContext, items: Sequence[BenchmarkItem]) -> list[Mixture]:
        """What answers each item; free text, for which nothing is trained, is left out of its preference."""
        names = self._principles(context)
        return [self.mixture(parse_preference(item.preference, names, accepts_text=True).weights) for item in items]

    def _answer_with(
        self, mixture: Mixture, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings
    ) -> list[Generation]:
        policy = context.policy
        prompts = [encode_prompt(policy.tokenizer, item.prompt) for item in items]
        with ExitStack() as stack:
            adapters = [(None, 1 - sum(share for _, share in mixture)), *self._attach(mixture, policy, stack)]
            experts = [
                Expert(policy, prompts, [share] * len(items), adapter)
                for adapter, share in adapters
                if abs(share) > _NOTHING
            ]
            if len(experts) > 1:  # the C best tokens of the mixture, not of its first expert
                best = min(settings.candidates, settings.top_k or settings.candidates)
                settings = settings.model_copy(update={"candidates": policy.vocabulary_size, "top_k": best})
            answers = generate_mixture(experts, settings, [item.id for item in items])
        read = prompt_lengths(experts)
        return [context.engine.read_answer(tokens, count) for tokens, count in zip(answers, read, strict=True)]

    def _attach(self, mixture: Mixture, policy: LanguageModel, stack: ExitStack) -> list[tuple[Adapter, float]]:
        """The adapters of a mixture, attached until the stack is left, with the shares of their log-probabilities."""
        return [(_attached(self.adapter(policy, goal).directory, policy, stack), share) for goal, share in mixture]


class Dpo(Trained):
    """The policy trained by DPO for the preference's strongest principle (the first of equal ones) and no other."""

    name = "dpo"

    def mixture(self, named: Goal) -> Mixture:
        positive = _positive(named)
        return [({max(positive, key=lambda name: positive[name]): 1.0}, 1.0)] if positive else []


class Soup(Trained):
    """The policy with the average of one DPO adapter a principle, by the preference's weights (rewarded soups).

    The policy plus sum_k v_k s B_k A_k with v = w / sum w (Rame et al. 2023, arXiv 2306.04488); the mean of the B_k
    times the mean of the A_k is something else.
    """

    name = "soup"

    def mixture(self, named: Goal) -> Mixture:
        return _of_each(normalised(_positive(named)))

    def _attach(self, mixture: Mixture, policy: LanguageModel, stack: ExitStack) -> list[tuple[Adapter, float]]:
        """One adapter, the average."""
        if not mixture:
            return []
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        write_soup([(self.adapter(policy, goal).directory, share) for goal, share in mixture], scratch)
        return [(_attached(scratch, policy, stack), 1.0)]


class MorlDpo(Trained):
    """The policy trained by DPO for this very preference, one training for each preference that is asked."""

    name = "morl-dpo"

    def mixture(self, named: Goal) -> Mixture:
        return [(normalised(dict(sorted(named.items()))), 1.0)] if named else []


class Mod(Trained):
    """The weighted mean of the log-probabilities of one DPO-trained policy a principle (MOD).

    log pi(a) = log p(a) + sum_k v_k (log p_k(a) - log p(a)), p the policy, p_k trained for principle k, and
    v = w / sum |w|: with positive weights the plain policy cancels out (Shi et al. 2024, arXiv 2406.18853).
    """

    name = "mod"

    def mixture(self, named: Goal) -> Mixture:
        return _of_each(normalised(named))


class Sum(Trained):
    """The policy's log-probabilities plus the weighted log-ratios of one DPO-trained policy a principle.

    As `mod` with v = w: every log-ratio at full strength, like a reward model that gives token rewards (GenARM: Xu et
    al. 2024, arXiv 2410.08193).
    """

    name = "sum"

    def mixture(self, named: Goal) -> Mixture:
        return _of_each(named)


def answer_alike(
    items: Sequence[BenchmarkItem],
    kinds: Sequence[Kind],
    answer: Callable[[Kind, list[BenchmarkItem]], list[Generation]],
) -> list[Generation]:
    """Answers to items in order, those of one kind together; `kinds` are of the items."""
    answers: dict[int, Generation] = {}
    for first, kind in enumerate(kinds):
        if first not in answers:
            numbers = [number for number, other in enumerate(kinds) if other == kind]
            answers.update(zip(numbers, answer(kind, [items[number] for number in numbers]), strict=True))
    return [answers[number] for number in range(len(items))]


def _positive(weights: Goal) -> Goal:
    return {name: weight for name, weight in weights.items() if weight > 0}


def _of_each(shares: Goal) -> Mixture:
    """The adapter of each principle alone, with its share."""
    return [({name: 1.0}, share) for name, share in shares.items()]


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
    alone = {name: [pair for pair in pairs if pair.preference.keys() == {name}] for name in goal}
    if lacking := [name for name, own_pairs in alone.items() if not own_pairs]:
        raise DataError(
            f"no training pair asks for {', '.join(lacking)} alone, so there is no competitor for it",
            hint="Give the method other data, or leave those preferences out of the benchmark.",
        )
    total, direction = sum(map(len, alone.values())), _direction(goal)
    result = [pair for pair in pairs if _direction(pair.preference) == direction] if len(goal) > 1 else []
    for name, share in normalised(goal).items():
        drawn = itertools.islice(itertools.cycle(alone[name]), round(abs(share) * total))
        result += (pair if pair.preference[name] * share > 0 else _swapped(pair) for pair in drawn)
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

    book = SequenceBook()
    table = tabulate(pairs, book)
    limits = (settings.data.max_prompt_tokens, settings.data.max_answer_tokens)
    sequences, _ = book.tokenised(policy.tokenizer, *limits)
    work, started = _work(target), time.monotonic()
    clock = work / _SECONDS
    before = float(clock.read_text(encoding="utf-8")) if clock.exists() else 0.0
    try:
        adapter = train_dpo(settings.stage, policy, sequences, table, directory=work, seed=settings.seed)
    finally:
        seconds = before + time.monotonic() - started
        write_whole(clock, f"{seconds}\n")
    cost = Cost(seconds, 1, sum(tensor.numel() for tensor in adapter.tensors))
    try:
        with whole_directory(target) as scratch:
            adapter.save(scratch)
            write_json(scratch / _COST, asdict(cost))
    finally:
        adapter.remove_hooks()
    return cost


def _work(target: Path) -> Path:
    """The files of an unfinished training; deleted once it is finished."""
    return target.with_name(f"{target.name}.unfinished")


def _attached(directory: Path, policy: LanguageModel, stack: ExitStack) -> Adapter:
    """An adapter of the policy's, detached when the stack is left, since it slows everything else down."""
    adapter = Adapter.load(directory, policy.model)
    stack.callback(adapter.remove_hooks)
    return adapter


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
