"""The ways in which policy and reward model read along; all give the same candidates the same rewards.

PolicyReader    the policy alone
FusedReader     one forward: the preference heads work on the policy's own state
PairedReader    one forward of twice the rows: [policy rows, reward rows]; an adapter acts on the second half alone
SeparateReader  two models, two caches
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from pad_cli.decoding.stream import Stream
from pad_cli.equation import candidate_rewards
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import RewardModel

Path = Literal["fused", "paired", "separate", "bridged"]


@dataclass(frozen=True)
class Guidance:
    """The reward side of a batch.

    Attributes:
        model: the reward model.
        path: how it reads along.
        prompts: B prompts in the backbone's tokens; `fused` does not look at them.
        preference_weights: (B, K), w_p of each row.
        guidance_weight: (B,), calibrated.
    """

    model: RewardModel
    path: Path
    prompts: Sequence[list[int]]
    preference_weights: torch.Tensor
    guidance_weight: torch.Tensor

    def rows(self, kept: torch.Tensor) -> Guidance:
        """The same for some of the rows."""
        weights = self.preference_weights[kept.to(self.preference_weights.device)]
        prompts = [self.prompts[row] for row in kept.tolist()]
        return replace(
            self,
            prompts=prompts,
            preference_weights=weights,
            guidance_weight=self.guidance_weight[kept.to(self.guidance_weight.device)],
        )

    def rewards(
        self, hidden: torch.Tensor, candidates: torch.Tensor, reference: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(B, C) rewards of candidates for (B, H) states; `reference` as in `candidate_rewards`."""
        head, candidates = self.model.backbone.head, candidates.to(hidden.device)
        shift = self.model.shift(hidden, self.preference_weights)
        return candidate_rewards(head, hidden, shift, candidates, _on(hidden.device, reference))


class PolicyReader:
    """The policy alone; every other reader is one with a reward side.

    Args:
        policy: the language model to steer.
        prompts: B prompts in its tokens.
    """

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]]) -> None:
        self._policy = Stream.of_prompts(policy, prompts)

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

    def keep(self, kept: torch.Tensor) -> None:
        """Continue with the given rows only."""
        self._policy.keep(kept)


class FusedReader(PolicyReader):
    """The policy is the backbone and both read the same: rewards come from the policy's own state."""

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]], guidance: Guidance) -> None:
        super().__init__(policy, prompts)
        self._guidance = guidance

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        return self._guidance.rewards(self.hidden, candidates)

    def keep(self, kept: torch.Tensor) -> None:
        super().keep(kept)
        self._guidance = self._guidance.rows(kept)


class PairedReader(PolicyReader):
    """The policy is the backbone, but the reward side reads through an adapter or another prompt."""

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]], guidance: Guidance) -> None:
        self._guidance, self._count = guidance, len(prompts)
        self._pair = _pair(guidance, prompts)

    @property
    def hidden(self) -> torch.Tensor:
        return self._pair.hidden[: self._count]

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        model, reference = self._guidance.model, None
        if model.reference != "state":  # relative to the policy, which here is the plain backbone
            reference = model.backbone.head.at(self.hidden.float(), candidates)
        return self._guidance.rewards(self._pair.hidden[self._count :], candidates, reference)

    def push(self, tokens: torch.Tensor) -> None:
        self._pair.push(torch.cat([tokens, tokens]))

    def keep(self, kept: torch.Tensor) -> None:
        self._pair.keep(torch.cat([kept, kept + self._count]), adapted_from=len(kept))
        self._guidance, self._count = self._guidance.rows(kept), len(kept)


class RewardSide:
    """The reward side with a cache of its own. With an adapter it reads in pairs: [reference rows, reward rows].

    Args:
        guidance: whose prompts are read.
    """

    def __init__(self, guidance: Guidance) -> None:
        self._guidance, self._count = guidance, len(guidance.prompts)
        self._in_pairs = guidance.model.reference == "backbone"
        self._stream = _pair(guidance, guidance.prompts if self._in_pairs else [])

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """As in `PolicyReader`."""
        guidance, model, hidden = self._guidance, self._guidance.model, self._stream.hidden
        plain, hidden = hidden.split(self._count) if self._in_pairs else (hidden, hidden)
        reference = model.reference.at_candidates(model.backbone.head, plain, candidates, log_probs)
        return guidance.rewards(hidden, candidates, reference)

    def push(self, tokens: torch.Tensor) -> None:
        """Read one more token (B,) in every row."""
        self._stream.push(torch.cat([tokens, tokens]) if self._in_pairs else tokens)

    def keep(self, kept: torch.Tensor) -> None:
        """Continue with the given rows only."""
        both = torch.cat([kept, kept + self._count]) if self._in_pairs else kept
        self._stream.keep(both, adapted_from=len(kept) if self._in_pairs else 0)
        self._guidance, self._count = self._guidance.rows(kept), len(kept)


class SeparateReader(PolicyReader):
    """Any backbone with the policy's vocabulary."""

    def __init__(self, policy: LanguageModel, prompts: Sequence[list[int]], guidance: Guidance) -> None:
        super().__init__(policy, prompts)
        self._reward = RewardSide(guidance)

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        return self._reward.rewards(candidates, log_probs)

    def push(self, tokens: torch.Tensor) -> None:
        super().push(tokens)
        self._reward.push(tokens)

    def keep(self, kept: torch.Tensor) -> None:
        super().keep(kept)
        self._reward.keep(kept)


def _pair(guidance: Guidance, first: Sequence[list[int]]) -> Stream:
    """The backbone reads the first prompts as they are, and the reward side's prompts through the adapter."""
    model = guidance.model
    both = [*first, *guidance.prompts]
    return Stream.of_prompts(model.backbone, both, adapter=model.adapter, adapted_from=len(first))


def _on(device: torch.device, tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else tensor.to(device)
