"""What competed for a token, and how far guidance moved it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from pad_cli.decoding.loop import Step


@dataclass(frozen=True)
class Candidate:
    """One of the policy's top tokens.

    Attributes:
        text: the token.
        probability: under the policy.
        push: guidance_weight * reward, relative to the candidates' average under the policy (nats).
    """

    text: str
    probability: float
    push: float


@dataclass(frozen=True)
class TokenChoice:
    """One token of an answer.

    Attributes:
        token: the id of the one that was chosen.
        text: what it says.
        plain_text: what the policy alone would have said here.
        push: of the chosen token (nats).
        candidates: by guided score, best first.
    """

    token: int
    text: str
    plain_text: str
    push: float
    candidates: tuple[Candidate, ...]

    @property
    def steered(self) -> bool:
        """Did guidance change the most likely token?"""
        return self.text != self.plain_text


def explain_step(step: Step, tokenizer: Any) -> TokenChoice:
    """The explanation of a step's first row."""
    log_probs, scores = step.log_probs[0], step.scores[0]
    pushed = scores - log_probs
    pushed = pushed - (log_probs.softmax(-1) * pushed).sum()
    texts = [str(tokenizer.decode([token])) for token in step.candidates[0].tolist()]
    chosen = int((step.candidates[0] == step.tokens[0]).nonzero()[0, 0])
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    candidates = tuple(Candidate(texts[i], math.exp(log_probs[i].item()), pushed[i].item()) for i in order)
    return TokenChoice(int(step.tokens[0]), texts[chosen], texts[0], pushed[chosen].item(), candidates)
