"""Methods that answer with policies trained for principles, see `competitors.py`.

dpo       the adapter of the strongest principle alone
soup      the adapters of all principles, averaged: the policy plus sum_k v_k s B_k A_k with v = w / sum w
          (rewarded soups: Rame et al. 2023, arXiv 2306.04488)
morl-dpo  an adapter of its own for each distinct preference
mod       log pi(a) = log p(a) + sum_k v_k (log p_k(a) - log p(a)), p the policy, p_k trained for principle k,
          v = w / sum |w|: with positive weights the plain policy cancels out (Shi et al. 2024, arXiv 2406.18853)
sum       the same with v = w: every log-ratio at full strength, like a reward model that gives token rewards
          (GenARM: Xu et al. 2024, arXiv 2410.08193)

A soup averages the updates, not their factors: the mean of the B_k times the mean of the A_k is something else.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file, save_file

from pad_cli.decoding.mixture import Expert, generate_mixture
from pad_cli.evaluation.contract import Cost, EvalContext, Method
from pad_cli.evaluation.methods.competitors import Competitors, Goal, attached, normalised
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation
from pad_cli.system.runs import write_json

_NOTHING = 1e-9  # a weight below this is a rounding error

Components = Sequence[tuple[Adapter | None, float]]
"""Adapters (None for the plain policy) and the weights of their log-probabilities in a mixture."""


class Trained(Method):
    """A method whose adapters are trained before it answers. Options: see `CompetitorSettings`.

    Raises:
        RecipeError: the options are wrong.
    """

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
        parts = [
            (self._competitors.adapter(policy, {name: 1.0}).directory, share)
            for name, share in normalised(goal).items()
        ]
        with tempfile.TemporaryDirectory() as scratch:
            write_soup(parts, Path(scratch))
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

    def _shares(self, goal: Goal) -> Goal:
        """v_k of each principle."""
        return normalised(goal)

    @contextmanager
    def _components(self, policy: LanguageModel, goal: Goal) -> Iterator[Components]:
        shares = self._shares(goal)
        components: list[tuple[Adapter | None, float]] = [(None, 1 - sum(shares.values()))]
        with ExitStack() as stack:
            for name, share in shares.items():
                directory = self._competitors.adapter(policy, {name: 1.0}).directory
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

    def _shares(self, goal: Goal) -> Goal:
        return goal


def write_soup(parts: Sequence[tuple[Path, float]], target: Path) -> None:
    """The weighted sum of adapters with the same layers and settings, as one adapter of all their ranks together.

    Args:
        parts: directories of PEFT files, and the weight of each.
        target: an existing directory, for PEFT's two files.
    """
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
