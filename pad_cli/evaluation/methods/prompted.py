"""`prompt` and `pad+prompt`: the policy is asked for the preference in words, alone or beside guidance.

The words are those of the one template, `pad_cli.preference.prompted`. They need no reward model, but its principles
say which words of a preference are names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pad_cli.errors import RecipeError
from pad_cli.evaluation.contract import Cost, EvalContext
from pad_cli.evaluation.methods.examples import Examples, draw_examples, read_examples, with_examples
from pad_cli.models.prompts import encode_prompt
from pad_cli.preference import Preference, parse_preference, prompted
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation, Messages, as_messages

_PROBE = Preference({"a": 1.0, "b": -0.5}, {"c": 2.0})
"""Worded, it shows every word of the template: answers are kept under what it gives."""


@dataclass(frozen=True)
class Prompting:
    """Words a method's prompts.

    Options:
        examples: few-shot examples: a list of `{prompt, preference, answer}`, all of which are shown; or a JSONL file
            of preference pairs, or a registered source of them, from which chosen answers are drawn for each question.
        shots: how many are drawn.
        seed: of the draw.
    """

    examples: str | Sequence[Mapping[str, Any]] = ()
    shots: int = 2
    seed: int = 0
    _read: dict[tuple[str, ...], Examples] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.examples, str | list | tuple) or self.shots < 1:
            raise RecipeError(
                f"methods: options.examples {self.examples!r} with shots {self.shots}.",
                "Give a list of examples, a JSONL file or a registered source of pairs, and at least one shot.",
            )

    def wording(self, subject: EvalContext) -> Any:
        """What decides the words, for a method's key."""
        probe = [dict(message) for message in prompted(as_messages("?"), _PROBE)]
        return [probe, self._examples(subject).key if self.examples else None]

    def prepare(self, subject: EvalContext) -> Cost:
        if self.examples:
            self._examples(subject)
        return Cost()

    def prompts(
        self, subject: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings
    ) -> list[Messages]:
        """What the policy reads for each item.

        Raises:
            RecipeError: examples leave no room for an answer.
        """
        prompts = [self._prompt(subject, item) for item in items]
        if self.examples:
            _check_length(subject, prompts, settings)
        return prompts

    def _prompt(self, subject: EvalContext, item: BenchmarkItem) -> Messages:
        preference = parse_preference(item.preference, subject.reward_model.principles, accepts_text=True)
        conversation = prompted(item.prompt, preference)
        if not self.examples:
            return conversation
        return with_examples(conversation, self._examples(subject).of(item, preference))

    def _examples(self, subject: EvalContext) -> Examples:
        principles = tuple(subject.reward_model.principles)
        if principles not in self._read:
            given = self.examples
            self._read[principles] = (
                draw_examples(given, principles, self.shots, self.seed)
                if isinstance(given, str)
                else read_examples(given, principles)
            )
        return self._read[principles]


@dataclass(frozen=True)
class Prompt(Prompting):
    """The policy with the preference in its prompt; options as in `Prompting`."""

    description: ClassVar[str] = "the policy with the preference in its prompt"
    reads_preference: ClassVar[bool] = True
    weighted: ClassVar[bool] = False

    def key(self, subject: EvalContext) -> Any:
        return ["prompt", self.wording(subject)]

    def answer(
        self, subject: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        streams = [item.id for item in items]
        return subject.engine.generate(self.prompts(subject, items, settings), None, settings, streams=streams)


@dataclass(frozen=True)
class PadPrompt(Prompting):
    """PAD on a policy that reads the preference, too; the reward model reads the plain prompt. Options as above."""

    description: ClassVar[str] = "the policy with the preference in its prompt, guided by the reward model"
    reads_preference: ClassVar[bool] = True
    weighted: ClassVar[bool] = True

    def key(self, subject: EvalContext) -> Any:
        return ["pad+prompt", self.wording(subject), *subject.steered_by]

    def prepare(self, subject: EvalContext) -> Cost:
        super().prepare(subject)
        return subject.reward_model_cost

    def answer(
        self, subject: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        return subject.engine.generate(
            [item.prompt for item in items],
            [subject.engine.preference(item.preference) for item in items],
            settings,
            [guidance_weight] * len(items),
            streams=[item.id for item in items],
            policy_prompts=self.prompts(subject, items, settings),
        )


def _check_length(subject: EvalContext, prompts: Sequence[Messages], settings: DecodingSettings) -> None:
    policy = subject.policy
    limit = policy.context_length
    longest = max((len(encode_prompt(policy.tokenizer, prompt)) for prompt in prompts), default=0)
    if limit is not None and longest + settings.max_new_tokens > limit:
        raise RecipeError(
            f"methods: with its examples a prompt has {longest} tokens, and {settings.max_new_tokens} may follow; "
            f"'{policy.name}' reads at most {limit}.",
            "Show fewer or shorter examples, or lower decoding.max_new_tokens.",
        )
