"""From guided scores to a token: the best candidate, or a draw whose stream belongs to its row alone.

Each row has its own stream of random numbers, so a row's answer does not depend on which rows it is decoded with.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper


class Chooser:
    """Picks one candidate per row.

    Args:
        temperature: 0 for the best candidate.
        top_p: mass of the likeliest candidates to draw from.
        streams: one random stream a row.
    """

    def __init__(self, temperature: float, top_p: float, streams: Sequence[random.Random]) -> None:
        self._streams = list(streams)
        self._greedy = temperature == 0
        self._warpers = LogitsProcessorList()
        if not self._greedy and temperature != 1:
            self._warpers.append(TemperatureLogitsWarper(temperature))
        if not self._greedy and top_p < 1:
            self._warpers.append(TopPLogitsWarper(top_p))

    def choose(self, scores: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Positions (B,) among the candidates; `scores` (B, C) belongs to the streams numbered by `rows`."""
        if self._greedy:
            return scores.argmax(-1)
        probabilities = self._warpers(None, scores).softmax(-1)
        draws = torch.tensor([self._streams[row].random() for row in rows], device=scores.device)
        passed = probabilities.cumsum(-1) < draws[:, None]
        last_possible = (probabilities > 0).cumsum(-1).argmax(-1)
        return torch.minimum(passed.sum(-1), last_possible)
