"""Methods that train nothing beyond the reward model.

The words are those of one template, `pad_cli.preference.prompted`; the reward model's principles say which words of a
preference are names. Few-shot examples are answered prompts before the question, each asking for its own preference.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.mixture import Expert, generate_mixture, prompt_lengths
from pad_cli.errors import RecipeError
from pad_cli.evaluation.contract import Cost, EvalContext, Method, reward_model_cost
from pad_cli.evaluation.sequence_rewards import answer_tokens, sequence_rewards
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.language_model import same_vocabulary
from pad_cli.models.prompts import encode_prompt
from pad_cli.pairs import load_pairs
from pad_cli.preference import Preference, parse_preference, prompted
from pad_cli.principles import NOT, instructed, instructions_of, principle_of, read_library
from pad_cli.recipe import DataSettings, DecodingSettings
from pad_cli.records import BenchmarkItem, Generation, Messages, PreferencePair, as_messages
from pad_cli.registry import PAIR_SOURCES
from pad_cli.system.runs import fingerprint

Signs = frozenset[tuple[str, bool]]
"""A preference without its strengths: each name or text, and whether its weight is positive."""

_PROBE = Preference({"a": 1.0, "b": -0.5}, {"c": 2.0})
"""Its wording has every word of the template: answers are kept under a key of that."""


def _location(examples: Any) -> Any:
    if isinstance(examples, list):
        raise ValueError("write the examples as preference pairs into a JSONL file, and give its name")
    return examples


class Untrained(Method):
    """A method without models of its own.

    Attributes:
        name: in the registry.
        rewarded: whether the reward model takes part in the answer.
    """

    name: ClassVar[str]
    rewarded: ClassVar[bool] = False

    def key(self, context: EvalContext) -> Any:
        always = context.engine.always
        steered_by = [context.reward_model.fingerprint, *([always] if always else [])] if self.rewarded else []
        return [self.name, *self.decided_by(context), *steered_by]

    def decided_by(self, context: EvalContext) -> list[Any]:
        """Its own part of the key."""
        return []

    def prepare(self, context: EvalContext) -> Cost:
        return context.reward_model_cost if self.rewarded else Cost()

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        prompts, streams = [item.prompt for item in items], [item.id for item in items]
        reads = self.prompts(context, items, settings)
        if not self.rewarded:
            return context.engine.generate(reads or prompts, None, settings, streams=streams)
        weights = [guidance_weight] * len(items)
        preferences = [context.engine.preference(item.preference) for item in items]
        return context.engine.generate(prompts, preferences, settings, weights, streams=streams, policy_prompts=reads)

    def prompts(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings
    ) -> list[Messages] | None:
        """What the policy reads for each item; None for the items' own prompts, which the reward model always reads."""
        return None


class Base(Untrained):
    """The policy alone."""

    name = "base"
    reads_preference = False


@dataclass(frozen=True)
class Pad(Untrained):
    """The policy guided by the reward model while it decodes.

    `reward_model` is another one than the recipe's: a directory, a hub id or a registered name.
    """

    reward_model: str = ""
    _engines: dict[str, PadEngine] = field(default_factory=dict, init=False, repr=False, compare=False)
    name: ClassVar[str] = "pad"
    weighted: ClassVar[bool] = True
    rewarded: ClassVar[bool] = True

    def key(self, context: EvalContext) -> Any:
        return super().key(self._context(context))

    def prepare(self, context: EvalContext) -> Cost:
        return reward_model_cost(self.reward_model) if self.reward_model else super().prepare(context)

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        return super().answer(self._context(context), items, settings, guidance_weight)

    def _context(self, context: EvalContext) -> EvalContext:
        """The policy with the method's own reward model, where it has one."""
        if not self.reward_model:
            return context
        policy = context.policy
        if policy.fingerprint not in self._engines:
            model = load_reward_model(self.reward_model, backbone=policy)
            self._engines.clear()  # policies are evaluated one after the other: do not hold on to the last one
            self._engines[policy.fingerprint] = PadEngine(policy, model, always=context.engine.always)
        return replace(context, engine=self._engines[policy.fingerprint])


