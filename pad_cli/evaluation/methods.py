"""Methods: ways to answer a benchmark's items. A method is a registry entry; more can join."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pad_cli.decoding.engine import PadEngine
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation


@dataclass(frozen=True)
class Method:
    """A way to answer.

    Attributes:
        name: in recipes and reports.
        description: one sentence.
        steers: does the answer depend on the preference and the guidance weight? If not, a prompt is answered once.
    """

    name: str
    description: str
    steers: bool

    def answer(
        self, engine: PadEngine, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        """Answer some items, one batch.

        Args:
            engine: policy and reward model.
            items: what to answer.
            settings: how to decode.
            guidance_weight: multiplier of the reward, for methods that steer.
        """
        prompts = [item.prompt for item in items]
        streams = [item.id for item in items]
        if not self.steers:
            return engine.generate(prompts, None, settings, streams=streams)
        preferences = [engine.preference(item.preference) for item in items]
        weights = [guidance_weight] * len(items)
        return engine.generate(prompts, preferences, settings, weights, streams=streams)


BASE = Method("base", "the policy alone", steers=False)
PAD = Method("pad", "the policy guided by the reward model while it decodes", steers=True)
