"""Decode from several experts: language models, or one model under several prompts, mixed with signed weights.

    score(a) = sum_e weight_e * log pi_e(a | s_e)        for a among the first expert's top C tokens

Inside the candidate set normalisers are constants of the state: of every expert but the first, C logits are enough.
With weights (1 + g, -g) this contrasts a prompt with another (context steering, arXiv 2405.01768); with weights of
several trained models it mixes their logits (arXiv 2406.18853). Every expert reads its own prompt and the same answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from pad_cli.decoding.decode import Request, Sampler, collect, decode_steps, policy_processors
from pad_cli.decoding.session import CachedSession
from pad_cli.decoding.strategies import DecodingStrategy
from pad_cli.models.adapter import Adapter
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import DecodingSettings


@dataclass(frozen=True)
class Expert:
    """One component of the mixture: a model, read through an adapter if there is one, and B rows."""

    model: LanguageModel
    prompts: list[list[int]]  # in the model's tokens
    weights: list[float]  # one a row, of any sign
    adapter: Adapter | None = None

    def part(self, start: int, stop: int) -> Expert:
        """The same for some of the rows."""
        return replace(self, prompts=self.prompts[start:stop], weights=self.weights[start:stop])


def prompt_lengths(experts: Sequence[Expert]) -> list[int]:
    """Of each row, the tokens of the prompts of all experts."""
    return [sum(map(len, prompts)) for prompts in zip(*(expert.prompts for expert in experts), strict=True)]


def generate_mixture(experts: Sequence[Expert], settings: DecodingSettings, streams: Sequence[str]) -> list[list[int]]:
    """Answer B prompts in tokens with a mixture of experts, `settings.batch_size` rows at a time.

    The experts share a vocabulary. The first proposes the candidates and ends answers, and repetition controls act on
    it, once, whatever its weight. The streams are B names, as in `PadEngine.generate`.
    """
    answers: list[list[int]] = []
    for start in range(0, len(streams), settings.batch_size):
        stop = start + settings.batch_size
        request = _request([expert.part(start, stop) for expert in experts], settings, streams[start:stop])
        answers += collect(len(request.prompts), decode_steps(request))
    return answers


class MixtureStrategy(DecodingStrategy):
    """All experts; the "rewards" are what they add to the first one's own log-probabilities."""

    def __init__(self, experts: Sequence[Expert]) -> None:
        self.guidance = None
        self._sessions = [CachedSession(each.model, each.prompts, adapter=each.adapter) for each in experts]
        self._weights = torch.tensor([each.weights for each in experts], device=experts[0].model.device)  # (E, B)
        self._weights[0] -= 1  # its log-probabilities count once already

    @property
    def hidden(self) -> torch.Tensor:
        return self._sessions[0].hidden

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """As in `DecodingStrategy`; up to a constant of the state."""
        total = torch.zeros_like(log_probs)
        for session, weights in zip(self._sessions, self._weights, strict=True):
            if weights.any():
                logits = session.model.head.at(session.hidden.float(), candidates.to(session.hidden.device))
                total += weights[:, None] * logits.to(total.device)
        return total

    def push(self, tokens: torch.Tensor) -> None:
        for session in self._sessions:
            session.push(tokens)

    def keep(self, rows: torch.Tensor) -> None:
        for session in self._sessions:
            session.keep(rows)
        self._weights = self._weights[:, rows]


@dataclass(frozen=True)
class _MixtureRequest(Request):
    experts: Sequence[Expert] = ()

    @property
    def reads(self) -> list[tuple[LanguageModel, Sequence[list[int]]]]:
        return [(expert.model, expert.prompts) for expert in self.experts]

    def strategy(self) -> DecodingStrategy:
        return MixtureStrategy(self.experts)


def _request(experts: Sequence[Expert], settings: DecodingSettings, streams: Sequence[str]) -> _MixtureRequest:
    first = experts[0]
    return _MixtureRequest(
        policy=first.model,
        prompts=first.prompts,
        guidance=None,
        candidates=settings.candidates,
        reward_ngram=0,
        max_new_tokens=settings.max_new_tokens,
        sampler=Sampler(settings, [random.Random(f"{settings.seed}/{name}") for name in streams]),
        processors=policy_processors(settings),
        experts=[first, *(expert for expert in experts[1:] if any(expert.weights))],
    )
