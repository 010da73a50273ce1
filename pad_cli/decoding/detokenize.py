"""From steps to text: the pieces of an answer as they are decided, and what competed for each of its tokens."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch

from pad_cli.decoding.decode import Step
from pad_cli.models.prompts import decode_answer

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class IncrementalDetokenizer:
    """Turns a growing list of tokens into pieces of text.

    A piece is held back while the text ends inside a character, or an answer in white space, so that the pieces
    together are the text that `decode_answer` gives for all tokens.
    """

    def __init__(self, tokenizer: Any, ends: Collection[int] = ()) -> None:
        self._tokenizer, self._ends = tokenizer, ends
        self._tokens: list[int] = []
        self._length = 0  # of the text that was returned

    def push(self, token: int) -> str:
        """Take one more token and return the text that is certain now; may be empty."""
        self._tokens.append(token)
        text = decode_answer(self._tokenizer, self._tokens, self._ends)
        return "" if text.endswith(_UNFINISHED) else self._rest(text)

    def finish(self) -> str:
        """What was held back."""
        return self._rest(decode_answer(self._tokenizer, self._tokens, self._ends))

    def _rest(self, text: str) -> str:
        new, self._length = text[self._length :], max(self._length, len(text))
        return new


@dataclass(frozen=True)
class Candidate:
    """One of the policy's top tokens, and its probability under the policy."""

    text: str
    probability: float
    push: float  # guidance_weight * reward, relative to the candidates' average under the policy (nats)


@dataclass(frozen=True)
class TokenChoice:
    """One token of an answer."""

    token: int
    text: str
    plain_text: str  # of the token that the policy alone would have chosen here
    push: float  # of the chosen token (nats)
    candidates: tuple[Candidate, ...]  # by guided score, best first

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
