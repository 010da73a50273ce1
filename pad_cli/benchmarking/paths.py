"""The ways to decode that are compared, each as one call on the same prompts.

generate   transformers' own greedy search, the policy alone
plain      our loop, the policy alone
fused      our loop, guided; the policy is the reward model's backbone, so one forward a token
separate   our loop, guided; two models (or one model twice), two caches
uncached   the authors' algorithm, see `decoding/uncached.py`; one token at a time, because it is very slow
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import torch
from transformers import LogitsProcessorList

from pad_cli.benchmarking.agreement import best_of
from pad_cli.benchmarking.conditions import Clock
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.loop import Guidance, decode
from pad_cli.decoding.sampling import Chooser
from pad_cli.decoding.uncached import score_uncached
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import DecodingSettings

_SEED = 0  # of the prompts


class Watch(Chooser):
    """Takes the best candidate, and notes when the first scores came.

    Args:
        clock: seconds.
        count: C; when given, the best scores of each step are kept too: `best`, each (B,), see `best_of`.
    """

    def __init__(self, clock: Clock, count: int | None = None) -> None:
        super().__init__(DecodingSettings(), [])
        self.first: float | None = None
        self.best: list[torch.Tensor] = []
        self._clock, self._count = clock, count

    def choose(self, scores: torch.Tensor, rows: Any) -> torch.Tensor:
        self.see(None, scores)
        return super().choose(scores, rows)

    def see(self, _: Any, scores: torch.Tensor) -> torch.Tensor:
        """A logits processor that changes nothing."""
        if self.first is None:
            self.first = self._clock()
        if self._count is not None:
            self.best.append(best_of(scores, self._count))
        return scores


class Paths:
    """One batch of random prompts, and every way to answer it.

    Each answer is steered to one principle: the first row to the reward model's first, and so on in turn.

    Args:
        engine: policy and reward model; the policy's generation configuration has no end of sequence.
        settings: guidance weight, candidates, n-grams.
        batch_size: B.
        prompt_tokens: length of every prompt.
        new_tokens: length of every answer.
    """

    def __init__(
        self, engine: PadEngine, settings: DecodingSettings, batch_size: int, prompt_tokens: int, new_tokens: int
    ) -> None:
        assert engine.reward_model is not None
        self.policy, model = engine.policy, engine.reward_model
        self.backbone = model.backbone
        self.new_tokens = new_tokens
        self.prompts = _random_prompts(self.policy, batch_size, prompt_tokens)
        self._settings = settings
        principles = torch.eye(len(model.principles), device=self.backbone.device)
        weight = settings.guidance_weight * model.calibration
        self._guidance = Guidance(
            model=model,
            prompts=None,
            preference_weights=principles[torch.arange(batch_size) % len(principles)],
            guidance_weight=torch.full((batch_size,), weight, device=self.policy.device),
        )

    def answer(self, path: str, watch: Watch) -> list[list[int]]:
        """Answer all prompts on a path other than `uncached`: B lists of `new_tokens` token ids."""
        if path == "generate":
            return self._generate(watch)
        guidance = None
        if path != "plain":
            guidance = replace(self._guidance, prompts=self.prompts if path == "separate" else None)
        return decode(
            self.policy,
            guidance,
            self.prompts,
            candidates=self._settings.candidates,
            reward_ngram=self._settings.reward_ngram,
            max_new_tokens=self.new_tokens,
            chooser=watch,
            ignore_end=True,
        )

    def uncached_step(self, written: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The next token of the first prompt's answer, on the path `uncached`: candidates and scores, both (1, C)."""
        return score_uncached(
            self.policy,
            self._guidance,
            self.prompts[0],
            written,
            count=self._settings.candidates,
            reward_ngram=self._settings.reward_ngram,
        )

    @torch.inference_mode()
    def _generate(self, watch: Watch) -> list[list[int]]:
        tokens = torch.tensor(self.prompts, device=self.policy.device)
        whole = self.policy.model.generate(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=self.new_tokens,
            logits_processor=LogitsProcessorList([watch.see]),
        )
        answers: list[list[int]] = whole[:, tokens.shape[1] :].tolist()
        return answers


def path_names(engine: PadEngine, settings: DecodingSettings) -> tuple[str, ...]:
    """The guided paths to measure; `decoding.path: auto` takes every one that these models can.

    Raises:
        UsageError: the settings force a path that they cannot.
    """
    chosen = engine.path(settings)
    return (chosen, "separate") if chosen == "fused" and settings.path == "auto" else (chosen,)


def _random_prompts(policy: LanguageModel, count: int, length: int) -> list[list[int]]:
    special = set(policy.tokenizer.all_special_ids)
    ordinary = [t for t in range(min(len(policy.tokenizer), policy.vocabulary_size)) if t not in special]
    return [random.Random(f"{_SEED}/{row}").choices(ordinary, k=length) for row in range(count)]
