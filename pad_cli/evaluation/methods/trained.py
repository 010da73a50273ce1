"""Policies that were trained: `dpo`, `soup` and `morl-dpo` answer from one set of LoRA weights.

dpo       the adapter of the strongest principle alone
soup      the adapters of all principles, averaged: the policy plus sum_k v_k s B_k A_k with v = w / sum w
          (rewarded soups: Rame et al. 2023, arXiv 2306.04488)
morl-dpo  an adapter of its own for each preference that is asked

The updates are averaged, not their factors: the mean of the B_k times the mean of the A_k is something else.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from pad_cli.evaluation.contract import EvalContext
from pad_cli.evaluation.methods.competing import Competing, each_alone
from pad_cli.evaluation.methods.competitors import Goal, answer_mixed, attached, normalised
from pad_cli.models.adapter import CONFIG, WEIGHTS, Adapter
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation
from pad_cli.system.runs import write_json


class _Trained(Competing):
    """What the three have in common."""

    def _trained_for(self, goal: Goal) -> list[Goal]:
        return [goal]

    def _answer(
        self, subject: EvalContext, goal: Goal, items: list[BenchmarkItem], settings: DecodingSettings
    ) -> list[Generation]:
        with self._adapter(subject.policy, goal) if goal else nullcontext() as adapter:
            return answer_mixed(subject, items, settings, [(adapter, 1.0)])

    @contextmanager
    def _adapter(self, policy: LanguageModel, goal: Goal) -> Iterator[Adapter]:
        with attached(policy, self._competitors.adapter(policy, goal).directory) as adapter:
            yield adapter


class Dpo(_Trained):
    """One adapter a principle; of a combination it knows the strongest principle only, of equal ones the first."""

    name = "dpo"
    description = (
        "the policy trained by DPO for the preference's strongest principle (the first of equal ones) and no other; "
        "negative weights and free text have no effect, and with nothing left the plain policy answers"
    )

    def _goal(self, subject: EvalContext, item: BenchmarkItem) -> Goal:
        wanted = _positive(self._competitors.named(subject, item))
        return {max(wanted, key=lambda name: wanted[name]): 1.0} if wanted else {}


class Soup(_Trained):
    """One adapter a principle, averaged by weight."""

    name = "soup"
    description = (
        "the policy with the average of one DPO adapter a principle, by the preference's weights (rewarded soups); "
        "negative weights and free text have no effect, and with nothing left the plain policy answers"
    )

    def _goal(self, subject: EvalContext, item: BenchmarkItem) -> Goal:
        return _positive(self._competitors.named(subject, item))

    def _trained_for(self, goal: Goal) -> list[Goal]:
        return each_alone(goal)

    @contextmanager
    def _adapter(self, policy: LanguageModel, goal: Goal) -> Iterator[Adapter]:
        parts = [
            (self._competitors.adapter(policy, {name: 1.0}).directory, share)
            for name, share in normalised(goal).items()
        ]
        with tempfile.TemporaryDirectory() as scratch:
            write_soup(parts, Path(scratch))
            with attached(policy, Path(scratch)) as mixed:
                yield mixed


class MorlDpo(_Trained):
    """One adapter for each preference."""

    name = "morl-dpo"
    description = (
        "the policy trained by DPO for this very preference, one training for each preference that is asked; "
        "free text has no effect, and with nothing left the plain policy answers"
    )

    def _goal(self, subject: EvalContext, item: BenchmarkItem) -> Goal:
        wanted = self._competitors.named(subject, item)
        return normalised(dict(sorted(wanted.items()))) if wanted else {}


def write_soup(parts: Sequence[tuple[Path, float]], target: Path) -> None:
    """The weighted sum of adapters with the same layers and settings, as one adapter of all their ranks together.

    Args:
        parts: directories of PEFT files, and what each counts.
        target: an existing directory, for PEFT's two files.
    """
    adapters = [(load_file(directory / WEIGHTS), share) for directory, share in parts]
    config = json.loads((parts[0][0] / CONFIG).read_text(encoding="utf-8"))
    stacked: dict[str, Callable[[str], torch.Tensor]] = {
        "lora_A": lambda name: torch.cat([tensors[name] for tensors, _ in adapters]),
        "lora_B": lambda name: torch.cat([share * tensors[name] for tensors, share in adapters], dim=1),
    }
    mixed = {name: stacked[name.split(".")[-2]](name).contiguous() for name in adapters[0][0]}
    save_file(mixed, target / WEIGHTS, metadata={"format": "pt"})
    count = len(parts)  # alpha / rank, the factor of all updates, stays what it is
    write_json(target / CONFIG, {**config, "r": count * config["r"], "lora_alpha": count * config["lora_alpha"]})


def _positive(weights: Goal) -> Goal:
    return {name: weight for name, weight in weights.items() if weight > 0}
