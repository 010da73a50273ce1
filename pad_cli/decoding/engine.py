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
from pad_cli.decoding.items import Item, as_items, check_one_each, clamp_to_minimum, safety_floor
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
PreferenceLike = Preference | str


class PadEngine:
    """Steers a frozen policy with a reward model.

    Args:
        policy: the language model to steer.
        reward_model: what to steer with; None answers plainly.
        always: the safety floor, principle to weight above 0: guided answers are decoded with at least these weights,
            whatever preference, profile or free text asks for. (Without preferences, or at guidance weight 0, the
            policy is on its own.)

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
    ) -> None:
        self.policy = policy
        self.reward_model = reward_model
        self.always = safety_floor(always or {}, reward_model)
        self._backoff = BatchSizeBackoff("answers")
        if reward_model is not None and self.path(DecodingSettings()) == "bridged":
            check_bridge(policy, reward_model)

    @classmethod
    def from_recipe(cls, recipe: AnyRecipe) -> PadEngine:
        """Load the policy and the reward model of a recipe of kind `generate` (RecipeError if it is of another)."""
        if not isinstance(recipe, GenerateRecipe):
            raise RecipeError(f"This is a recipe of kind '{recipe.kind}'.", "An engine needs kind: generate")
        settings, policy = recipe.policy, load_language_model(recipe.policy)
        model = load_reward_model(recipe.reward_model, backbone=policy, dtype=settings.dtype, device=settings.device)
        return cls(policy, model, always=recipe.always)

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
        prompts: Sequence[str | Messages],
        preferences: Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weights: Sequence[float] | None = None,
        *,
        streams: Sequence[str] | None = None,
        policy_prompts: Sequence[str | Messages] | None = None,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[Generation]:
        """Answer prompts, each under its own preference and guidance weight.

        An answer does not depend on the others in its batch, which is halved where memory is too small, but for
        rounding: where two tokens score almost the same (rare in float32), either may come.

        Args:
            prompts: B prompts, plain or as conversations.
            preferences: one a prompt; None answers plainly.
            settings: how to decode.
            guidance_weights: one a prompt; by default `settings.guidance_weight` for all.
            streams: one name a prompt; with the seed it decides what sampling draws. By default its number.
            policy_prompts: what the policy reads in place of the prompts, one a prompt.
            on_batch: called with the number of answers just finished.

        Raises:
            UsageError: the lists differ in length.
            DataError: a prompt is empty, or longer than the models can read.
            ResourceError: memory is too small for one answer.
        """
        settings = settings or DecodingSettings()
        items = self.items(
            prompts, preferences, settings, guidance_weights, streams=streams, policy_prompts=policy_prompts
        )
        return [self.read_answer(tokens) for tokens in self._decode(items, settings, on_batch=on_batch)]

    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        preference: PreferenceLike | Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weight: float | Sequence[float] | None = None,
        *,
        streams: Sequence[str] | None = None,
        ignore_eos: bool = False,
    ) -> list[list[int]]:
        """The same for token ids: policy and reward model read the same prompts, and new tokens come back.

        Preference (text is read as by the method `preference`) and guidance weight are one for all or one a prompt;
        with `ignore_eos` answers go on after an end of sequence, to `max_new_tokens`.

        Raises:
            UsageError, DataError, ResourceError: as in `generate`; a prompt is empty, or the reward model needs text:
                its vocabulary is another one, or it reads the preference in its prompt.
        """
        settings = settings or DecodingSettings()
        items = self.id_items(prompts, preference, settings, guidance_weight, streams=streams)
        return self._decode(items, settings, ignore_eos=ignore_eos)

    def score_candidates(
        self,
        prompts: Sequence[Sequence[int]],
        preference: PreferenceLike | Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weight: float | Sequence[float] | None = None,
    ) -> Step:
        """What competes for the token after each prompt, in one batch; arguments and errors as in `generate_ids`.

        A prompt may end with the answer so far, but `decoding.reward_ngram` does not count it.
        """
        settings = settings or DecodingSettings()
        items = self.id_items(prompts, preference, settings, guidance_weight)
        return next(decode_steps(self._request(items, settings)))

    def stream(
        self,
        prompt: str | Messages,
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
        prompt: str | Messages,
        preference: Preference | None = None,
        settings: DecodingSettings | None = None,
    ) -> list[TokenChoice]:
        """Answer one prompt, and say for each token what competed and how far guidance moved it."""
        return [explain_step(step, self.policy.tokenizer) for step in self._single(prompt, preference, settings)]

    def items(
        self,
        prompts: Sequence[str | Messages],
        preferences: Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weights: Sequence[float] | None = None,
        *,
        streams: Sequence[str] | None = None,
        policy_prompts: Sequence[str | Messages] | None = None,
        template_options: Mapping[str, Any] | None = None,
    ) -> list[Item]:
        """Read B prompts, for `steps`; `template_options` as in `encode_prompt`, the rest as in `generate`."""
        settings = settings or DecodingSettings()
        check_one_each(len(prompts), policy_prompts=policy_prompts)
        preferences = self._with_floor(preferences, len(prompts))

        def encode(reader: LanguageModel, conversations: Sequence[Messages]) -> list[list[int]]:
            return [encode_prompt(reader.tokenizer, each, template_options=template_options) for each in conversations]

        model, policy_reads = self.reward_model, [as_messages(prompt) for prompt in policy_prompts or prompts]
        if model is None:
            tokens = encode(self.policy, policy_reads)
            return as_items(tokens, tokens, preferences, settings, guidance_weights, streams)
        reads = [model.prompt(as_messages(prompt), each) for prompt, each in zip(prompts, preferences, strict=True)]
        if settings.policy_reads_preference and policy_prompts is None:
            policy_reads = reads
        tokens = backbone_tokens = encode(self.policy, policy_reads)
        one_text = policy_reads is reads and self.path(settings) != "bridged"
        one_prompt = policy_reads == reads and model.backbone.tokenizer is self.policy.tokenizer
        if not (one_text or one_prompt):
            backbone_tokens = encode(model.backbone, reads)
        return as_items(tokens, backbone_tokens, preferences, settings, guidance_weights, streams)

    def id_items(
        self,
        prompts: Sequence[Sequence[int]],
        preference: PreferenceLike | Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weight: float | Sequence[float] | None = None,
        *,
        streams: Sequence[str] | None = None,
    ) -> list[Item]:
        """The same for token ids, see `generate_ids`."""
        settings = settings or DecodingSettings()
        if self.path(settings) == "bridged" or (self.reward_model and self.reward_model.reference == "policy"):
            raise UsageError("This reward model needs prompts as text.", "Use PadEngine.generate.")
        tokens = [list(prompt) for prompt in prompts]
        if not all(tokens):
            raise UsageError("A prompt has no tokens.", "Give at least one token for each prompt.")
        if isinstance(preference, str):
            preference = self.preference([preference])
        listed = [preference] * len(tokens) if isinstance(preference, Preference) else preference
        weights = [guidance_weight] * len(tokens) if isinstance(guidance_weight, int | float) else guidance_weight
        return as_items(tokens, tokens, self._with_floor(listed, len(tokens)), settings, weights, streams)

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
        stopped: Callable[[int], bool] | None = None,
        *,
        ignore_eos: bool = False,
    ) -> Iterator[Step]:
        """Decode B items in one batch, at most `batch_size`, token by token.

        Seed and guidance weight are in the items already. `stopped(number)` says after each token whether that item's
        answer is to end here.
        """
        request = replace(self._request(items, settings), stopped=stopped, ignore_eos=ignore_eos)
        length = draft_length(request, settings.draft_tokens)
        return decode_steps(request) if length is None else speculate_steps(request, length)

    def batch_size(self, settings: DecodingSettings) -> int:
        """How many answers are decoded together: one where rows cannot advance by different numbers of tokens."""
        model = self.reward_model
        if model is not None and self.path(settings) == "bridged" and not can_roll_back(model.backbone, rows=2):
            return 1
        return settings.batch_size

    def read_answer(self, tokens: list[int]) -> Generation:
        """New tokens of the policy's, as text and with the reason why they end."""
        ends = self.policy.end_tokens
        text = decode_answer(self.policy.tokenizer, tokens, ends)
        return Generation(text, tuple(tokens), "stop" if tokens and tokens[-1] in ends else "length")

    def _model(self) -> RewardModel:
        if self.reward_model is None:
            raise UsageError("There is no reward model to read a preference with.", "Name one: --reward-model")
        return self.reward_model

    def _with_floor(self, preferences: Sequence[Preference] | None, count: int) -> list[Preference]:
        """One for each of N prompts; without any the policy is on its own, and the safety floor does not count."""
        if preferences is None:
            return [NO_PREFERENCE] * count
        check_one_each(count, preferences=preferences)
        return [with_floor(preference, self.always) for preference in preferences]

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
        self, prompt: str | Messages, preference: Preference | None, settings: DecodingSettings | None
    ) -> Iterator[Step]:
        settings = settings or DecodingSettings()
        items = self.items([prompt], None if preference is None else [preference], settings)
        self._check_room(items)
        return self.steps(items, settings)

    def _decode(
        self,
        items: Sequence[Item],
        settings: DecodingSettings,
        *,
        ignore_eos: bool = False,
        on_batch: Callable[[int], None] | None = None,
    ) -> list[list[int]]:
        """The tokens of the answers, decoded in batches that fit into memory."""
        self._check_room(items)

        def decoded(batch: Sequence[Item]) -> list[list[int]]:
            return collect(len(batch), self.steps(batch, settings, ignore_eos=ignore_eos))

        answers: list[list[int]] = []
        for batch, tokens in self._backoff.batches(items, self.batch_size(settings), decoded):
            answers += tokens
            if on_batch is not None:
                on_batch(len(batch))
        return answers

    def _request(self, items: Sequence[Item], settings: DecodingSettings) -> Request:
        return Request(
            policy=self.policy,
            prompts=[item.prompt for item in items],
            guidance=self._guidance(items, settings),
            candidates=settings.candidates,
            reward_ngram=settings.reward_ngram,
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
