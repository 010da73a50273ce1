"""`PadEngine`: text in, steered text out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from pad_cli.decoding.explain import TokenChoice, explain_step
from pad_cli.decoding.floor import hold_up, safety_floor
from pad_cli.decoding.items import Item, as_items, check_one_each, check_room, prompt_tokens
from pad_cli.decoding.loop import Request, Step, collect, decode_steps
from pad_cli.decoding.paths import check_bridge, choose_path, speculation
from pad_cli.decoding.ragged_stream import can_be_ragged
from pad_cli.decoding.readers import Guidance
from pad_cli.decoding.sampling import Chooser, policy_processors
from pad_cli.decoding.speculative import speculate_steps
from pad_cli.decoding.streaming import TextStream
from pad_cli.errors import RecipeError, UsageError
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.models.prompts import check_prompts, decode_answer
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
        always: the safety floor, principle to weight above 0: no answer that is guided at all is decoded with less of
            it, whatever preference, profile or free text asks for. An empty preference becomes this one. (Without
            preferences, or at guidance weight 0, the policy is on its own.)

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
        self._halving = BatchSizeBackoff("answers")
        if reward_model is not None and self.path(DecodingSettings()) == "bridged":
            check_bridge(policy, reward_model)

    @classmethod
    def from_recipe(cls, recipe: AnyRecipe) -> PadEngine:
        """Load the policy and the reward model that a recipe of kind `generate` names.

        Raises:
            RecipeError: it is of another kind.
            ModelLoadError, CheckpointError: they cannot be loaded.
        """
        if not isinstance(recipe, GenerateRecipe):
            raise RecipeError(f"This is a recipe of kind '{recipe.kind}'.", "An engine needs kind: generate")
        policy = load_language_model(recipe.policy)
        settings = recipe.policy
        reward_model = load_reward_model(
            recipe.reward_model, backbone=policy, dtype=settings.dtype, device=settings.device
        )
        return cls(policy, reward_model, always=recipe.always)

    def preference(self, specs: Sequence[str]) -> Preference:
        """Read a preference as typed after `--pref`, see `pad_cli.preference`, and add the safety floor to it."""
        if self.reward_model is None:
            raise UsageError("There is no reward model to read a preference with.", "Name one: --reward-model")
        return with_floor(self.reward_model.preference(specs), self.always)

    def preference_weights(self, preferences: Sequence[Preference]) -> torch.Tensor:
        """(N, K) weights w_p of preferences as this engine decodes them: none below the safety floor."""
        if self.reward_model is None:
            raise UsageError("There is no reward model to weigh a preference with.", "Name one: --reward-model")
        return hold_up(self.reward_model.weights(preferences), self.always, self.reward_model.principles)

    def path(self, settings: DecodingSettings) -> str | None:
        """How policy and reward model read along, see `decoding/paths.py`; None without a reward model.

        Raises:
            UsageError: the settings force a path that these models cannot take.
        """
        if self.reward_model is None:
            return None
        return choose_path(self.policy, self.reward_model, settings.path)

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

        Args:
            prompts: B prompts, plain or as conversations.
            preferences: one a prompt; None answers plainly.
            settings: how to decode.
            guidance_weights: one a prompt; by default `settings.guidance_weight` for all.
            streams: one name a prompt; with the seed it decides what sampling draws. By default its number.
            policy_prompts: what the policy reads in place of the prompts, one a prompt; the reward model reads those.
            on_batch: called with the number of answers just finished.

        Returns:
            B answers, in order. An answer does not depend on the others in its batch, which is halved where memory is
            too small, but for rounding: where two tokens score almost the same (rare in float32), either may come.

        Raises:
            UsageError: the lists differ in length.
            DataError: a prompt is empty, or longer than the models can read.
            ResourceError: memory is too small for one answer.
        """
        settings = settings or DecodingSettings()
        items = self.items(
            prompts, preferences, settings, guidance_weights, streams=streams, policy_prompts=policy_prompts
        )
        check_room(self.policy, self.reward_model, items, prompts)
        answers: list[Generation] = []

        def decoded(batch: Sequence[Item]) -> list[list[int]]:
            return collect(len(batch), self.steps(batch, settings))

        for batch, tokens in self._halving.batches(items, self.batch_size(settings), decoded):
            answers += map(self.read_answer, tokens)
            if on_batch is not None:
                on_batch(len(batch))
        return answers

    def generate_ids(
        self,
        prompts: Sequence[Sequence[int]],
        preference: PreferenceLike | Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weight: float | Sequence[float] | None = None,
        *,
        candidates: int | None = None,
        max_new_tokens: int | None = None,
        streams: Sequence[str] | None = None,
        ignore_eos: bool = False,
    ) -> list[list[int]]:
        """The same for token ids: policy and reward model read the same prompts, and new tokens come back.

        Args:
            prompts: B prompts in the shared vocabulary.
            preference: one for all (text is read as by the method `preference`) or one a prompt; None answers plainly.
            settings: how to decode; the following arguments go before it.
            guidance_weight: one for all or one a prompt.
            candidates: C.
            max_new_tokens: longest answer.
            streams: one name a prompt, for sampling.
            ignore_eos: go on after an end of sequence, to `max_new_tokens`.

        Raises:
            UsageError: the lists differ in length, a prompt is empty, or the reward model needs text: its vocabulary is
                another one, or it reads the preference in its prompt.
            DataError: a prompt is longer than the models can read.
        """
        settings = _changed(settings, candidates, max_new_tokens)
        items = self.id_items(prompts, preference, settings, guidance_weight, streams=streams)
        check_room(self.policy, self.reward_model, items)

        def decoded(batch: Sequence[Item]) -> list[list[int]]:
            request = replace(self._request(batch, settings), ignore_eos=ignore_eos)
            return collect(len(batch), self._steps(request, settings))

        batches = self._halving.batches(items, self.batch_size(settings), decoded)
        return [tokens for _, answers in batches for tokens in answers]

    def score_candidates(
        self,
        prompts: Sequence[Sequence[int]],
        preference: PreferenceLike | Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weight: float | Sequence[float] | None = None,
        *,
        candidates: int | None = None,
    ) -> Step:
        """Scores only: what competes for the token after each prompt, in one batch; see `Step` for shapes.

        Args:
            prompts: B prompts in the shared vocabulary, with the answer so far if there is one. (The first token of an
                answer repeats nothing: `decoding.reward_ngram` has no effect here.)
            preference: as in `generate_ids`, and so are the rest.
            settings: how to decode.
            guidance_weight: one for all or one a prompt.
            candidates: C.

        Raises:
            UsageError: as in `generate_ids`.
        """
        settings = _changed(settings, candidates, None)
        items = self.id_items(prompts, preference, settings, guidance_weight)
        return next(decode_steps(self._request(items, settings)))

    def stream(
        self,
        prompt: str | Messages,
        preference: Preference | None = None,
        settings: DecodingSettings | None = None,
    ) -> Iterator[str]:
        """Answer one prompt piece by piece; the pieces together are the text of `generate`."""
        text = TextStream(self.policy.tokenizer, self.policy.end_tokens)
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
        wanted = self._per_prompt(len(prompts), preferences, guidance_weights, streams, policy_prompts)
        conversations = [as_messages(prompt) for prompt in prompts]
        apart = None if policy_prompts is None else [as_messages(prompt) for prompt in policy_prompts]
        policy_reads, backbone_reads = prompt_tokens(
            self.policy,
            self.reward_model,
            conversations,
            wanted,
            self.path(settings),
            settings,
            apart,
            template_options=template_options,
        )
        return as_items(policy_reads, backbone_reads, wanted, settings, guidance_weights, streams)

    def check_prompts(self, prompts: Sequence[tuple[str, Messages]]) -> None:
        """Refuse what a chat template refuses before anything is answered; see `models.prompts.check_prompts`."""
        models = [self.policy] if self.reward_model is None else [self.policy, self.reward_model.backbone]
        for tokenizer in {id(model.tokenizer): model.tokenizer for model in models}.values():
            check_prompts(tokenizer, prompts)

    def check_room(self, place: str, prompt: Messages, preference: Preference = NO_PREFERENCE) -> None:
        """Refuse a prompt, read at this place, that leaves the models no room for an answer (DataError)."""
        check_room(self.policy, self.reward_model, self.items([prompt], [preference]), place=place)

    def id_items(
        self,
        prompts: Sequence[Sequence[int]],
        preference: PreferenceLike | Sequence[Preference] | None = None,
        settings: DecodingSettings | None = None,
        guidance_weight: float | Sequence[float] | None = None,
        *,
        streams: Sequence[str] | None = None,
    ) -> list[Item]:
        """The same for token ids; arguments and errors as in `generate_ids`."""
        settings = settings or DecodingSettings()
        if self.path(settings) == "bridged" or (self.reward_model and self.reward_model.reference == "policy"):
            raise UsageError("This reward model needs prompts as text.", "Use PadEngine.generate.")
        tokens = [list(prompt) for prompt in prompts]
        if not all(tokens):
            raise UsageError("A prompt has no tokens.", "Give at least one token for each prompt.")
        if isinstance(preference, str):
            preference = self.preference([preference])
        wanted = [preference] * len(tokens) if isinstance(preference, Preference) else preference
        weights = [guidance_weight] * len(tokens) if isinstance(guidance_weight, int | float) else guidance_weight
        preferences = self._per_prompt(len(tokens), wanted, weights, streams)
        return as_items(tokens, tokens, preferences, settings, weights, streams)

    def steps(
        self, items: Sequence[Item], settings: DecodingSettings, stopped: Callable[[int], bool] | None = None
    ) -> Iterator[Step]:
        """Decode B items in one batch, token by token; at most `batch_size` of them.

        Args:
            items: what `items` or `id_items` read.
            settings: how to decode; its seed and guidance weight are in the items already.
            stopped: asked after each token, by the item's number, whether its answer is to end here.
        """
        return self._steps(replace(self._request(items, settings), stopped=stopped), settings)

    def batch_size(self, settings: DecodingSettings) -> int:
        """How many answers are decoded together: one where rows cannot advance by different numbers of tokens."""
        model = self.reward_model
        if model is not None and self.path(settings) == "bridged" and not can_be_ragged(model.backbone, rows=2):
            return 1
        return settings.batch_size

    def read_answer(self, tokens: list[int]) -> Generation:
        """New tokens of the policy's, as text and with the reason why they end."""
        ends = self.policy.end_tokens
        stopped = bool(tokens) and tokens[-1] in ends
        text = decode_answer(self.policy.tokenizer, tokens, ends)
        return Generation(text, tuple(tokens), "stop" if stopped else "length")

    def _single(
        self, prompt: str | Messages, preference: Preference | None, settings: DecodingSettings | None
    ) -> Iterator[Step]:
        settings = settings or DecodingSettings()
        items = self.items([prompt], None if preference is None else [preference], settings)
        check_room(self.policy, self.reward_model, items, [prompt])
        return self.steps(items, settings)

    def _steps(self, request: Request, settings: DecodingSettings) -> Iterator[Step]:
        length = speculation(request, settings.draft_tokens)
        return decode_steps(request) if length is None else speculate_steps(request, length)

    def _per_prompt(
        self,
        count: int,
        preferences: Sequence[Preference] | None,
        guidance_weights: Sequence[float] | None,
        streams: Sequence[str] | None,
        policy_prompts: Sequence[str | Messages] | None = None,
    ) -> list[Preference]:
        """The preference of each prompt, once every list has the right length."""
        check_one_each(
            count,
            preferences=preferences,
            guidance_weights=guidance_weights,
            streams=streams,
            policy_prompts=policy_prompts,
        )
        if preferences is None:
            return [NO_PREFERENCE] * count
        return [with_floor(preference, self.always) for preference in preferences]

    def _request(self, items: Sequence[Item], settings: DecodingSettings) -> Request:
        return Request(
            policy=self.policy,
            prompts=[item.prompt for item in items],
            guidance=self._guidance(items, settings),
            candidates=settings.candidates,
            reward_ngram=settings.reward_ngram,
            max_new_tokens=settings.max_new_tokens,
            chooser=Chooser(settings, [random.Random(item.stream) for item in items]),
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
        guidance_weight = torch.tensor(steered, device=self.policy.device) * model.calibration
        apart = any(item.prompt != item.backbone_prompt for item in items)
        return Guidance(
            model,
            choose_path(self.policy, model, settings.path, apart=apart),
            [item.backbone_prompt for item in items],
            self.preference_weights([item.preference for item in items]),
            guidance_weight,
        )


def _changed(settings: DecodingSettings | None, candidates: int | None, max_new_tokens: int | None) -> DecodingSettings:
    given = {"candidates": candidates, "max_new_tokens": max_new_tokens}
    before = (settings or DecodingSettings()).model_dump()
    return DecodingSettings.model_validate({**before, **{k: v for k, v in given.items() if v is not None}})
