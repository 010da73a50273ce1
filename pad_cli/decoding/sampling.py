"""From guided scores to a token: the best candidate, or a draw whose stream belongs to its row alone.

Each row has its own stream of random numbers, and each of its tokens one number of that stream. So a row's answer
depends neither on the rows it is decoded with nor on how often a token is proposed before it is written.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

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

from pad_cli.recipe import DecodingSettings


def policy_processors(settings: DecodingSettings) -> LogitsProcessorList:
    """transformers' repetition controls, which act on the policy's logits before candidates are taken."""
    processors = LogitsProcessorList()
    if settings.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
    if settings.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram_size))
    return processors


class Chooser:
    """Picks one candidate per row.

    Args:
        settings: temperature (0 for the best candidate), top_k, top_p, min_p.
        streams: one random stream a row.

    Attributes:
        greedy: nothing is drawn, the best candidate is taken.
    """

    def __init__(self, settings: DecodingSettings, streams: Sequence[random.Random]) -> None:
        self._streams = list(streams)
        self._drawn: list[list[float]] = [[] for _ in self._streams]
        self.greedy = settings.temperature == 0
        self._warpers = LogitsProcessorList()
        if not self.greedy and settings.temperature != 1:
            self._warpers.append(TemperatureLogitsWarper(settings.temperature))
        if settings.top_k:
            self._warpers.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            self._warpers.append(TopPLogitsWarper(settings.top_p))
        if settings.min_p > 0:
            self._warpers.append(MinPLogitsWarper(settings.min_p))

    def choose(self, scores: torch.Tensor, rows: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Choose a candidate in each of B rows.

        Args:
            scores: (B, C) guided scores.
            rows: B numbers of streams.
            positions: for each row how many tokens its answer has already.

        Returns:
            (B,) positions among the candidates.
        """
        if self.greedy:
            return scores.argmax(-1)
        probabilities = self._warpers(None, scores).softmax(-1)
        draws = [self._draw(row, position) for row, position in zip(rows, positions, strict=True)]
        passed = probabilities.cumsum(-1) < torch.tensor(draws, device=scores.device)[:, None]
        last_possible = (probabilities > 0).cumsum(-1).argmax(-1)
        return torch.minimum(passed.sum(-1), last_possible)

    def _draw(self, row: int, position: int) -> float:
        drawn = self._drawn[row]
        while len(drawn) <= position:
            drawn.append(self._streams[row].random())
        return drawn[position]