@dataclass(frozen=True)
class BestOfN(Untrained):
    """The best of n sampled answers, by the reward model's reward of the whole answer.

    The same reward model, used after decoding instead of during it (Stiennon et al. 2020, arXiv 2009.01325).
    `temperature` is that of sampling if decoding is greedy.
    """

    n: Annotated[int, Field(ge=1)] = 8
    temperature: Annotated[float, Field(gt=0)] = 1.0
    name: ClassVar[str] = "best-of-n"
    rewarded: ClassVar[bool] = True

    def decided_by(self, context: EvalContext) -> list[Any]:
        return [self.n, self.temperature]

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        model, n = context.reward_model, self.n
        sampled = settings.model_copy(update={"temperature": settings.temperature or self.temperature})
        streams = [f"{item.id}/{number}" if number else item.id for item in items for number in range(n)]
        prompts = [item.prompt for item in items for _ in range(n)]
        preferences = [context.engine.preference(item.preference) for item in items for _ in range(n)]
        drawn = context.engine.generate(prompts, None, sampled, streams=streams)
        shared = same_vocabulary(context.policy, model.backbone)  # then the very tokens that were sampled are rewarded
        tokens = [
            each.token_ids if shared else answer_tokens(model, each.text, ended=each.finish_reason == "stop")
            for each in drawn
        ]
        rewards = sequence_rewards(model, context.policy, prompts, preferences, tokens).view(len(items), n)
        return [drawn[n * row + best] for row, best in enumerate(rewards.argmax(1).tolist())]


@dataclass(frozen=True)
class Prompt(Untrained):
    """The policy with the preference in its prompt.

    Options:
        wording: `style` asks in the question for the preference ("Write in this style: formal"); `instruction` is a
            system message with the instruction of each principle, of the ready one or `principles.yaml`.
        examples: few-shot examples: a JSONL file of preference pairs, or a registered source of them, from which
            `shots` chosen answers are drawn.
    """

    wording: Literal["style", "instruction"] = "style"
    examples: Annotated[str, BeforeValidator(_location)] = ""
    shots: Annotated[int, Field(ge=1)] = 2
    seed: int = 0
    _read: dict[tuple[str, ...], Examples] = field(default_factory=dict, init=False, repr=False, compare=False)
    name: ClassVar[str] = "prompt"

    def decided_by(self, context: EvalContext) -> list[Any]:
        probe = [dict(message) for message in prompted(as_messages("?"), _PROBE)]
        examples = self._examples(context)
        told = [self._instructions(context)] if self.wording == "instruction" else []
        return [[probe, examples.key if examples else None, *told]]

    def _instructions(self, context: EvalContext) -> dict[str, str]:
        return instructions_of(context.reward_model.principles, read_library())

    def _asked(self, context: EvalContext, prompt: Messages, preference: Preference) -> Messages:
        """A prompt without examples."""
        if self.wording == "style":
            return prompted(prompt, preference)
        told = self._instructions(context)
        names = [
            name if weight > 0 else f"{NOT}{name}"
            for name, weight in [*preference.weights.items(), *preference.texts.items()]
        ]
        return instructed(prompt, " ".join(told.get(name) or principle_of(name, {}).prompt for name in names))

    def prompts(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings
    ) -> list[Messages]:
        """What the policy reads for each item; raises RecipeError if examples leave no room for an answer."""
        examples, prompts = self._examples(context), list[Messages]()
        for item in items:
            preference = parse_preference(item.preference, context.reward_model.principles, accepts_text=True)
            asked = examples.before(item, preference) if examples else self._asked(context, item.prompt, preference)
            prompts.append(asked)
        policy = context.policy
        if examples and policy.context_length is not None:
            longest = max((len(encode_prompt(policy.tokenizer, prompt)) for prompt in prompts), default=0)
            if longest + settings.max_new_tokens > policy.context_length:
                raise RecipeError(
                    f"methods: with its examples a prompt has {longest} tokens, and {settings.max_new_tokens} may "
                    f"follow; '{policy.name}' reads at most {policy.context_length}.",
                    "Show fewer or shorter examples, or lower decoding.max_new_tokens.",
                )
        return prompts

    def _examples(self, context: EvalContext) -> Examples | None:
        principles = tuple(context.reward_model.principles)
        if self.examples and principles not in self._read:
            self._read[principles] = load_examples(self.examples, principles, self.shots, self.seed)
        return self._read.get(principles)


@dataclass(frozen=True)
class PadPrompt(Prompt):
    """The policy with the preference in its prompt, guided by the reward model, which reads the plain prompt.

    Options: as of `Prompt`.
    """

    name: ClassVar[str] = "pad+prompt"
    weighted: ClassVar[bool] = True
    rewarded: ClassVar[bool] = True


