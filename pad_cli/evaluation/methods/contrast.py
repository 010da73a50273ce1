"""`contrast`: the policy with the preference in its prompt, pushed away from what it says without.

    (1 + g) log pi(a | x, p) - g log pi(a | x)        g = guidance weight * scale

Context steering (arXiv 2405.01768); it needs no reward model and no training, and reads two rows for each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pad_cli.decoding.mixture import Voice, generate_mixture
from pad_cli.evaluation.contract import EvalContext
from pad_cli.evaluation.methods.prompted import Prompting
from pad_cli.models.prompts import encode_prompt
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation, Messages


@dataclass(frozen=True)
class Contrast(Prompting):
    """Contrasts the policy's two readings. Guidance weight 0 is `prompt`.

    Options:
        scale: multiplier of the guidance weight.
        examples, shots, seed: as in `Prompting`, for the prompt with the preference.
    """

    scale: float = 1.0
    description: ClassVar[str] = "the policy with the preference in its prompt, contrasted with itself without"
    reads_preference: ClassVar[bool] = True
    weighted: ClassVar[bool] = True

    def key(self, subject: EvalContext) -> Any:
        return ["contrast", self.scale, self.wording(subject)]

    def answer(
        self, subject: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        def voice(prompts: Sequence[Messages], weight: float) -> Voice:
            tokens = [encode_prompt(subject.policy.tokenizer, prompt) for prompt in prompts]
            return Voice(subject.policy, tokens, [weight] * len(items))

        push = guidance_weight * self.scale
        asked = voice(self.prompts(subject, items, settings), 1 + push)
        plain = voice([item.prompt for item in items], -push)
        answers = generate_mixture([asked, plain], settings, [item.id for item in items])
        return [subject.engine.read_answer(tokens) for tokens in answers]
