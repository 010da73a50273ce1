"""`PadEngine`: text in, steered text out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from pad_cli.decoding.compatibility import check_bridge, choose_path
from pad_cli.decoding.decode import Request, Sampler, Step, collect, decode_steps, policy_processors
from pad_cli.decoding.detokenize import IncrementalDetokenizer, TokenChoice, explain_step
from pad_cli.decoding.items import Item, clamp_to_minimum, safety_floor
from pad_cli.decoding.session import can_roll_back
from pad_cli.decoding.speculative import draft_length, speculate_steps
from pad_cli.decoding.strategies import Guidance
from pad_cli.errors import DataError, RecipeError, UsageError
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.models.prompts import check_prompts, decode_answer, encode_prompt
from pad_cli.models.reward_model import RewardModel
from pad_cli.models.scoring import BatchSizeBackoff
from pad_cli.preference import Preference, with_floor
from pad_cli.recipe import AnyRecipe, DecodingSettings, GenerateRecipe
from pad_cli.records import Generation, Messages, as_messages

NO_PREFERENCE = Preference({}, {})
Prompt = str | Messages | Sequence[int]


class PadEngine:
    """Steers a frozen policy with a reward model.

    Args:
        policy: the language model to steer.
        reward_model: what to steer with; None: the policy answers alone.
        always: the safety floor, principle to weight above 0: guided answers are decoded with at least these weights,
            whatever preference, profile or free text asks for. (Without preferences, or at guidance weight 0, the
            policy is on its own.)
        settings: how to decode where a method is given no other settings.

    Raises:
        VocabularyError: the two vocabularies cannot be aligned.
        PreferenceError: the reward model does not know a principle of `always`.
        UsageError: `always` without a reward model that has principles, or with a weight that is not above 0.

    Example:
        >>> engine = PadEngine.from_recipe(read_recipe("embedded-generate"))
        >>> preference = engine.preference(["humorous"])
        >>> engine.generate(["How do I start with chess?"], [preference])[0].text
    """

    def __init__(
        self,
        policy: LanguageModel,
        reward_model: RewardModel | None = None,
        *,
        always: Mapping[str, float] | None = None,
        settings: DecodingSettings | None = None,
    ) -> None:
        self.policy = policy
        self.reward_model = reward_model
        self.always = safety_floor(always or {}, reward_model)
        self.settings = settings or DecodingSettings()
        self._backoff = BatchSizeBackoff("answers")
        if reward_model is not None and self.path(DecodingSettings()) == "bridged":
            check_bridge(policy, reward_model)

    @classmethod
    def from_recipe(cls, recipe: AnyRecipe) -> PadEngine:
        """Load what a recipe of kind `generate` names, with its `decoding` (RecipeError if it is of another kind)."""
        if not isinstance(recipe, GenerateRecipe):
            raise RecipeError(f"This is a recipe of kind '{recipe.kind}'.", "An engine needs kind: generate")
        settings, policy = recipe.policy, load_language_model(recipe.policy)
        model = load_reward_model(recipe.reward_model, backbone=policy, dtype=settings.dtype, device=settings.device)
        return cls(policy, model, always=recipe.always, settings=recipe.decoding)

    def preference(self, specs: Sequence[str]) -> Preference:
        """Read a preference as typed after `--pref`, see `pad_cli.preference`, and add the safety floor to it."""
        return with_floor(self._model().preference(specs), self.always)

    def preference_weights(self, preferences: Sequence[Preference]) -> torch.Tensor:
        """(N, K) weights w_p of preferences as this engine decodes them: none below the safety floor."""
        model = self._model()
        return clamp_to_minimum(model.weights(preferences), self.always, model.principles)

    def path(self, settings: DecodingSettings) -> str | None:
        """The path of policy and reward model, see `choose_path`; None without a reward model."""
        return None if self.reward_model is None else choose_path(self.policy, self.reward_model, settings.path)

    def generate(
        self,
        prompts: Sequence[Prompt],
        preferences: Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weights: Sequence[float] | None = None,
        *,
        streams: Sequence[str] | None = None,
        policy_prompts: Sequence[Prompt] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[Generation]:
        """Answer prompts, each with its own preference and guidance weight.

        Prompts are decoded in batches; a batch that does not fit into memory is halved. An answer does not depend on
        its batch, except for rounding: if two tokens score almost equally (rare in float32), either may be chosen.

        Args:
            prompts: B prompts, each a text, a conversation or token ids. Policy and reward model read the same token
                ids, so these need a reward model with the policy's vocabulary and without the preference in its prompt.
            preferences: B preferences; None: the policy answers alone.
            settings: how to decode; None: the engine's own settings.
            guidance_weights: B guidance weights; None: `settings.guidance_weight` for all.
            streams: B names of random streams; name and seed decide what sampling draws. None: the prompt's number.
            policy_prompts: B prompts that the policy reads instead of `prompts`, which the reward model reads.
            on_batch: called after each batch with its number of answers.

        Raises:
            UsageError: the lists differ in length, or the reward model cannot read token ids.
            DataError: a prompt is empty, or longer than the models can read.
            ResourceError: memory is too small for one answer.
        """
        settings = settings or self.settings
        items = self.items(
            prompts, preferences, settings, guidance_weights, streams=streams, policy_prompts=policy_prompts
        )
        self._check_room(items)

        def decoded(batch: Sequence[Item]) -> list[list[int]]:
            return collect(len(batch), self.steps(batch, settings))

        answers: list[Generation] = []
        for batch, tokens in self._backoff.batches(items, self.batch_size(settings), decoded):
            answers += (self.read_answer(new, len(item.prompt)) for item, new in zip(batch, tokens, strict=True))
            if on_batch is not None:
                on_batch(len(batch))
        return answers

    def stream(
        self,
        prompt: Prompt,
        preference: Preference | None = None,
        settings: DecodingSettings | None = None,
    ) -> Iterator[str]:
        """Answer one prompt piece by piece; the pieces together are the text of `generate`."""
        text = IncrementalDetokenizer(self.policy.tokenizer, self.policy.end_tokens)
        for step in self._single(prompt, preference, settings):
            if piece := text.push(int(step.tokens[0])):
                yield piece
        if piece := text.finish():
            yield piece

    def explain(
        self,
        prompt: Prompt,
        preference: Preference | None = None,
        settings: DecodingSettings | None = None,
    ) -> list[TokenChoice]:
        """Answer one prompt, and say for each token what competed and how far guidance moved it."""
        return [explain_step(step, self.policy.tokenizer) for step in self._single(prompt, preference, settings)]

    def items(
        self,
        prompts: Sequence[Prompt],
        preferences: Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weights: Sequence[float] | None = None,
        *,
        streams: Sequence[str] | None = None,
        policy_prompts: Sequence[Prompt] | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> list[Item]:
        """Read B prompts, for `steps`; `template_options` as in `encode_prompt`, the rest as in `generate`."""
        settings, count = settings or self.settings, len(prompts)
        lists = {
            "preferences": preferences,
            "guidance weights": guidance_weights,
            "streams": streams,
            "policy prompts": policy_prompts,
        }
        for name, values in lists.items():
            if values is not None and len(values) != count:
                raise UsageError(f"{count} prompts, but {len(values)} {name}.", "Give one for each prompt.")
        if preferences is None:  # the policy is on its own, without the safety floor
            preferences = [NO_PREFERENCE] * count
        else:
            preferences = [with_floor(preference, self.always) for preference in preferences]
        weights = guidance_weights or [settings.guidance_weight] * count
        names = [f"{settings.seed}/{name}" for name in streams or range(count)]
        instead: Sequence[Prompt | None] = policy_prompts or [None] * count
        rows = zip(prompts, instead, preferences, weights, names, strict=True)
        return [
            Item(*self._read(prompt, policy_prompt, preference, settings, template_options), preference, weight, name)
            for prompt, policy_prompt, preference, weight, name in rows
        ]

    def _read(
        self,
        prompt: Any,
        policy_prompt: Any,
        preference: Preference,
        settings: DecodingSettings,
        template_options: Mapping[str, Any] | None,
    ) -> tuple[list[int], list[int]]:
        """The tokens of a prompt that policy and backbone read."""
        model, bridged = self.reward_model, self.path(settings) == "bridged"

        def encode(tokenizer: Any, conversation: Messages) -> list[int]:
            return encode_prompt(tokenizer, conversation, template_options=template_options)

        if prompt and isinstance(prompt[0], int):
            if bridged or (model is not None and model.reference == "policy"):
                raise UsageError("This reward model needs prompts as text.", "Give texts or conversations.")
            return list(prompt), list(prompt)
        policy_reads = as_messages(prompt if policy_prompt is None else policy_prompt)
        if model is None:
            tokens = encode(self.policy.tokenizer, policy_reads)
            return tokens, tokens
        reads = model.prompt(as_messages(prompt), preference)
        shared = settings.policy_reads_preference and policy_prompt is None
        if shared:
            policy_reads = reads
        tokens = encode(self.policy.tokenizer, policy_reads)
        if (shared and not bridged) or (policy_reads == reads and model.backbone.tokenizer is self.policy.tokenizer):
            return tokens, tokens
        return tokens, encode(model.backbone.tokenizer, reads)

    def check_prompts(self, prompts: Sequence[tuple[str, Messages]]) -> None:
        """Refuse what a chat template refuses; see `models.prompts.check_prompts`."""
        models = [self.policy] if self.reward_model is None else [self.policy, self.reward_model.backbone]
        for tokenizer in {id(model.tokenizer): model.tokenizer for model in models}.values():
            check_prompts(tokenizer, prompts)

    def check_room(self, place: str, prompt: Messages, preference: Preference = NO_PREFERENCE) -> None:
        """Refuse a prompt, read at this place, that leaves the models no room for an answer (DataError)."""
        self._check_room(self.items([prompt], [preference]), place)

    def steps(
        self,
        items: Sequence[Item],
        settings: DecodingSettings,
        stopped: Callable[[int], bool] = lambda row: False,
    ) -> Iterator[Step]:
        """Decode B items in one batch, at most `batch_size`, token by token.

        The items hold seed and guidance weight already. `stopped(row)` is asked after each token of an item; the
        answer ends if it is true.
        """
        request = replace(self._request(items, settings), stopped=stopped)
        length = draft_length(request, settings.draft_tokens)
        return decode_steps(request) if length is None else speculate_steps(request, length)

    def batch_size(self, settings: DecodingSettings) -> int:
        """How many answers are decoded together: one where rows cannot advance by different numbers of tokens."""
        model = self.reward_model
        if model is not None and self.path(settings) == "bridged" and not can_roll_back(model.backbone, rows=2):
            return 1
        return settings.batch_size

    def read_answer(self, tokens: list[int], prompt_tokens: int = 0) -> Generation:
        """New tokens of the policy's, as text and with the reason why they end."""
        ends = self.policy.end_tokens
        text = decode_answer(self.policy.tokenizer, tokens, ends)
        return Generation(text, tuple(tokens), "stop" if tokens and tokens[-1] in ends else "length", prompt_tokens)

    def _model(self) -> RewardModel:
        if self.reward_model is None:
            raise UsageError("There is no reward model to read a preference with.", "Name one: --reward-model")
        return self.reward_model

    def _check_room(self, items: Sequence[Item], place: str = "") -> None:
        """Make sure that the models can read every prompt and at least one token more."""
        backbone = self.policy if self.reward_model is None else self.reward_model.backbone
        for number, item in enumerate(items):
            for model, tokens in ((self.policy, item.prompt), (backbone, item.backbone_prompt)):
                longest = model.context_length
                if longest is not None and len(tokens) >= longest:
                    which = f"Prompt {number + 1} of {len(items)}" if len(items) > 1 else "The prompt"
                    raise DataError(
                        f"{which} has {len(tokens)} tokens; '{model.name}' reads at most {longest}, "
                        "of which one is for the answer.",
                        path=place,
                        field="prompt" if place else "",
                        hint="Shorten it, or choose a model that reads more.",
                    )

    def _single(
        self, prompt: Prompt, preference: Preference | None, settings: DecodingSettings | None
    ) -> Iterator[Step]:
        settings = settings or self.settings
        items = self.items([prompt], None if preference is None else [preference], settings)
        self._check_room(items)
        return self.steps(items, settings)

    def _request(self, items: Sequence[Item], settings: DecodingSettings) -> Request:
        return Request(
            policy=self.policy,
            prompts=[item.prompt for item in items],
            guidance=self._guidance(items, settings),
            candidates=settings.candidates,
            reward_ngram=settings.reward_ngram,
            plausibility=settings.plausibility,
            max_new_tokens=settings.max_new_tokens,
            sampler=Sampler(settings, [random.Random(item.stream) for item in items]),
            processors=policy_processors(settings),
        )

    def _guidance(self, items: Sequence[Item], settings: DecodingSettings) -> Guidance | None:
        model = self.reward_model
        if model is None or not any(item.preference and item.guidance_weight for item in items):
            return None
        if self.always and min(item.guidance_weight for item in items) < 0:
            raise UsageError("A negative guidance weight turns `always` into its opposite.", "Give one of 0 or above.")
        # a reward model that reads the preference in its prompt, or has an adapter, rewards something without one too
        steered = [item.guidance_weight if item.preference else 0.0 for item in items]
        apart = any(item.prompt != item.backbone_prompt for item in items)
        return Guidance(
            model,
            choose_path(self.policy, model, settings.path, apart=apart),
            [item.backbone_prompt for item in items],
            self.preference_weights([item.preference for item in items]),
            torch.tensor(steered, device=self.policy.device) * model.calibration,
        )
