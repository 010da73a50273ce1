"""How good a reward model is on preference pairs.

pair_accuracy    share of pairs whose chosen answer has the higher summed reward
margin           mean difference of the sums, nats
policy_accuracy  share of pairs whose chosen answer the guided distribution finds likelier, per token, at guidance
                 weight 1; unlike pair accuracy it predicts steering (arXiv 2512.23067)

Ties count half. Intervals are Wilson's, 95 %; they take pairs as independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from torch import nn

from pad_cli.equation import answer_sums, guided_log_probs, pick, token_reward
from pad_cli.preference import Preference
from pad_cli.system.progress import Bar, bar
from pad_cli.training.pair_table import PairTable
from pad_cli.training.token_rewards import TokenRewards

_CHUNK = 64  # pairs
_CHUNK_TOKENS = 2048  # tokens whose logits are held at once
_DIGITS = 4


@dataclass(frozen=True)
class PairScores:
    """What a reward model says of N preference pairs.

    Attributes:
        chosen: (N,) summed token rewards of the chosen answers, nats.
        rejected: (N,), of the rejected ones.
        chosen_guided: (N,) log-likelihood of the chosen answers under the guided distribution, nats a token.
        rejected_guided: (N,), of the rejected ones.
        chosen_tokens: (N,) lengths of the chosen answers as the model read them.
        rejected_tokens: (N,), of the rejected ones.
    """

    chosen: torch.Tensor
    rejected: torch.Tensor
    chosen_guided: torch.Tensor
    rejected_guided: torch.Tensor
    chosen_tokens: torch.Tensor
    rejected_tokens: torch.Tensor

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def margins(self) -> torch.Tensor:
        """(N,) differences of the summed rewards, nats."""
        return self.chosen - self.rejected

    def margins_per_token(self) -> torch.Tensor:
        """(N,) differences of the mean token rewards, nats: what a length-normalised loss compares."""
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens

    @property
    def guided_margins(self) -> torch.Tensor:
        """(N,) differences of the guided log-likelihoods, nats a token."""
        return self.chosen_guided - self.rejected_guided

    def at(self, rows: Sequence[int]) -> PairScores:
        """The scores of some pairs."""
        return PairScores(*(values[torch.tensor(rows)] for values in vars(self).values()))


@dataclass(frozen=True)
class Share:
    """A share of n pairs, ties half, with its 95 % Wilson interval.

    Attributes:
        value: between 0 and 1.
        n: pairs.
        low: lower end of the interval.
        high: upper end.
    """

    value: float
    n: int
    low: float
    high: float


@torch.inference_mode()
def score_pairs(
    heads: nn.Module,
    rewards: TokenRewards,
    pairs: PairTable,
    weights: torch.Tensor,
    calibration: float,
    *,
    title: str | None = None,
) -> PairScores:
    """Score every pair of a split.

    Args:
        heads: the preference heads, or another map of (T, H) states and (T, K) weights to (T, H).
        rewards: over the split's cache.
        pairs: N pairs.
        weights: (N, K), their preferences' weights.
        calibration: what guidance weight 1 multiplies rewards by.
        title: under which progress is shown; without one there is none.
    """
    parts = []
    with bar(title, total=len(pairs)) if title else nullcontext(Bar()) as progress:
        for start in range(0, len(pairs), _CHUNK):
            batch = torch.arange(start, min(start + _CHUNK, len(pairs)))
            answers = torch.cat([pairs.chosen[batch], pairs.rejected[batch]])
            positions, owners = rewards.cache.positions(answers)
            rows = torch.cat([weights[batch], weights[batch]])[owners]
            pieces = zip(positions.split(_CHUNK_TOKENS), rows.split(_CHUNK_TOKENS), strict=True)
            tokens = torch.cat([_token_scores(heads, rewards, *piece, calibration) for piece in pieces])  # (T, 2)
            lengths = torch.bincount(owners, minlength=len(answers))
            sums = answer_sums(tokens, owners, len(answers))
            parts.append(torch.stack([sums[:, 0], sums[:, 1] / lengths, lengths.float()]).view(3, 2, -1))
            progress.advance(len(batch))
    table = torch.cat(parts, dim=-1)
    return PairScores(*table[:2].flatten(0, 1), *table[2].long())


def _token_scores(
    heads: nn.Module,
    rewards: TokenRewards,
    positions: torch.Tensor,
    weights: torch.Tensor,
    calibration: float,
) -> torch.Tensor:
    """(T, 2): the reward of each realised token, and its guided log-probability at guidance weight 1."""
    reference, personalised, realised = rewards.logits(heads, positions, weights)
    change = (personalised - reference).masked_fill(reference == -torch.inf, 0)  # the reward, up to a constant
    guided = guided_log_probs(reference, change, calibration)
    return torch.stack([token_reward(personalised, reference, realised), pick(guided, realised)], dim=1)


def measure(
    heads: nn.Module,
    rewards: TokenRewards,
    pairs: PairTable,
    weights: torch.Tensor,
    calibration: float,
) -> dict[str, float]:
    """Metrics of one split; arguments as in `score_pairs`."""
    return summarise(score_pairs(heads, rewards, pairs, weights, calibration))


def summarise(scores: PairScores) -> dict[str, float]:
    """The metrics of this module's heading, and the number of pairs."""
    return {
        "pairs": len(scores),
        "pair_accuracy": round(outcomes(scores.margins).mean().item(), _DIGITS),
        "margin": round(scores.margins.mean().item(), _DIGITS),
        "policy_accuracy": round(outcomes(scores.guided_margins).mean().item(), _DIGITS),
    }


def outcomes(margins: torch.Tensor) -> torch.Tensor:
    """(N,) margins of chosen over rejected to (N,) outcomes: 1 won, 0 lost, one half a tie."""
    return (margins.sign() + 1) / 2


def share_of(won: torch.Tensor) -> Share:
    """The mean of (N,) outcomes with its interval.

    An odd tie belongs to neither side: the interval then spans those of both.
    """
    total = won.double().sum().item()
    low, _ = _wilson(math.floor(total), len(won))
    _, high = _wilson(math.ceil(total), len(won))
    return Share(round(total / len(won), _DIGITS), len(won), round(low, _DIGITS), round(high, _DIGITS))


def rows_by_label(labels: Sequence[str]) -> dict[str, list[int]]:
    """Label to its rows, in alphabetical order."""
    rows: dict[str, list[int]] = {label: [] for label in sorted(set(labels))}
    for row, label in enumerate(labels):
        rows[label].append(row)
    return rows


def preference_labels(preferences: Sequence[Mapping[str, float]]) -> list[str]:
    """Maps of name to weight as `Preference.describe` words them, whatever the order of their names."""
    return [Preference(dict(sorted(weights.items())), {}).describe() for weights in preferences]


def _wilson(won: int, n: int) -> tuple[float, float]:
    interval = binomtest(won, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
