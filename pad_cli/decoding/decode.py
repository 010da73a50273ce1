"""The decoding loop: token ids in, token ids out, one KV cache a model; it knows nothing of text.

Finished rows leave the batch, so they stop costing.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from pad_cli.decoding.bridged import BridgedStrategy
from pad_cli.decoding.strategies import DecodingStrategy, FusedStrategy, Guidance, PairedStrategy, SeparateStrategy
from pad_cli.equation import guided_scores, plausible, select_candidates, withhold_repeats
from pad_cli.models.language_model import LanguageModel, room
from pad_cli.recipe import DecodingSettings

_STRATEGIES: dict[str, type[DecodingStrategy]] = {
    "fused": FusedStrategy,
    "paired": PairedStrategy,
    "separate": SeparateStrategy,
    "bridged": BridgedStrategy,
}


def policy_processors(settings: DecodingSettings) -> LogitsProcessorList:
    """transformers' repetition controls, which act on the policy's logits before candidates are taken."""
    processors = LogitsProcessorList()
    if settings.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    return processors


class Sampler:
    """Picks one candidate in each row: the best (temperature 0), or a draw.

    Each row has its own stream of random numbers, and each of its tokens one number of that stream. So a row's answer
    depends neither on the rows it is decoded with nor on how often a token is proposed before it is written.
    """

    def __init__(self, settings: DecodingSettings, streams: Sequence[random.Random]) -> None:
        self._streams = list(streams)
        self._drawn: list[list[float]] = [[] for _ in self._streams]
        self._greedy = settings.temperature == 0
        self._warpers = LogitsProcessorList()
        if not self._greedy and settings.temperature != 1:
            self._warpers.append(TemperatureLogitsWarper(settings.temperature))
        if settings.top_k:
            self._warpers.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            self._warpers.append(TopPLogitsWarper(settings.top_p))
        if settings.min_p > 0:
            self._warpers.append(MinPLogitsWarper(settings.min_p))

    def choose(
        self, candidates: torch.Tensor, scores: torch.Tensor, rows: Sequence[int], positions: Sequence[int]
    ) -> torch.Tensor:
        """Choose a token in each of B rows, of (B, C) candidates with their (B, C) guided scores: (B,) token ids.

        `rows` says which stream each row draws from, `positions` how many tokens its answer has already.
        """
        if self._greedy:
            return candidates.gather(1, scores.argmax(-1, keepdim=True))[:, 0]
        # Candidates are ordered by their ids: models that rank similar scores differently then still draw the same
        # token, so more drafts are right.
        order = candidates.argsort(-1)
        probabilities = self._warpers(None, scores.gather(1, order)).softmax(-1)
        draws = [self._draw(row, position) for row, position in zip(rows, positions, strict=True)]
        passed = probabilities.cumsum(-1) < torch.tensor(draws, device=scores.device)[:, None]
        last_possible = (probabilities > 0).cumsum(-1).argmax(-1)
        chosen = torch.minimum(passed.sum(-1), last_possible)
        return candidates.gather(1, order.gather(1, chosen[:, None]))[:, 0]

    def _draw(self, row: int, position: int) -> float:
        drawn = self._drawn[row]
        while len(drawn) <= position:
            drawn.append(self._streams[row].random())
        return drawn[position]


@dataclass(frozen=True)
class Step:
    """One step of the loop, for the B rows that are in the batch."""

    rows: list[int]  # which prompt each row answers
    tokens: torch.Tensor  # (B,) chosen
    candidates: torch.Tensor  # (B, C) token ids, the policy's likeliest first
    log_probs: torch.Tensor  # (B, C) of the candidates under the policy
    scores: torch.Tensor  # (B, C) guided, also of candidates that are not plausible; without guidance `log_probs`


@dataclass(frozen=True)
class Request:
    """A batch of prompts, and how to answer them."""

    policy: LanguageModel
    prompts: Sequence[list[int]]  # B, in the policy's tokens
    guidance: Guidance | None  # None is plain decoding among the top candidates
    candidates: int  # C
    reward_ngram: int  # n-grams whose repetition earns no reward; 0 for none
    max_new_tokens: int  # see `limits`
    sampler: Sampler
    processors: LogitsProcessorList = field(default_factory=LogitsProcessorList)  # act on the policy's logits first
    plausibility: float = 0.0  # see `equation.plausible`
    ignore_eos: bool = False  # go on after an end of sequence, to `max_new_tokens` (for measuring)
    stopped: Callable[[int], bool] = lambda row: False  # after each token: does the answer of this row end here?

    @property
    def reads(self) -> list[tuple[LanguageModel, Sequence[list[int]]]]:
        """The models that read the answers in the policy's tokens, each with its prompts."""
        if self.guidance is None or self.guidance.path == "bridged":
            return [(self.policy, self.prompts)]
        return [(self.policy, self.prompts), (self.guidance.model.backbone, self.guidance.prompts)]

    @functools.cached_property
    def limits(self) -> list[int]:
        """Longest answer of each row: `max_new_tokens`, or less where a model has no room for it after its prompt."""
        lengths = [[room(model.context_length, len(prompt)) for prompt in prompts] for model, prompts in self.reads]
        return [min([self.max_new_tokens, *(n for n in row if n is not None)]) for row in zip(*lengths, strict=True)]

    @functools.cached_property
    def shared_tokens(self) -> int:
        """Token ids below this exist in all models: their unembeddings may be padded to different sizes."""
        return min(model.vocabulary_size for model, _ in self.reads)

    def strategy(self) -> DecodingStrategy:
        if self.guidance is None:
            return DecodingStrategy(self.policy, self.prompts)
        return _STRATEGIES[self.guidance.path](self.policy, self.prompts, self.guidance)

    def ends(self, row: int, token: int, length: int) -> bool:
        """Does the answer of a row end with this token, its `length`-th?"""
        if length >= self.limits[row] or self.stopped(row):
            return True
        return token in self.policy.end_tokens and not self.ignore_eos

    def step(
        self,
        rows: list[int],
        logits: torch.Tensor,
        answers: torch.Tensor,
        guidance: Guidance | None,
        rewards: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> Step:
        """Choose the next token of B rows.

        Args:
            rows: which prompt each row answers.
            logits: (B, V) of the policy.
            answers: (B, T) the answers so far; negative where a row has no token.
            guidance: of these rows; None: rewards are added as they are.
            rewards: from (B, C) candidates and their log-probabilities to their rewards (B, C).
        """
        logits = logits[:, : self.shared_tokens]
        if self.processors:  # they see each row alone, without padding
            processed = []
            for row, answer, row_logits in zip(rows, answers, logits, strict=True):
                tokens = torch.cat([answer.new_tensor(self.prompts[row]), answer[answer >= 0]])
                processed.append(self.processors(tokens[None], row_logits[None]))
            logits = torch.cat(processed)
        candidates, log_probs = select_candidates(logits, self.candidates)
        found = rewards(candidates, log_probs).to(log_probs.device)
        if guidance is None:
            allowed = scores = log_probs + found
        else:
            found = withhold_repeats(found, log_probs, candidates, answers, self.reward_ngram)
            scores = guided_scores(log_probs, found, guidance.guidance_weight)
            possible = plausible(log_probs, self.plausibility, guidance.guidance_weight)
            allowed = scores.masked_fill(~possible, -torch.inf)
        tokens = self.sampler.choose(candidates, allowed, rows, (answers >= 0).sum(1).tolist())
        return Step(rows, tokens, candidates, log_probs, scores)


def collect(count: int, steps: Iterator[Step]) -> list[list[int]]:
    """The answers that steps add up to: N lists of new tokens; a finished one ends with its end of sequence."""
    answers: list[list[int]] = [[] for _ in range(count)]
    for step in steps:
        for row, token in zip(step.rows, step.tokens.tolist(), strict=True):
            answers[row].append(token)
    return answers


@torch.inference_mode()
def decode_steps(request: Request) -> Iterator[Step]:
    """Answer a batch of prompts, one step for each new token."""
    rows = list(range(len(request.prompts)))
    strategy = request.strategy()
    answers = torch.zeros(len(rows), 0, dtype=torch.long, device=request.policy.device)
    while True:
        logits = request.policy.head(strategy.hidden)  # (B, V)
        step = request.step(rows, logits, answers, strategy.guidance, strategy.rewards)
        yield step
        tokens, answers = step.tokens, torch.cat([answers, step.tokens[:, None]], dim=1)
        length, full = answers.shape[1], strategy.full(tokens)
        left = [
            index
            for index, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True))
            if not (request.ends(row, token, length) or full[index])
        ]
        if not left:
            break
        if len(left) < len(rows):
            remaining = torch.tensor(left, device=tokens.device)
            rows, tokens, answers = [rows[index] for index in left], tokens[remaining], answers[remaining]
            strategy.keep(remaining)
        strategy.push(tokens)
