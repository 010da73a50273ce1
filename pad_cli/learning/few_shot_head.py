"""One preference head from a handful of pairs.

A head of rank r has thousands of parameters, and twenty pairs determine few of them: trained as in stage `heads`, it
overfits. What a few pairs determine well is one direction of states and one of tokens, B_m A_m of rank one. So the
head is the mean of r such maps, each trained from its own random A, which keeps what they agree on:

    B A h = 1/r sum_m B_m A_m h

The loss is that of the other heads with a heavy likelihood anchor: the chosen answers are to become likelier, not the
rejected ones less likely, which differ from them in many ways that have nothing to do with the principle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from sklearn.model_selection import GroupKFold

from pad_cli.equation import LogitHead, answer_sums, log_prob, preference_loss
from pad_cli.errors import TrainingError
from pad_cli.models.heads import PreferenceHeads
from pad_cli.training.hidden_cache import HiddenCache
from pad_cli.training.loop import learning_rate
from pad_cli.training.pair_table import PairTable

STEPS, WARMUP, LEARNING_RATE = 40, 5, 0.01  # of AdamW, on a cosine after the warm-up
BETA = 0.5  # the loss temperature
ANCHOR = 1.0  # weight of the likelihood anchor
FOLDS = 5  # of the cross-validation
_SEED = 0  # of the random A
SETTINGS = {"steps": STEPS, "learning_rate": LEARNING_RATE, "beta": BETA, "anchor": ANCHOR, "folds": FOLDS}
"""What the record of a version says of its training, all pairs being in every step."""


class Examples:
    """N pairs as tensors that do not change while a head is trained: T answer tokens, 1 + C candidates each.

    Args:
        cache: of the pairs' answers, read with a truncated normaliser.
        prompts: N numbers, equal for equal prompts.
        head: the backbone's unembedding, float32, on the CPU.
        adapted: was the cache read through an adapter?
    """

    def __init__(
        self, cache: HiddenCache, pairs: PairTable, prompts: Sequence[int], head: LogitHead, *, adapted: bool
    ) -> None:
        self.chosen, self.rejected, self.prompts = pairs.chosen, pairs.rejected, tuple(prompts)
        positions, self._owners = cache.positions(torch.arange(len(cache.lengths)))
        self._answers = len(cache.lengths)
        self.hidden = cache.gather("hidden", positions).float()  # (T, H)
        used, self._where = torch.unique(cache.gather("candidates", positions).long(), return_inverse=True)
        self._rows = head.rows(used)
        raw = cache.gather("raw", positions)
        self._duplicate = raw == -torch.inf  # the realised token among the candidates
        self._moved = cache.gather("adapted", positions) if adapted else raw  # (T, 1 + C)
        self._reference = self._realised(raw)

    def __len__(self) -> int:
        return len(self.chosen)

    def answer_rewards(self, maps: RankOneMaps) -> torch.Tensor:
        """(M, S) summed token rewards of the S answers under M maps of rank one, nats."""
        narrow = (self.hidden @ maps.down.T).T  # (M, T)
        tokens = maps.up @ self._rows.weight.T  # (M, U)
        logits = self._moved + tokens[:, self._where] * narrow[:, :, None]  # (M, T, 1 + C)
        rewards = self._realised(logits) - self._reference
        return answer_sums(rewards.T, self._owners, self._answers).T

    def _realised(self, raw: torch.Tensor) -> torch.Tensor:
        """(..., T, 1 + C) logits before scale and cap to the (..., T) log-probabilities of the answers' tokens."""
        logits = self._rows.finish(raw).masked_fill(self._duplicate, -torch.inf)
        return log_prob(logits, torch.zeros(logits.shape[:-1], dtype=torch.long))


class RankOneMaps(NamedTuple):
    """M maps B_m A_m of rank one."""

    down: torch.Tensor  # (M, H), the A_m
    up: torch.Tensor  # (M, H), the B_m

    def as_head(self, name: str) -> PreferenceHeads:
        """Their mean, as one head of rank M."""
        head = PreferenceHeads([name], self.down.shape[1], len(self.down)).requires_grad_(False)
        head.down.copy_(self.down[None])
        head.up.copy_(self.up.T[None] / len(self.up))
        return head


def train_maps(examples: Examples, rows: Sequence[int], rank: int) -> RankOneMaps:
    """Train `rank` maps side by side on the pairs in `rows`.

    Raises:
        TrainingError: the loss is not a number.
    """
    generator = torch.Generator().manual_seed(_SEED)
    size = examples.hidden.shape[1]
    down = (torch.randn(rank, size, generator=generator) / size**0.5).requires_grad_()
    maps = RankOneMaps(down, torch.zeros(rank, size, requires_grad=True))
    optimiser = torch.optim.AdamW(maps, LEARNING_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: learning_rate(step, WARMUP, STEPS, from_zero=False)
    )
    chosen, rejected = (side[list(rows)] for side in (examples.chosen, examples.rejected))
    for step in range(STEPS):
        sums = examples.answer_rewards(maps)  # (M, S)
        mean = preference_loss(sums[:, chosen], sums[:, rejected], beta=BETA, anchor=ANCHOR)
        loss = len(sums) * mean  # which is over maps too, but each learns alone
        if not torch.isfinite(loss):
            raise TrainingError(f"The loss is {loss.item()} at step {step + 1} of {STEPS}.", "Check the examples.")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return RankOneMaps(*(each.detach() for each in maps))


def cross_validated_margins(examples: Examples, rank: int) -> torch.Tensor:
    """(N,) margins of the pairs, nats, each under a head that was trained without it.

    Pairs of one prompt are held out together, unless all have the same. The reward of a mean of maps is taken for the
    mean of their rewards, which it is to first order.
    """
    margins = torch.zeros(len(examples))
    prompts = examples.prompts if len(set(examples.prompts)) > 1 else range(len(examples))
    folds = GroupKFold(min(FOLDS, len(set(prompts))))
    for rest, held in folds.split(prompts, groups=prompts):
        maps = train_maps(examples, rest.tolist(), rank)
        with torch.no_grad():
            sums = examples.answer_rewards(maps).mean(0)
        margins[held] = (sums[examples.chosen] - sums[examples.rejected])[held]
    return margins
