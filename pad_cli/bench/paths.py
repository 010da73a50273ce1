"""The ways to decode that are compared, each as one call on the same batch of prompts.

generate     transformers' own greedy search, the policy alone
plain        our loop, the policy alone
fused        our loop, guided; the policy is the reward model's backbone, so one forward a token
paired       our loop, guided; the same, in one forward of twice the rows
separate     our loop, guided; two models (or one model twice), two caches
bridged      our loop, guided; two models of different vocabularies
speculative  as separate, where the reward model's backbone drafts for the policy
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from transformers import LogitsProcessorList

from pad_cli.bench.measure import top_two
from pad_cli.decoding import strategies
from pad_cli.decoding.compatibility import choose_path
from pad_cli.decoding.decode import Request, Sampler, Step, collect, decode_steps
from pad_cli.decoding.engine import NO_PREFERENCE, PadEngine
from pad_cli.decoding.session import can_roll_back, left_padded
from pad_cli.decoding.speculative import BlockLength, can_speculate, speculate_steps
from pad_cli.decoding.strategies import Guidance
from pad_cli.errors import UsageError
from pad_cli.models.language_model import same_vocabulary
from pad_cli.models.prompts import encode_prompt
from pad_cli.preference import Preference
from pad_cli.profiles import profile_weights
from pad_cli.recipe import DecodingSettings
from pad_cli.records import BenchmarkItem

Guided = strategies.Path | Literal["speculative"]
Name = Guided | Literal["generate", "plain"]


@dataclass(frozen=True)
class PromptBatch:
    """One batch of B prompts, each under its own preference."""

    prompts: list[list[int]]  # in the policy's tokens
    backbone_prompts: list[list[int]]  # in the backbone's, with the preference where the reward model reads it there
    preference_weights: torch.Tensor  # (B, K) w_p

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def longest(self) -> int:
        """Tokens of the longest prompt, as the policy reads it."""
        return max(map(len, self.prompts))


def random_prompts(engine: PadEngine, count: int, length: int) -> PromptBatch:
    """Random tokens, the same every time; each row is steered to one of the reward model's principles in turn."""
    policy, model = engine.policy, engine.reward_model
    assert model is not None
    if not same_vocabulary(policy, model.backbone):
        raise UsageError(
            f"Random tokens of '{policy.name}' are no text that '{model.backbone.name}' could read: their "
            "vocabularies differ.",
            "Name a `benchmark` in the recipe: its prompts are text.",
        )
    special = set(policy.tokenizer.all_special_ids)
    shared = min(len(policy.tokenizer), policy.vocabulary_size, model.backbone.vocabulary_size)
    ordinary = [token for token in range(shared) if token not in special]
    prompts = [random.Random(f"0/{row}").choices(ordinary, k=length) for row in range(count)]
    names = model.principles
    preferences = [Preference({names[row % len(names)]: 1.0}, {}) if names else NO_PREFERENCE for row in range(count)]
    return PromptBatch(prompts, prompts, model.weights(preferences))


