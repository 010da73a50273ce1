"""What a reward model has learned besides its task: length, overconfidence, heads that fight, its training pairs.

Every function takes numbers that are there already; none looks at a text or runs a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from scipy.stats import spearmanr

from pad_cli.models.heads import PreferenceHeads
from pad_cli.training.metrics import PairScores, Share, outcomes, share_of

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Those of `margin_quantiles`."""

_BINS = 10
_DIGITS = 4


@dataclass(frozen=True)
class LengthEffect:
    """How the reward goes with the answers' lengths.

    Attributes:
        correlation: Spearman's, of the difference in summed reward with the difference in tokens, each pair taken both
            ways round, so that it does not matter which answer is called the chosen one; None where a difference never
            changes.
        labels: share of the pairs of unequal length in which the longer answer is the chosen one; None without any.
        rewards: share of the same pairs in which the longer answer has the higher reward.
    """

    correlation: float | None
    labels: float | None
    rewards: float | None


def length_effect(scores: PairScores) -> LengthEffect:
    """The length effect of N scored pairs."""
    margins, longer = scores.margins, scores.chosen_tokens - scores.rejected_tokens
    uneven = longer != 0
    if not uneven.any():
        return LengthEffect(None, None, None)
    labels = (longer[uneven] > 0).double().mean().item()
    rewards = outcomes(margins * longer)[uneven].double().mean().item()
    correlation = None
    if margins.any():
        both = [torch.cat([values, -values]).numpy() for values in (margins, longer)]
        correlation = round(float(spearmanr(*both).statistic), _DIGITS)
    return LengthEffect(correlation, round(labels, _DIGITS), round(rewards, _DIGITS))


def margin_quantiles(margins: torch.Tensor) -> tuple[float, ...]:
    """The `QUANTILES` of (N,) margins, nats."""
    found = margins.double().quantile(torch.tensor(QUANTILES, dtype=torch.double))
    return tuple(round(value, _DIGITS) for value in found.tolist())


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs of similar confidence.

    Attributes:
        confidence: their mean confidence, from .5 to 1.
        accuracy: the share of them that is right.
    """

    confidence: float
    accuracy: Share


@dataclass(frozen=True)
class Reliability:
    """Is sigmoid(beta * margin) a probability?

    Attributes:
        beta: the loss temperature.
        bins: equally wide ranges of confidence; those without a pair are left out.
        error: expected calibration error, the mean distance of confidence and accuracy over pairs.
    """

    beta: float
    bins: tuple[ReliabilityBin, ...]
    error: float


def reliability(margins: torch.Tensor, beta: float) -> Reliability:
    """Confidence against accuracy (Guo et al. 2017, arXiv 1706.04599).

    Args:
        margins: (N,), nats, as the loss compares them.
        beta: the loss temperature: a model is sigmoid(beta * |margin|) sure of the answer that it prefers.
    """
    confidence = (beta * margins.double().abs()).sigmoid()
    numbers = ((confidence - 0.5) * 2 * _BINS).long().clamp(max=_BINS - 1)
    won = outcomes(margins)
    bins = [
        ReliabilityBin(round(confidence[members].mean().item(), _DIGITS), share_of(won[members]))
        for number in range(_BINS)
        if (members := numbers == number).any()
    ]
    error = sum(part.accuracy.n * abs(part.confidence - part.accuracy.value) for part in bins) / len(margins)
    return Reliability(beta, tuple(bins), round(error, _DIGITS))


@dataclass(frozen=True)
class HeadGeometry:
    """The heads B_k A_k as (H, H) matrices.

    Attributes:
        names: the K principles.
        norms: K Frobenius norms.
        cosines: K rows of K cosines; 0 for a head that is zero.
    """

    names: tuple[str, ...]
    norms: tuple[float, ...]
    cosines: tuple[tuple[float, ...], ...]


@torch.inference_mode()
def head_geometry(heads: PreferenceHeads) -> HeadGeometry:
    """Norms and cosines, from <B_1 A_1, B_2 A_2> = sum of (B_1^T B_2) * (A_1 A_2^T), which are (r, r)."""
    down, up = heads.down.double().cpu(), heads.up.double().cpu()
    wide = torch.einsum("khr,lhs->klrs", up, up)
    narrow = torch.einsum("krh,lsh->klrs", down, down)
    products = (wide * narrow).sum(dim=(-1, -2))  # (K, K)
    norms = products.diagonal().clamp(min=0).sqrt()
    cosines = torch.where(products == 0, 0, products / norms.outer(norms)).clamp(-1, 1)
    rows = tuple(tuple(round(value, _DIGITS) for value in row) for row in cosines.tolist())
    return HeadGeometry(heads.names, tuple(round(norm, _DIGITS) for norm in norms.tolist()), rows)


@dataclass(frozen=True)
class HistoryPoint:
    """One measurement during a stage.

    Attributes:
        step: optimiser steps so far.
        loss: mean training loss since the last measurement.
        splits: split to its metrics, as from `metrics.summarise`; empty where only the loss was taken.
        pair_accuracy: on the training batches since the last measurement, each before it was learned from.
    """

    step: int
    loss: float
    splits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pair_accuracy: float | None = None
