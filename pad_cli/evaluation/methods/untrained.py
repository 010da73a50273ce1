"""Methods that train nothing beyond the reward model.

base         the policy alone
pad          the policy guided by the reward model while it decodes
best-of-n    n sampled answers of the policy, of which the reward model keeps the best (Stiennon et al. 2020,
             arXiv 2009.01325): the same reward model, used after decoding instead of during it
prompt       the preference in words in the prompt
pad+prompt   both; the reward model reads the plain prompt
contrast     (1 + g) log pi(a | x, p) - g log pi(a | x), g = guidance weight * scale: the policy with the preference in
             its prompt, contrasted with itself without (context steering, arXiv 2405.01768)

The words are those of one template, `pad_cli.preference.prompted`. They need no reward model, but its principles say
which words of a preference are names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pad_cli.decoding.mixture import Expert, generate_mixture
from pad_cli.errors import RecipeError
from pad_cli.evaluation.contract import Cost, EvalContext, Method
from pad_cli.evaluation.methods.examples import Examples, draw_examples, read_examples, with_examples
from pad_cli.evaluation.sequence_rewards import AnswerToReward, answer_tokens, sequence_rewards
from pad_cli.models.language_model import same_vocabulary
from pad_cli.models.prompts import encode_prompt
from pad_cli.preference import Preference, parse_preference, prompted
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem, Generation, Messages, as_messages

_PROBE = Preference({"a": 1.0, "b": -0.5}, {"c": 2.0})
"""Its wording has every word of the template: answers are kept under a key of that."""


class Base(Method):
    description = "the policy alone"
    reads_preference = False

    def key(self, context: EvalContext) -> Any:
        return ["base"]

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        return context.engine.generate(_prompts(items), None, settings, streams=_ids(items))


class Pad(Method):
    description = "the policy guided by the reward model while it decodes"
    weighted = True

    def key(self, context: EvalContext) -> Any:
        return ["pad", *context.steered_by]

    def prepare(self, context: EvalContext) -> Cost:
        return context.reward_model_cost

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        weights = [guidance_weight] * len(items)
        preferences = _preferences(context, items)
        return context.engine.generate(_prompts(items), preferences, settings, weights, streams=_ids(items))


@dataclass(frozen=True)
class BestOfN(Method):
    """The policy's sampled answer with the highest summed reward under the item's preference.

    Its time is that of all n answers and their rewards.

    Options:
        n: answers to choose from.
        temperature: of sampling, if the recipe decodes greedily.
    """

    n: int = 8
    temperature: float = 1.0
    description: ClassVar[str] = "the best of n sampled answers, by the reward model's reward of the whole answer"

    def __post_init__(self) -> None:
        if self.n < 1 or self.temperature <= 0:
            raise RecipeError(
                f"methods: best-of-n with n {self.n} and temperature {self.temperature:g}.",
                "n is at least 1, and the temperature above 0.",
            )

    def key(self, context: EvalContext) -> Any:
        return ["best-of-n", self.n, self.temperature, *context.steered_by]

    def prepare(self, context: EvalContext) -> Cost:
        return context.reward_model_cost

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        model, n = context.reward_model, self.n
        sampled = settings.model_copy(update={"temperature": settings.temperature or self.temperature})
        streams = [f"{item.id}/{number}" if number else item.id for item in items for number in range(n)]
        repeated = [item for item in items for _ in range(n)]
        generations = context.engine.generate(_prompts(repeated), None, sampled, streams=streams)
        preferences = [preference for preference in _preferences(context, items) for _ in range(n)]
        shared = same_vocabulary(context.policy, model.backbone)  # then the very tokens that were sampled are rewarded
        to_reward = [
            AnswerToReward(
                item.prompt,
                preference,
                drawn.token_ids if shared else answer_tokens(model, drawn.text, ended=drawn.finish_reason == "stop"),
            )
            for item, preference, drawn in zip(repeated, preferences, generations, strict=True)
        ]
        rewards = sequence_rewards(model, context.policy, to_reward).view(len(items), n)
        return [generations[n * row + best] for row, best in enumerate(rewards.argmax(1).tolist())]


@dataclass(frozen=True)
class Prompt(Method):
    """The policy with the preference in its prompt.

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
    description: ClassVar[str] = "the policy with the preference in its prompt"

    def __post_init__(self) -> None:
        if not isinstance(self.examples, str | list | tuple) or self.shots < 1:
            raise RecipeError(
                f"methods: options.examples {self.examples!r} with shots {self.shots}.",
                "Give a list of examples, a JSONL file or a registered source of pairs, and at least one shot.",
            )

    def key(self, context: EvalContext) -> Any:
        return ["prompt", self._wording(context)]

    def prepare(self, context: EvalContext) -> Cost:
        if self.examples:
            self._examples(context)
        return Cost()

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        return context.engine.generate(self.prompts(context, items, settings), None, settings, streams=_ids(items))

    def prompts(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings
    ) -> list[Messages]:
        """What the policy reads for each item.

        Raises:
            RecipeError: examples leave no room for an answer.
        """
        prompts = [self._prompt(context, item) for item in items]
        if self.examples:
            _check_length(context, prompts, settings)
        return prompts

    def _prompt(self, context: EvalContext, item: BenchmarkItem) -> Messages:
        preference = parse_preference(item.preference, context.reward_model.principles, accepts_text=True)
        conversation = prompted(item.prompt, preference)
        if not self.examples:
            return conversation
        return with_examples(conversation, self._examples(context).of(item, preference))

    def _wording(self, context: EvalContext) -> Any:
        """What decides the words, for a method's key."""
        probe = [dict(message) for message in prompted(as_messages("?"), _PROBE)]
        return [probe, self._examples(context).key if self.examples else None]

    def _examples(self, context: EvalContext) -> Examples:
        principles = tuple(context.reward_model.principles)
        if principles not in self._read:
            self._read[principles] = (
                draw_examples(self.examples, principles, self.shots, self.seed)
                if isinstance(self.examples, str)
                else read_examples(self.examples, principles)
            )
        return self._read[principles]


