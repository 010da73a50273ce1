"""Decoding strategies: how policy and reward model read an answer; all give the same candidates the same rewards.

DecodingStrategy    the policy alone; the base of the others
FusedStrategy       one forward pass: the preference heads work on the policy's own state
PairedStrategy      one forward pass of twice the rows: an adapter or another prompt for the second half alone
SeparateStrategy    two models, two caches
BridgedStrategy     two vocabularies, see `decoding/bridged.py`

`score_uncached` is the yardstick that tests compare them with.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from pad_cli.decoding.session import CachedSession
from pad_cli.equation import candidate_rewards, guided_scores, rewards_of_all, select_candidates, withhold_repeats
from pad_cli.models.language_model import LanguageModel, same_model
from pad_cli.models.reward_model import RewardModel

Path = Literal["fused", "paired", "separate", "bridged"]


@dataclass(frozen=True)
class Guidance:
    """The reward side of a batch."""

    model: RewardModel
    path: Path
    prompts: Sequence[list[int]]  # B, in the backbone's tokens; `fused` does not look at them
    preference_weights: torch.Tensor  # (B, K), w_p of each row
    guidance_weight: torch.Tensor  # (B,), calibrated

    def rows(self, rows: torch.Tensor) -> Guidance:
        """The same for some of the rows."""
        return replace(
            self,
            prompts=[self.prompts[row] for row in rows.tolist()],
            preference_weights=self.preference_weights[rows.to(self.preference_weights.device)],
            guidance_weight=self.guidance_weight[rows.to(self.guidance_weight.device)],
        )

    def rewards(
        self, hidden: torch.Tensor, candidates: torch.Tensor, reference: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, C) rewards of candidates for (B, H) states; `reference` as in `candidate_rewards`."""
        shift = self.model.shift(hidden, self.preference_weights)
        reference = None if reference is None else reference.to(hidden.device)
        return candidate_rewards(self.model.backbone.head, hidden, shift, candidates.to(hidden.device), reference)


class DecodingStrategy:
    """The policy alone, reading B prompts."""

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]]) -> None:
        self._policy = CachedSession(policy, prompts)

    @property
    def hidden(self) -> torch.Tensor:
        """(B, H) the policy's states."""
        return self._policy.hidden

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """Rewards of (B, C) candidates with their log-probabilities under the policy: (B, C) nats; here none."""
        return torch.zeros_like(log_probs)

    def full(self, tokens: torch.Tensor) -> list[bool]:
        """For each row: can a model read no more after these tokens (B,)? Only where it reads tokens of its own."""
        return [False] * len(tokens)

    def push(self, tokens: torch.Tensor) -> None:
        """Read one more token (B,) in every row."""
        self._policy.push(tokens)

    def keep(self, rows: torch.Tensor) -> None:
        """Continue with the given rows only."""
        self._policy.keep(rows)


class FusedStrategy(DecodingStrategy):
    """The policy is the backbone and both read the same: rewards come from the policy's own state."""

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]], guidance: Guidance) -> None:
        super().__init__(policy, prompts)
        self._guidance = guidance

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        return self._guidance.rewards(self.hidden, candidates)

    def keep(self, rows: torch.Tensor) -> None:
        super().keep(rows)
        self._guidance = self._guidance.rows(rows)


class PairedStrategy(DecodingStrategy):
    """The policy is the backbone, but the reward side reads through an adapter or another prompt.

    The backbone reads [plain rows, reward rows] in one batch, the latter through the adapter. The plain rows are the
    policy's, and the reference where the reward needs one.
    """

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]], guidance: Guidance) -> None:
        model, both = guidance.model, [*prompts, *guidance.prompts]
        self._guidance, self._plain = guidance, len(prompts)
        # not `policy`, which may be another copy: the adapter is attached to the backbone
        self._session = CachedSession(model.backbone, both, adapter=model.adapter, adapted_from=self._plain)

    @classmethod
    def reward_side(cls, guidance: Guidance) -> PairedStrategy:
        """Without a policy: plain rows only where the reference is the plain backbone."""
        model = guidance.model
        return cls(model.backbone, guidance.prompts if model.reference == "backbone" else [], guidance)

    @property
    def hidden(self) -> torch.Tensor:
        return self._session.hidden[: self._plain]

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        model, reference = self._guidance.model, None
        if model.reference != "state":
            reference = log_probs
            if self._plain:
                reference = model.backbone.head.at(self.hidden.float(), candidates.to(self.hidden.device))
        return self._guidance.rewards(self._session.hidden[self._plain :], candidates, reference)

    def push(self, tokens: torch.Tensor) -> None:
        self._session.push(torch.cat([tokens, tokens]) if self._plain else tokens)

    def keep(self, rows: torch.Tensor) -> None:
        both = torch.cat([rows, rows + self._plain]) if self._plain else rows
        self._plain = len(rows) if self._plain else 0
        self._session.keep(both, adapted_from=self._plain)
        self._guidance = self._guidance.rows(rows)


class SeparateStrategy(DecodingStrategy):
    """Any backbone with the policy's vocabulary."""

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]], guidance: Guidance) -> None:
        super().__init__(policy, prompts)
        self._reward = PairedStrategy.reward_side(guidance)

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        return self._reward.rewards(candidates, log_probs)

    def push(self, tokens: torch.Tensor) -> None:
        super().push(tokens)
        self._reward.push(tokens)

    def keep(self, rows: torch.Tensor) -> None:
        super().keep(rows)
        self._reward.keep(rows)


@torch.inference_mode()
def score_uncached(
    policy: LanguageModel, guidance: Guidance, prompt: list[int], answer: list[int], *, count: int, reward_ngram: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Score the candidates for the next token of one answer, as the paper's authors released it.

    Both models read the whole text again for every token, one prompt at a time and without a cache, and give logits
    at every position of it, though only the last are used (inference/PAD.py of zjuruizhechen/PAD). The answer is the
    first row of `guidance`. Gives candidates (1, C) and their guided scores (1, C) in nats, all normalisers included.
    """
    model, backbone = guidance.model, guidance.model.backbone
    shared = min(policy.vocabulary_size, backbone.vocabulary_size)
    logits = policy.head(_states(policy, prompt + answer))[-1:, :shared]

    def backbone_logits(states: torch.Tensor) -> torch.Tensor:
        return backbone.head(states)[-1:, :shared].to(logits.device)

    text = [*guidance.prompts[0], *answer]
    with contextlib.nullcontext() if model.adapter is None else model.adapter.on_rows_from(0):
        hidden = _states(backbone, text)
    shifted = hidden + model.shift(hidden, guidance.preference_weights[:1].expand(len(hidden), -1))
    if model.reference == "state":
        reference = backbone_logits(hidden[-1:])
    elif model.reference == "policy" or same_model(policy, backbone):
        reference = logits
    else:
        reference = backbone_logits(_states(backbone, text))
    candidates, log_probs = select_candidates(logits, count)
    rewards = rewards_of_all(backbone_logits(shifted.to(hidden.dtype)), reference).gather(1, candidates)
    history = torch.tensor([answer], dtype=torch.long, device=candidates.device)
    rewards = withhold_repeats(rewards, log_probs, candidates, history, reward_ngram)
    return candidates, guided_scores(log_probs, rewards, guidance.guidance_weight[:1])


def _states(model: LanguageModel, text: list[int]) -> torch.Tensor:
    """(T, H) states after every token of a text, read at once."""
    tokens = torch.tensor([text], device=model.device)
    return model.hidden_states(tokens, torch.ones_like(tokens))[0]