@dataclass(frozen=True)
class Contrast(Prompt):
    """The policy with the preference p in its prompt, contrasted with itself without.

    (1 + g) log pi(a | x, p) - g log pi(a | x), g = guidance weight * scale (context steering, arXiv 2405.01768).
    Options: as of `Prompt`, and `scale`.
    """

    scale: float = 1.0
    name: ClassVar[str] = "contrast"
    weighted: ClassVar[bool] = True

    def decided_by(self, context: EvalContext) -> list[Any]:
        return [self.scale, *super().decided_by(context)]

    def answer(
        self, context: EvalContext, items: Sequence[BenchmarkItem], settings: DecodingSettings, guidance_weight: float
    ) -> list[Generation]:
        def component(prompts: Sequence[Messages], weight: float) -> Expert:
            tokens = [encode_prompt(context.policy.tokenizer, prompt) for prompt in prompts]
            return Expert(context.policy, tokens, [weight] * len(items))

        push = guidance_weight * self.scale
        experts = [
            component(self.prompts(context, items, settings), 1 + push),
            component([item.prompt for item in items], -push),
        ]
        answers = generate_mixture(experts, settings, [item.id for item in items])
        read = prompt_lengths(experts)
        return [context.engine.read_answer(tokens, count) for tokens, count in zip(answers, read, strict=True)]


@dataclass(frozen=True)
class Examples:
    """Preference pairs whose chosen answers are shown, `shots` for each question."""

    pairs: tuple[PreferencePair, ...]
    shots: int
    seed: int

    @functools.cached_property
    def key(self) -> str:
        """Of everything that decides which examples are shown."""
        return fingerprint([fingerprint([_turns(pair) for pair in self.pairs]), self.shots, self.seed])

    def before(self, item: BenchmarkItem, preference: Preference) -> Messages:
        """An item's conversation with examples before it, but after its system message."""
        question = prompted(item.prompt, preference)
        start = next((number for number, message in enumerate(question) if message["role"] != "system"), 0)
        shown = (message for pair in self.of(item, preference) for message in _turns(pair))
        return (*question[:start], *shown, *question[start:])

    def of(self, item: BenchmarkItem, preference: Preference) -> list[PreferencePair]:
        """Those to show: of the same preference, then of those that differ in the fewest principles."""
        signs = _signs(preference.weights, preference.texts)

        def distance(others: Signs) -> int:
            return len(signs ^ others)

        rng, drawn = random.Random(f"{self.seed}/{item.id}"), list[PreferencePair]()
        for _, group in itertools.groupby(sorted(self._by_signs, key=distance), key=distance):
            nearest = [pair for others in group for pair in self._by_signs[others] if pair.prompt != item.prompt]
            drawn += rng.sample(nearest, min(self.shots - len(drawn), len(nearest)))
        return drawn

    @functools.cached_property
    def _by_signs(self) -> dict[Signs, list[PreferencePair]]:
        groups: dict[Signs, list[PreferencePair]] = {}
        for pair in self.pairs:
            groups.setdefault(_signs(pair.preference, pair.texts), []).append(pair)
        return groups


def _turns(pair: PreferencePair) -> Messages:
    """A pair's prompt and chosen answer, without its system message, which may stand at the beginning only."""
    prompt = tuple(message for message in pair.prompt if message["role"] != "system")
    preference = Preference(dict(pair.preference), dict(pair.texts))
    return (*prompted(prompt, preference), {"role": "assistant", "content": pair.chosen})


def _signs(weights: Mapping[str, float], texts: Mapping[str, float]) -> Signs:
    return frozenset((text, weight > 0) for text, weight in [*weights.items(), *texts.items()])


def load_examples(location: str, principles: Sequence[str], shots: int, seed: int) -> Examples:
    """The training pairs of a registered source or a JSONL file, each chosen answer once.

    `principles` are names that the file's preferences may use. Raises as `load_pairs`.
    """
    registered = location in PAIR_SOURCES.names() and not Path(location).exists()
    settings = DataSettings(source=location) if registered else DataSettings(train=location, contrast=False)
    pairs = load_pairs(settings, seed, principles).train
    distinct = {(fingerprint([pair.prompt, pair.preference, pair.texts]), pair.chosen): pair for pair in pairs}
    return Examples(tuple(distinct.values()), shots, seed)
