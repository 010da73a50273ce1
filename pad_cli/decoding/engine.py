"""`PadEngine`: text in, steered text out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pad_cli.decoding.explain import TokenChoice, explain_step
from pad_cli.decoding.loop import Guidance, Step, decode, decode_steps
from pad_cli.decoding.sampling import Chooser, policy_processors
from pad_cli.decoding.streaming import TextStream
from pad_cli.errors import UsageError, VocabularyError
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.language_model import LanguageModel, load_language_model, same_vocabulary
from pad_cli.models.prompts import decode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings, GenerateRecipe
from pad_cli.records import Generation, Messages, as_messages

NO_PREFERENCE = Preference({}, {})


@dataclass(frozen=True)
class _Items:
    """What to answer: five lists of the same length; prompts are tokens of the policy and of the backbone."""

    prompts: list[list[int]]
    backbone_prompts: list[list[int]]
    preferences: list[Preference]
    weights: list[float]
    streams: list[str]

    def part(self, start: int, stop: int) -> _Items:
        part = slice(start, stop)
        return _Items(
            self.prompts[part],
            self.backbone_prompts[part],
            self.preferences[part],
            self.weights[part],
            self.streams[part],
        )


class PadEngine:
    """Steers a frozen policy with a reward model.

    Args:
        policy: the language model to steer.
        reward_model: what to steer with; None answers plainly.

    Raises:
        VocabularyError: the two do not share a vocabulary.

    Example:
        >>> engine = PadEngine.from_recipe(read_recipe("embedded-generate"))
        >>> preference = engine.preference(["humorous"])
        >>> engine.generate(["How do I start with chess?"], [preference])[0].text
    """

    def __init__(self, policy: LanguageModel, reward_model: PersonalizedRewardModel | None = None) -> None:
        if reward_model is not None and not same_vocabulary(policy, reward_model.backbone):
            raise VocabularyError(
                f"The policy '{policy.name}' and the reward model's backbone '{reward_model.backbone.name}' "
                "have different vocabularies.",
                "Steer a policy that shares the backbone's tokenizer, or train a reward model on this policy.",
            )
        self.policy = policy
        self.reward_model = reward_model

    @classmethod
    def from_recipe(cls, recipe: GenerateRecipe) -> PadEngine:
        """Load the policy and the reward model a recipe names."""
        policy = load_language_model(recipe.policy)
        settings = recipe.policy
        reward_model = load_reward_model(
            recipe.reward_model, backbone=policy, dtype=settings.dtype, device=settings.device
        )
        return cls(policy, reward_model)

    def preference(self, specs: Sequence[str]) -> Preference:
        """Read a preference as typed after `--pref`; see `pad_cli.preference`."""
        if self.reward_model is None:
            raise UsageError("There is no reward model to read a preference with.", "Name one: --reward-model")
        return self.reward_model.preference(specs)

    def path(self, settings: DecodingSettings) -> str:
        """`fused` when the policy is the reward model's backbone, else `separate`.

        Raises:
            UsageError: the recipe forces a path that these models cannot take.
        """
        same = self.reward_model is not None and self.reward_model.backbone.fingerprint == self.policy.fingerprint
        if settings.path == "fused" and not same:
            raise UsageError("decoding.path: fused needs a policy that is the reward model's backbone.", "Use: auto")
        return "separate" if settings.path == "separate" or not same else "fused"

    def generate(
        self,
        prompts: Sequence[str | Messages],
        preferences: Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weights: Sequence[float] | None = None,
        *,
        streams: Sequence[str] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[Generation]:
        """Answer prompts, each under its own preference and guidance weight.

        Args:
            prompts: B prompts, plain or as conversations.
            preferences: one a prompt; None answers plainly.
            settings: how to decode.
            guidance_weights: one a prompt; by default `settings.guidance_weight` for all.
            streams: one name a prompt; with the seed it decides what sampling draws. By default its number.
            on_batch: called with the number of answers just finished.

        Returns:
            B answers, in order. An answer does not depend on the others in its batch (exactly so in float32).

        Raises:
            UsageError: the lists differ in length.
            DataError: a prompt is empty.
        """
        settings = settings or DecodingSettings()
        items = self._items(
            [as_messages(prompt) for prompt in prompts], preferences, settings, guidance_weights, streams
        )
        answers: list[Generation] = []
        for start in range(0, len(prompts), settings.batch_size):
            batch = items.part(start, start + settings.batch_size)
            answers += [self._answer(tokens) for tokens in decode(**self._arguments(batch, settings))]
            if on_batch is not None:
                on_batch(len(batch.streams))
        return answers

    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        preferences: Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weights: Sequence[float] | None = None,
        *,
        streams: Sequence[str] | None = None,
        ignore_end: bool = False,
    ) -> list[list[int]]:
        """The same for token ids: policy and reward model read the same prompts, and new tokens come back.

        Args:
            prompts: B prompts in the shared vocabulary.
            preferences: one a prompt; None answers plainly.
            settings: how to decode.
            guidance_weights: one a prompt; by default `settings.guidance_weight` for all.
            streams: one name a prompt, for sampling.
            ignore_end: go on after an end of sequence, to `settings.max_new_tokens`.

        Raises:
            UsageError: the lists differ in length, or a prompt is empty.
        """
        settings = settings or DecodingSettings()
        tokens = [list(prompt) for prompt in prompts]
        if not all(tokens):
            raise UsageError("A prompt has no tokens.", "Give at least one token for each prompt.")
        items = self._tokens(tokens, tokens, preferences, settings, guidance_weights, streams)
        answers: list[list[int]] = []
        for start in range(0, len(tokens), settings.batch_size):
            batch = items.part(start, start + settings.batch_size)
            answers += decode(**self._arguments(batch, settings), ignore_end=ignore_end)
        return answers

    def stream(
        self,
        prompt: str | Messages,
        preference: Preference | None = None,
        settings: DecodingSettings | None = None,
    ) -> Iterator[str]:
        """Answer one prompt piece by piece; the pieces together are the text of `generate`."""
        text = TextStream(self.policy.tokenizer)
        for step in self._steps(prompt, preference, settings):
            if piece := text.push(int(step.tokens[0])):
                yield piece
        if piece := text.finish():
            yield piece

    def explain(
        self,
        prompt: str | Messages,
        preference: Preference | None = None,
        settings: DecodingSettings | None = None,
    ) -> list[TokenChoice]:
        """Answer one prompt, and say for each token what competed and how far guidance moved it."""
        return [explain_step(step, self.policy.tokenizer) for step in self._steps(prompt, preference, settings)]

    def _steps(
        self, prompt: str | Messages, preference: Preference | None, settings: DecodingSettings | None
    ) -> Iterator[Step]:
        settings = settings or DecodingSettings()
        wanted = None if preference is None else [preference]
        return decode_steps(**self._arguments(self._items([as_messages(prompt)], wanted, settings), settings))

    def _items(
        self,
        conversations: Sequence[Messages],
        preferences: Sequence[Preference] | None,
        settings: DecodingSettings,
        guidance_weights: Sequence[float] | None = None,
        streams: Sequence[str] | None = None,
    ) -> _Items:
        prompts = [encode_prompt(self.policy.tokenizer, conversation) for conversation in conversations]
        backbone = self.policy if self.reward_model is None else self.reward_model.backbone
        read = prompts
        if backbone.tokenizer is not self.policy.tokenizer:
            read = [encode_prompt(backbone.tokenizer, conversation) for conversation in conversations]
        return self._tokens(prompts, read, preferences, settings, guidance_weights, streams)

    def _tokens(
        self,
        prompts: list[list[int]],
        backbone_prompts: list[list[int]],
        preferences: Sequence[Preference] | None,
        settings: DecodingSettings,
        guidance_weights: Sequence[float] | None,
        streams: Sequence[str] | None,
    ) -> _Items:
        for name, given in (("preferences", preferences), ("guidance_weights", guidance_weights), ("streams", streams)):
            if given is not None and len(given) != len(prompts):
                raise UsageError(f"{len(prompts)} prompts, but {len(given)} {name}.", "Give one for each prompt.")
        return _Items(
            prompts,
            backbone_prompts,
            preferences=list(preferences or [NO_PREFERENCE] * len(prompts)),
            weights=list(guidance_weights or [settings.guidance_weight] * len(prompts)),
            streams=[f"{settings.seed}/{name}" for name in streams or range(len(prompts))],
        )

    def _arguments(self, items: _Items, settings: DecodingSettings) -> dict[str, Any]:
        """What `decode` and `decode_steps` take."""
        return {
            "policy": self.policy,
            "guidance": self._guidance(items, settings),
            "prompts": items.prompts,
            "candidates": settings.candidates,
            "reward_ngram": settings.reward_ngram,
            "max_new_tokens": settings.max_new_tokens,
            "chooser": Chooser(settings, [random.Random(name) for name in items.streams]),
            "processors": policy_processors(settings),
        }

    def _guidance(self, items: _Items, settings: DecodingSettings) -> Guidance | None:
        model = self.reward_model
        if model is None or not any(items.preferences) or not any(items.weights):
            return None
        prompts = items.backbone_prompts if self.path(settings) == "separate" else None
        guidance_weight = torch.tensor(items.weights, device=self.policy.device) * model.calibration
        return Guidance(model, prompts, model.weights(items.preferences), guidance_weight)

    def _answer(self, tokens: list[int]) -> Generation:
        stopped = bool(tokens) and tokens[-1] in self.policy.end_tokens
        text = decode_answer(self.policy.tokenizer, tokens)
        return Generation(text, tuple(tokens), "stop" if stopped else "length")
