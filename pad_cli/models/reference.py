"""What rewards are relative to: log pi_ref in r(p, s, a) = log pi_p(a | s) - log pi_ref(a | s)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import torch

from pad_cli.equation import LogitHead
from pad_cli.errors import UsageError
from pad_cli.models.language_model import LanguageModel, same_vocabulary
from pad_cli.models.scoring import TokenSequence, answer_states, targets_and_owners, token_log_probs


class Reference(StrEnum):
    """Whose log-probabilities are subtracted; equal to its name as a string.

    Attributes:
        STATE: those of the same state without its shift (preference heads on a frozen backbone).
        BACKBONE: those of the plain backbone (a reward model that reads through an adapter).
        POLICY: the policy's own (a reward model that reads the preference in its prompt, as PAD's authors released).
    """

    STATE = "state"
    BACKBONE = "backbone"
    POLICY = "policy"

    def model(self, backbone: LanguageModel, policy: LanguageModel) -> LanguageModel:
        """The language model that gives log pi_ref."""
        return policy if self is Reference.POLICY else backbone

    def fingerprint(self, policy: LanguageModel) -> str | None:
        """What decides rewards beside the reward model itself; None where nothing does."""
        return policy.fingerprint if self is Reference.POLICY else None

    def check(self, backbone: LanguageModel, policy: LanguageModel) -> None:
        """Make sure that a reward model on this backbone has rewards for this policy.

        Raises:
            UsageError: they are relative to the policy, whose vocabulary is not the backbone's.
        """
        if not same_vocabulary(self.model(backbone, policy), backbone):
            raise UsageError(
                "This reward model's rewards are relative to the policy, which has another vocabulary.",
                "Choose a policy with the backbone's tokenizer.",
            )

    def states(
        self, hidden: torch.Tensor, batch: Sequence[TokenSequence], backbone: LanguageModel, policy: LanguageModel
    ) -> torch.Tensor:
        """(T, H) states from which `model` predicts the answers' T tokens.

        Args:
            hidden: (T, H), those of the reward model before its shift.
            batch: the (prompt, answer) token sequences that they belong to.
            backbone: of the reward model.
            policy: the one that is steered.
        """
        return hidden if self is Reference.STATE else answer_states(self.model(backbone, policy), batch)

    def log_probs(
        self, hidden: torch.Tensor, batch: Sequence[TokenSequence], backbone: LanguageModel, policy: LanguageModel
    ) -> torch.Tensor:
        """log pi_ref of the answers' tokens, (T,) nats; arguments as in `states`."""
        model, states = self.model(backbone, policy), self.states(hidden, batch, backbone, policy)
        targets, _ = targets_and_owners(batch, states.device)
        return token_log_probs(states, targets, model.head)

    def at_candidates(
        self, head: LogitHead, plain: torch.Tensor, candidates: torch.Tensor, log_probs: torch.Tensor
    ) -> torch.Tensor | None:
        """log pi_ref of candidates up to a constant, as `equation.candidate_rewards` takes it: (N, C), or None.

        Args:
            head: the backbone's unembedding.
            plain: (N, H) states of the plain backbone.
            candidates: (N, C) token ids.
            log_probs: (N, C), theirs under the policy.
        """
        if self is Reference.STATE:
            return None
        return log_probs if self is Reference.POLICY else head.at(plain.float(), candidates.to(plain.device))
