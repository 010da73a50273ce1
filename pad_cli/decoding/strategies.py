"""Decoding strategies: how policy and reward model read an answer; all give the same candidates the same rewards.

DecodingStrategy    the policy alone; the base of the others
FusedStrategy       one forward pass: the preference heads work on the policy's own state
PairedStrategy      one forward pass of twice the rows: an adapter or another prompt for the second half alone
SeparateStrategy    two models, two caches
BridgedStrategy     two vocabularies, see `decoding/bridged.py`
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from pad_cli.decoding.session import CachedSession
from pad_cli.equation import candidate_rewards
from pad_cli.models.language_model import LanguageModel
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
    """The policy alone, reading B prompts.

    Attributes:
        guidance: of the rows that are left; None for the policy alone.
    """

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]], guidance: Guidance | None = None) -> None:
        self.guidance = guidance
        self._policy = CachedSession(policy, prompts)

    @property
    def hidden(self) -> torch.Tensor:
        """(B, H) the policy's states."""
        return self._policy.hidden

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """Rewards of (B, C) candidates with their log-probabilities under the policy: (B, C) nats; here none."""
        return torch.zeros_like(log_probs)

    def full(self, tokens: torch.Tensor) -> list[bool]:
        """For each row, whether a model that reads tokens of its own has no room left after these tokens (B,)."""
        return [False] * len(tokens)

    def push(self, tokens: torch.Tensor) -> None:
        """Read one more token (B,) in every row."""
        self._policy.push(tokens)

    def keep(self, rows: torch.Tensor) -> None:
        """Continue with the given rows only."""
        self._policy.keep(rows)
        self.guidance = self.guidance and self.guidance.rows(rows)


class FusedStrategy(DecodingStrategy):
    """The policy is the backbone and both read the same: rewards come from the policy's own state."""

    guidance: Guidance

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        return self.guidance.rewards(self.hidden, candidates)


class PairedStrategy(DecodingStrategy):
    """The policy is the backbone, but the reward side reads through an adapter or another prompt.

    The backbone reads [plain rows, reward rows] in one batch, the latter through the adapter. The plain rows are the
    policy's, and the reference where the reward needs one.
    """

    guidance: Guidance

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]], guidance: Guidance) -> None:
        model, both = guidance.model, [*prompts, *guidance.prompts]
        self.guidance, self._plain = guidance, len(prompts)
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
        model, reference = self.guidance.model, None
        if model.reference != "state":
            reference = log_probs
            if self._plain:
                reference = model.backbone.head.at(self.hidden.float(), candidates.to(self.hidden.device))
        return self.guidance.rewards(self._session.hidden[self._plain :], candidates, reference)

    def push(self, tokens: torch.Tensor) -> None:
        self._session.push(torch.cat([tokens, tokens]) if self._plain else tokens)

    def keep(self, rows: torch.Tensor) -> None:
        both = torch.cat([rows, rows + self._plain]) if self._plain else rows
        self._plain = len(rows) if self._plain else 0
        self._session.keep(both, adapted_from=self._plain)
        self.guidance = self.guidance.rows(rows)


class SeparateStrategy(DecodingStrategy):
    """Any backbone with the policy's vocabulary."""

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]], guidance: Guidance) -> None:
        super().__init__(policy, prompts, guidance)
        self._reward = PairedStrategy.reward_side(guidance)

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        return self._reward.rewards(candidates, log_probs)

    def push(self, tokens: torch.Tensor) -> None:
        super().push(tokens)
        self._reward.push(tokens)

    def keep(self, rows: torch.Tensor) -> None:
        super().keep(rows)
        self._reward.keep(rows)