def benchmark_prompts(engine: PadEngine, items: Sequence[BenchmarkItem], count: int) -> PromptBatch:
    """N of the items, spread evenly over them."""
    if count > len(items):
        raise UsageError(f"The benchmark has {len(items)} items, too few for a batch of {count}.", "Lower batch_sizes.")
    policy, model = engine.policy, engine.reward_model
    assert model is not None
    items = [items[row * len(items) // count] for row in range(count)]
    for profile in sorted({profile for item in items for profile in item.profiles}):
        profile_weights(profile, model)  # refuses one of another reward model
    preferences = [engine.preference(item.preference) for item in items]
    engine.check_prompts([(item.place or item.id, item.prompt) for item in items])
    reads = [model.prompt(item.prompt, preference) for item, preference in zip(items, preferences, strict=True)]
    return PromptBatch(
        [encode_prompt(policy.tokenizer, item.prompt) for item in items],
        [encode_prompt(model.backbone.tokenizer, prompt) for prompt in reads],
        model.weights(preferences),
    )


class Watch:
    """Notes the two best among the top C scores at every token. Drafts do not count."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._top: dict[int, list[list[float]]] = {}

    @property
    def top(self) -> torch.Tensor:
        """(B, T, 2), see `top_two`."""
        return torch.tensor([self._top[row] for row in sorted(self._top)])

    def note(self, rows: Sequence[int], scores: torch.Tensor) -> None:
        for row, top in zip(rows, top_two(scores, self._count).tolist(), strict=True):
            self._top.setdefault(row, []).append(top)


class Paths:
    """One batch of prompts, and every way to answer it in `new_tokens` tokens.

    Attributes:
        guided: the guided paths to measure; `decoding.path: auto` takes every one that these models can.
    """

    def __init__(self, engine: PadEngine, settings: DecodingSettings, batch: PromptBatch, new_tokens: int) -> None:
        assert engine.reward_model is not None
        self.policy, model = engine.policy, engine.reward_model
        self.backbone, self.batch, self.new_tokens = model.backbone, batch, new_tokens
        self._settings = settings
        weight = settings.guidance_weight * model.calibration
        weights = torch.full((len(batch),), weight, device=self.policy.device)
        self._guidance = Guidance(model, "separate", batch.backbone_prompts, batch.preference_weights, weights)
        self.guided = self._choose_guided()

    @property
    def names(self) -> tuple[Name, ...]:
        return ("generate", "plain", *self.guided)

    def answer(self, path: Name, watch: Watch | None = None) -> list[list[int]]:
        """Answer all prompts: B lists of `new_tokens` token ids."""
        if path == "generate":
            return self._generate(watch)
        if path == "speculative":
            steps = speculate_steps(self._request("separate"), BlockLength())
        else:
            steps = decode_steps(self._request(None if path == "plain" else path))
        return collect(len(self.batch), steps if watch is None else _watched(steps, watch))

    def _choose_guided(self) -> tuple[Guided, ...]:
        rows = len(self.batch)
        chosen = choose_path(self.policy, self._guidance.model, self._settings.path)
        if chosen == "bridged" and not can_roll_back(self.backbone, rows):
            raise UsageError(
                f"'{self.backbone.name}' has a sliding window: across vocabularies it reads one answer at a time.",
                "Use: batch_sizes: [1]",
            )
        if self._settings.path != "auto" or chosen == "bridged":
            return (chosen,)
        guided: list[Guided] = [chosen] if chosen == "separate" else [chosen, "separate"]
        larger = self.policy.model.num_parameters() > self.backbone.model.num_parameters()
        if larger and can_speculate(self.policy, self._guidance, rows):
            guided.append("speculative")
        return tuple(guided)

    def _request(self, path: strategies.Path | None) -> Request:
        return Request(
            policy=self.policy,
            prompts=self.batch.prompts,
            guidance=None if path is None else replace(self._guidance, path=path),
            candidates=self._settings.candidates,
            reward_ngram=self._settings.reward_ngram,
            max_new_tokens=self.new_tokens,
            sampler=Sampler(DecodingSettings(), []),
            ignore_eos=True,
        )

    @torch.inference_mode()
    def _generate(self, watch: Watch | None) -> list[list[int]]:
        def noting(_: Any, scores: torch.Tensor) -> torch.Tensor:
            if watch is not None:
                watch.note(range(len(scores)), scores)
            return scores

        tokens, mask = left_padded(self.policy, self.batch.prompts)
        whole = self.policy.model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=self.new_tokens,
            logits_processor=LogitsProcessorList([noting]),
        )
        answers: list[list[int]] = whole[:, tokens.shape[1] :].tolist()
        return answers


def _watched(steps: Iterator[Step], watch: Watch) -> Iterator[Step]:
    for step in steps:
        watch.note(step.rows, step.scores)
        yield step
