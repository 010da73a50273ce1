"""The ways to decode that are compared, each as one call on the same prompts.

generate     transformers' own greedy search, the policy alone
plain        our loop, the policy alone
fused        our loop, guided; the policy is the reward model's backbone, so one forward a token
paired       our loop, guided; the same, in one forward of twice the rows
separate     our loop, guided; two models (or one model twice), two caches
bridged      our loop, guided; two models of different vocabularies
speculative  as separate, where the reward model's backbone drafts for the policy
uncached     the authors' algorithm, see `decoding/uncached.py`; one token at a time, because it is very slow
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from transformers import LogitsProcessorList

from pad_cli.bench.agreement import top_two
from pad_cli.bench.conditions import Clock
from pad_cli.bench.questions import Questions
from pad_cli.decoding import readers
from pad_cli.decoding.block_length import BlockLength
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.loop import Request, Step, collect, decode_steps
from pad_cli.decoding.paths import choose_path
from pad_cli.decoding.ragged_stream import can_be_ragged
from pad_cli.decoding.readers import Guidance
from pad_cli.decoding.sampling import Chooser
from pad_cli.decoding.speculative import can_speculate, speculate_steps
from pad_cli.decoding.stream import left_padded
from pad_cli.decoding.uncached import score_uncached
from pad_cli.errors import UsageError
from pad_cli.recipe import DecodingSettings

Guided = readers.Path | Literal["speculative"]
Whole = Guided | Literal["generate", "plain"]
"""A path that answers all prompts at once."""
Name = Whole | Literal["uncached"]


class Watch:
    """Looks at what a path decides by, and notes when the first scores came. What is only drafted does not count.

    Args:
        clock: seconds.
        count: C; when given, the best scores are kept too, see `top`.
    """

    def __init__(self, clock: Clock, count: int | None = None) -> None:
        self.first: float | None = None
        self._clock, self._count = clock, count
        self._top: dict[int, list[list[float]]] = {}

    @property
    def top(self) -> torch.Tensor:
        """The two best scores at every token: (B, T, 2), see `top_two`."""
        return torch.tensor([self._top[row] for row in sorted(self._top)])

    def steps(self, steps: Iterator[Step]) -> Iterator[Step]:
        """The same steps."""
        for step in steps:
            self._note(step.rows, step.scores)
            yield step

    def processor(self, _: Any, scores: torch.Tensor) -> torch.Tensor:
        """A logits processor that changes nothing."""
        self._note(range(len(scores)), scores)
        return scores

    def _note(self, rows: Sequence[int], scores: torch.Tensor) -> None:
        if self.first is None:
            self.first = self._clock()
        if self._count is not None:
            for row, top in zip(rows, top_two(scores, self._count).tolist(), strict=True):
                self._top.setdefault(row, []).append(top)


class Paths:
    """One batch of prompts, and every way to answer it.

    Args:
        engine: policy and reward model; the policy's generation configuration has no end of sequence.
        settings: guidance weight, candidates, n-grams, path.
        questions: B prompts and their preferences.
        new_tokens: length of every answer.

    Attributes:
        guided: the guided paths to measure; `decoding.path: auto` takes every one that these models can.

    Raises:
        UsageError: the settings force a path that these models cannot take, or not with so many rows.
    """

    def __init__(self, engine: PadEngine, settings: DecodingSettings, questions: Questions, new_tokens: int) -> None:
        assert engine.reward_model is not None
        self.policy, model = engine.policy, engine.reward_model
        self.backbone = model.backbone
        self.new_tokens = new_tokens
        self.questions = questions
        self._settings = settings
        weight = settings.guidance_weight * model.calibration
        self._guidance = Guidance(
            model=model,
            path="separate",
            prompts=questions.backbone_prompts,
            preference_weights=questions.preference_weights,
            guidance_weight=torch.full((len(questions),), weight, device=self.policy.device),
        )
        self.guided = self._choose_guided()

    @property
    def names(self) -> tuple[Name, ...]:
        """All paths; `uncached` is last, and is not defined between different vocabularies."""
        whole: tuple[Name, ...] = ("generate", "plain", *self.guided)
        return whole if "bridged" in self.guided else (*whole, "uncached")

    def answer(self, path: Whole, watch: Watch) -> list[list[int]]:
        """Answer all prompts on a path other than `uncached`: B lists of `new_tokens` token ids."""
        if path == "generate":
            return self._generate(watch)
        if path == "plain":
            steps = decode_steps(self._request(None))
        elif path == "speculative":
            steps = speculate_steps(self._request("separate"), BlockLength())
        else:
            steps = decode_steps(self._request(path))
        return collect(len(self.questions), watch.steps(steps))

    def uncached_step(self, written: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The next token of the first prompt's answer, on the path `uncached`: candidates and scores, both (1, C)."""
        return score_uncached(
            self.policy,
            self._guidance,
            self.questions.prompts[0],
            written,
            count=self._settings.candidates,
            reward_ngram=self._settings.reward_ngram,
        )

    def _choose_guided(self) -> tuple[Guided, ...]:
        rows = len(self.questions)
        chosen = choose_path(self.policy, self._guidance.model, self._settings.path)
        if chosen == "bridged" and not can_be_ragged(self.backbone, rows):
            raise UsageError(
                f"'{self.backbone.name}' has a sliding window: it follows another vocabulary in one answer at a time.",
                "Use: batch_sizes: [1]",
            )
        if self._settings.path != "auto" or chosen == "bridged":
            return (chosen,)
        guided: list[Guided] = [chosen] if chosen == "separate" else [chosen, "separate"]
        larger = self.policy.model.num_parameters() > self.backbone.model.num_parameters()
        if larger and can_speculate(self.policy, self._guidance, rows):
            guided.append("speculative")
        return tuple(guided)

    def _request(self, path: readers.Path | None) -> Request:
        return Request(
            policy=self.policy,
            prompts=self.questions.prompts,
            guidance=None if path is None else replace(self._guidance, path=path),
            candidates=self._settings.candidates,
            reward_ngram=self._settings.reward_ngram,
            max_new_tokens=self.new_tokens,
            chooser=Chooser(DecodingSettings(), []),
            ignore_eos=True,
        )

    @torch.inference_mode()
    def _generate(self, watch: Watch) -> list[list[int]]:
        tokens, mask = left_padded(self.policy, self.questions.prompts)
        whole = self.policy.model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=self.new_tokens,
            logits_processor=LogitsProcessorList([watch.processor]),
        )
        answers: list[list[int]] = whole[:, tokens.shape[1] :].tolist()
        return answers
