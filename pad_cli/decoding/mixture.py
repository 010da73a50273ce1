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
    """All experts; the "rewards" are what they add to the first one's own log-probabilities.

    Experts with the same model and adapter read in one forward pass.
    """

    def __init__(self, experts: Sequence[Expert]) -> None:
        self._count = len(experts[0].prompts)
        self._heads = [expert.model.head for expert in experts]
        self._weights = [torch.tensor(expert.weights, device=experts[0].model.device) for expert in experts]
        groups: dict[tuple[int, int], list[int]] = {}
        for number, expert in enumerate(experts):
            groups.setdefault((id(expert.model), id(expert.adapter)), []).append(number)
        self._sessions: list[CachedSession] = []
        self._blocks: dict[int, tuple[CachedSession, int]] = {}  # of each expert: its session, and which B rows of it
        for members in groups.values():
            first = experts[members[0]]
            prompts = [prompt for number in members for prompt in experts[number].prompts]
            self._sessions.append(CachedSession(first.model, prompts, adapter=first.adapter))
            self._blocks |= {number: (self._sessions[-1], block) for block, number in enumerate(members)}

    @property
    def hidden(self) -> torch.Tensor:
        return self._states_of(0)

    def rewards(self, candidates: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """As in `DecodingStrategy`; up to a constant of the state."""
        total = torch.zeros_like(log_probs)
        for number, (head, weights) in enumerate(zip(self._heads, self._weights, strict=True)):
            weights = weights - 1 if number == 0 else weights  # the first one's log-probabilities count once already
            if weights.any():
                hidden = self._states_of(number).float()
                total += weights[:, None] * head.at(hidden, candidates.to(hidden.device)).to(total.device)
        return total

    def push(self, tokens: torch.Tensor) -> None:
        for session in self._sessions:
            session.push(tokens.repeat(len(session.hidden) // self._count))

    def keep(self, rows: torch.Tensor) -> None:
        for session in self._sessions:
            blocks = len(session.hidden) // self._count
            session.keep(torch.cat([rows + self._count * block for block in range(blocks)]))
        self._weights = [weights[rows] for weights in self._weights]
        self._count = len(rows)

    def _states_of(self, number: int) -> torch.Tensor:
        """(B, H)"""
        session, block = self._blocks[number]
        return session.hidden[block * self._count : (block + 1) * self._count]


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
