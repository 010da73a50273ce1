"""The decoding loop: token ids in, token ids out, one KV cache a model; it knows nothing of text.

Rows of different length are left-padded and advance together. Finished rows leave the batch, so they stop costing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessorList

from pad_cli.decoding.guidance import candidate_rewards, guided_scores, select_candidates, withhold_repeats
from pad_cli.decoding.sampling import Chooser
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel

_COMPACT_BELOW = 0.75  # drop finished rows once fewer than this share of the batch is running


@dataclass(frozen=True)
class Guidance:
    """The reward side of a batch.

    Attributes:
        model: the reward model.
        prompts: the batch's prompts in the backbone's tokens; None when the policy is the backbone (path `fused`).
        preference_weights: (B, K), w_p of each row.
        guidance_weight: (B,), calibrated.
    """

    model: PersonalizedRewardModel
    prompts: Sequence[list[int]] | None
    preference_weights: torch.Tensor
    guidance_weight: torch.Tensor


class Stream:
    """One model reading along: its cache, its mask, and the state after the last token."""

    def __init__(self, model: LanguageModel, tokens: torch.Tensor, mask: torch.Tensor) -> None:
        """Read left-padded prompts: (B, T) tokens, and their mask, 1 for real tokens."""
        self.model = model
        self.tokens = tokens  # (B, T), all that was read
        self._mask = mask
        self._cache = model.new_cache()
        self.hidden = model.hidden_states(tokens, mask, self._cache)[:, -1]  # (B, H)

    @classmethod
    def of_prompts(cls, model: LanguageModel, prompts: Sequence[list[int]]) -> Stream:
        """Pad B prompts of any length on the left, and read them."""
        length, pad, device = max(map(len, prompts)), model.tokenizer.pad_token_id, model.device
        tokens = torch.tensor([[pad] * (length - len(p)) + p for p in prompts], device=device)
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=device)
        return cls(model, tokens, mask)

    def push(self, tokens: torch.Tensor) -> None:
        """Read one more token (B,) in every row."""
        self.tokens = torch.cat([self.tokens, tokens[:, None].to(self.model.device)], dim=1)
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self.hidden = self.model.hidden_states(self.tokens[:, -1:], self._mask, self._cache)[:, -1]

    def keep(self, rows: torch.Tensor) -> None:
        """Continue with the given rows only."""
        rows = rows.to(self.model.device)
        self._cache.batch_select_indices(rows)
        self.tokens = self.tokens[rows]
        self._mask = self._mask[rows]
        self.hidden = self.hidden[rows]


@dataclass(frozen=True)
class Step:
    """One step of the loop, for the B rows that are in the batch.

    Attributes:
        rows: B numbers: which prompt each row answers.
        running: B flags: whether the row was still unfinished, so that its token counts.
        tokens: (B,) the tokens chosen.
        candidates: (B, C) token ids, the policy's likeliest first.
        log_probs: (B, C) of the candidates under the policy.
        scores: (B, C) what was chosen by: equal to `log_probs` without guidance.
    """

    rows: list[int]
    running: list[bool]
    tokens: torch.Tensor
    candidates: torch.Tensor
    log_probs: torch.Tensor
    scores: torch.Tensor


def decode(
    policy: LanguageModel,
    guidance: Guidance | None,
    prompts: Sequence[list[int]],
    *,
    candidates: int,
    reward_ngram: int,
    max_new_tokens: int,
    chooser: Chooser,
    processors: LogitsProcessorList | None = None,
    ignore_end: bool = False,
) -> list[list[int]]:
    """Answer a batch of prompts; see `decode_steps`.

    Returns:
        B lists of new tokens; a finished one ends with its end-of-sequence token.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    steps = decode_steps(
        policy,
        guidance,
        prompts,
        candidates=candidates,
        reward_ngram=reward_ngram,
        max_new_tokens=max_new_tokens,
        chooser=chooser,
        processors=processors,
        ignore_end=ignore_end,
    )
    for step in steps:
        for row, token, runs in zip(step.rows, step.tokens.tolist(), step.running, strict=True):
            if runs:
                answers[row].append(token)
    return answers


@torch.inference_mode()
def decode_steps(
    policy: LanguageModel,
    guidance: Guidance | None,
    prompts: Sequence[list[int]],
    *,
    candidates: int,
    reward_ngram: int,
    max_new_tokens: int,
    chooser: Chooser,
    processors: LogitsProcessorList | None = None,
    ignore_end: bool = False,
) -> Iterator[Step]:
    """Answer a batch of prompts, step by step.

    Args:
        policy: the frozen model to steer.
        guidance: the reward side; None is plain decoding among the top candidates.
        prompts: B prompts in the policy's tokens.
        candidates: C.
        reward_ngram: n-grams whose repetition earns no reward; 0 for none.
        max_new_tokens: longest answer.
        chooser: picks among candidates.
        processors: act on the policy's logits first, for example transformers' repetition controls.
        ignore_end: go on after an end of sequence, to `max_new_tokens` (for measuring).

    Yields:
        A step for each new token.
    """
    rows = list(range(len(prompts)))
    ends = torch.tensor([] if ignore_end else sorted(policy.end_tokens), dtype=torch.long, device=policy.device)
    stream = Stream.of_prompts(policy, prompts)
    streams = [stream]
    if guidance is not None and guidance.prompts is not None:
        streams.append(Stream.of_prompts(guidance.model.backbone, guidance.prompts))
    prompt_length = stream.tokens.shape[1]
    running = torch.ones(len(rows), dtype=torch.bool, device=policy.device)
    for step in range(max_new_tokens):
        logits = policy.head(stream.hidden)  # (B, V)
        if processors:
            logits = processors(stream.tokens, logits)
        chosen, log_probs = select_candidates(logits, candidates)  # (B, C)
        scores = log_probs
        if guidance is not None:
            scores = _guide(
                guidance, streams[-1].hidden, chosen, log_probs, stream.tokens[:, prompt_length:], reward_ngram
            )
        tokens = chosen.gather(1, chooser.choose(scores, rows)[:, None])[:, 0]  # (B,)
        yield Step(rows, running.tolist(), tokens, chosen, log_probs, scores)
        running = running & ~torch.isin(tokens, ends)
        left = int(running.sum())
        if left == 0 or step + 1 == max_new_tokens:
            break
        if left < _COMPACT_BELOW * len(rows):
            kept = running.nonzero()[:, 0]
            rows = [rows[index] for index in kept.tolist()]
            tokens, running = tokens[kept], running[kept]
            guidance = guidance and _rows(guidance, kept)
            for each in streams:
                each.keep(kept)
        for each in streams:
            each.push(tokens)


def _guide(
    guidance: Guidance,
    hidden: torch.Tensor,
    candidates: torch.Tensor,
    log_probs: torch.Tensor,
    history: torch.Tensor,
    size: int,
) -> torch.Tensor:
    model = guidance.model
    shift = model.shift(hidden, guidance.preference_weights)
    rewards = candidate_rewards(model.backbone.head, hidden, shift, candidates.to(hidden.device))
    rewards = withhold_repeats(rewards.to(log_probs.device), log_probs, candidates, history, size)
    return guided_scores(log_probs, rewards, guidance.guidance_weight)


def _rows(guidance: Guidance, kept: torch.Tensor) -> Guidance:
    weights = guidance.preference_weights[kept.to(guidance.preference_weights.device)]
    return Guidance(guidance.model, None, weights, guidance.guidance_weight[kept])
