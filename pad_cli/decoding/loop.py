"""The decoding loop: token ids in, token ids out, one KV cache a model; it knows nothing of text.

Rows of different length are left-padded and advance together. Finished rows leave the batch, so they stop costing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

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

    def __init__(self, model: LanguageModel, prompts: Sequence[list[int]]) -> None:
        self.model = model
        length, pad, device = max(map(len, prompts)), model.tokenizer.pad_token_id, model.device
        tokens = torch.tensor([[pad] * (length - len(p)) + p for p in prompts], device=device)
        self._mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=device)
        self._cache = model.new_cache()
        self.hidden = model.hidden_states(tokens, self._mask, self._cache)[:, -1]  # (B, H)

    def push(self, tokens: torch.Tensor) -> None:
        """Read one more token (B,) in every row."""
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(tokens), 1)], dim=1)
        self.hidden = self.model.hidden_states(tokens[:, None].to(self.model.device), self._mask, self._cache)[:, -1]

    def keep(self, rows: torch.Tensor) -> None:
        """Continue with the given rows only."""
        rows = rows.to(self.model.device)
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]
        self.hidden = self.hidden[rows]


@torch.inference_mode()
def decode(
    policy: LanguageModel,
    guidance: Guidance | None,
    prompts: Sequence[list[int]],
    *,
    candidates: int,
    reward_ngram: int,
    max_new_tokens: int,
    chooser: Chooser,
) -> list[list[int]]:
    """Answer a batch of prompts.

    Args:
        policy: the frozen model to steer.
        guidance: the reward side; None is plain decoding among the top candidates.
        prompts: B prompts in the policy's tokens.
        candidates: C.
        reward_ngram: n-grams whose repetition earns no reward; 0 for none.
        max_new_tokens: longest answer.
        chooser: picks among candidates.

    Returns:
        B lists of new tokens; a finished one ends with its end-of-sequence token.
    """
    answers: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))  # which answer each row of the batch belongs to
    ends = torch.tensor(sorted(policy.end_tokens), device=policy.device)
    stream = Stream(policy, prompts)
    reader = Stream(guidance.model.backbone, guidance.prompts) if guidance and guidance.prompts is not None else None
    history = torch.empty(len(rows), 0, dtype=torch.long, device=policy.device)
    streams = [stream] if reader is None else [stream, reader]
    running = torch.ones(len(rows), dtype=torch.bool, device=policy.device)
    for step in range(max_new_tokens):
        chosen, scores = select_candidates(policy.head(stream.hidden), candidates)  # (B, C)
        if guidance is not None:
            hidden = stream.hidden if reader is None else reader.hidden
            scores = _guide(guidance, hidden, chosen, scores, history, reward_ngram)
        tokens = chosen.gather(1, chooser.choose(scores, rows)[:, None])[:, 0]  # (B,)
        for row, token, runs in zip(rows, tokens.tolist(), running.tolist(), strict=True):
            if runs:
                answers[row].append(token)
        history = torch.cat([history, tokens[:, None]], dim=1)
        running = running & ~torch.isin(tokens, ends)
        left = int(running.sum())
        if left == 0 or step + 1 == max_new_tokens:
            break
        if left < _COMPACT_BELOW * len(rows):
            kept = running.nonzero()[:, 0]
            rows = [rows[index] for index in kept.tolist()]
            tokens, running, history = tokens[kept], running[kept], history[kept]
            guidance = guidance and _rows(guidance, kept)
            for each in streams:
                each.keep(kept)
        for each in streams:
            each.push(tokens)
    return answers


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