@dataclass(frozen=True)
class PadPrompt(Prompt):
    """PAD on a policy that also reads the preference in its prompt; options as of `Prompt`."""

    description: ClassVar[str] = "the policy with the preference in its prompt, guided by the reward model"
    weighted: ClassVar[bool] = True

    def key(self, context: EvalContext) -> Any:
        return ["pad+prompt", self._wording(context), *context.steered_by]

    def prepare(self, context: EvalContext) -> Cost:
        super().prepare(context)
        return context.reward_model_cost

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        return context.engine.generate(
            _prompts(items),
            _preferences(context, items),
            settings,
            [guidance_weight] * len(items),
            streams=_ids(items),
            policy_prompts=self.prompts(context, items, settings),
        )


@dataclass(frozen=True)
class Contrast(Prompt):
    """The policy with the preference in its prompt, contrasted with itself without; at guidance weight 0 `prompt`.

    Options:
        scale: multiplier of the guidance weight.
        examples, shots, seed: as of `Prompt`, for the prompt with the preference.
    """

    scale: float = 1.0
    description: ClassVar[str] = "the policy with the preference in its prompt, contrasted with itself without"
    weighted: ClassVar[bool] = True

    def key(self, context: EvalContext) -> Any:
        return ["contrast", self.scale, self._wording(context)]

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        def component(prompts: Sequence[Messages], weight: float) -> Expert:
            tokens = [encode_prompt(context.policy.tokenizer, prompt) for prompt in prompts]
            return Expert(context.policy, tokens, [weight] * len(items))

        push = guidance_weight * self.scale
        with_preference = component(self.prompts(context, items, settings), 1 + push)
        answers = generate_mixture([with_preference, component(_prompts(items), -push)], settings, _ids(items))
        return [context.engine.read_answer(tokens) for tokens in answers]


def _prompts(items: Sequence[BenchmarkItem]) -> list[Messages]:
    return [item.prompt for item in items]


def _ids(items: Sequence[BenchmarkItem]) -> list[str]:
    """Names of the random streams: with the seed they decide what sampling draws."""
    return [item.id for item in items]


def _preferences(context: EvalContext, items: Sequence[BenchmarkItem]) -> list[Preference]:
    return [context.engine.preference(item.preference) for item in items]


def _check_length(context: EvalContext, prompts: Sequence[Messages], settings: DecodingSettings) -> None:
    policy = context.policy
    limit = policy.context_length
    longest = max((len(encode_prompt(policy.tokenizer, prompt)) for prompt in prompts), default=0)
    if limit is not None and longest + settings.max_new_tokens > limit:
        raise RecipeError(
            f"methods: with its examples a prompt has {longest} tokens, and {settings.max_new_tokens} may follow; "
            f"'{policy.name}' reads at most {limit}.",
            "Show fewer or shorter examples, or lower decoding.max_new_tokens.",
        )
