"""`base` and `pad`: the policy alone, and guided by the reward model while it decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pad_cli.evaluation.contract import Cost, EvalContext
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation


@dataclass(frozen=True)
class Base:
    """The policy alone."""

    description: str = "the policy alone"
    reads_preference: bool = False
    weighted: bool = False

    def key(self, subject: EvalContext) -> Any:
        return ["base"]

    def prepare(self, subject: EvalContext) -> Cost:
        return Cost()

    def answer(
        self, subject: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        prompts, streams = [item.prompt for item in items], [item.id for item in items]
        return subject.engine.generate(prompts, None, settings, streams=streams)


@dataclass(frozen=True)
class Pad:
    """The policy guided by the reward model while it decodes."""

    description: str = "the policy guided by the reward model while it decodes"
    reads_preference: bool = True
    weighted: bool = True

    def key(self, subject: EvalContext) -> Any:
        return ["pad", *subject.steered_by]

    def prepare(self, subject: EvalContext) -> Cost:
        return subject.reward_model_cost

    def answer(
        self, subject: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        engine = subject.engine
        prompts, streams = [item.prompt for item in items], [item.id for item in items]
        preferences = [engine.preference(item.preference) for item in items]
        return engine.generate(prompts, preferences, settings, [guidance_weight] * len(items), streams=streams)
