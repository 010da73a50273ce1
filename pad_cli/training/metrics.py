"""How good a reward model is on preference pairs, and what else it has learned: length, alike heads.

pair_accuracy    share of pairs whose chosen answer has the higher summed reward
margin           mean difference of the sums, nats
policy_accuracy  share of pairs whose chosen answer the guided distribution finds likelier, per token, at guidance
                 weight 1; unlike pair accuracy it predicts steering (arXiv 2512.23067)

Ties count half. Intervals are Wilson's, 95 %; they take pairs as independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from scipy.stats import binomtest, spearmanr

from pad_cli.equation import answer_sums, guided_log_probs, pick, token_reward
from pad_cli.models.heads import PreferenceHeads
from pad_cli.preference import Preference
from pad_cli.system.progress import bar
from pad_cli.training.pair_table import PairTable
from pad_cli.training.token_rewards import TokenRewards

_LEVEL = 0.05  # a difference with a larger p is no difference
_CHUNK = 64  # pairs
_CHUNK_TOKENS = 2048  # tokens whose logits are held at once
_DIGITS = 4
_MOMENT_PAIRS = 300
_PREFERENCES = 64  # of a split that have figures each

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Those of `margin_quantiles`."""

Split = tuple[str, PairTable, torch.Tensor]
"""A validation split: name, N pairs, and their (N, K) weights."""


@dataclass(frozen=True)
class PairScores:
    """What a reward model says of N preference pairs, (N,) each."""

    chosen: torch.Tensor  # summed token rewards of the answers, nats
    rejected: torch.Tensor
    chosen_guided: torch.Tensor  # log-likelihoods under the guided distribution, nats a token
    rejected_guided: torch.Tensor
    chosen_tokens: torch.Tensor  # lengths of the answers as the model read them
    rejected_tokens: torch.Tensor

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def margins(self) -> torch.Tensor:
        """(N,) differences of the summed rewards, nats."""
        return self.chosen - self.rejected

    @property
    def guided_margins(self) -> torch.Tensor:
        """(N,) differences of the guided log-likelihoods, nats a token."""
        return self.chosen_guided - self.rejected_guided

    def at(self, rows: Sequence[int]) -> PairScores:
        """The scores of some pairs."""
        return PairScores(*(values[torch.tensor(rows)] for values in vars(self).values()))


@dataclass(frozen=True)
class Share:
    """A share of n pairs, ties half, with the ends of its 95 % Wilson interval."""

    value: float
    n: int
    low: float
    high: float


@torch.inference_mode()
def score_pairs(
    heads: PreferenceHeads,
    rewards: TokenRewards,
    pairs: PairTable,
    weights: torch.Tensor,
    calibration: float,
    *,
    title: str | None = None,
) -> PairScores:
    """Score N pairs under the (N, K) weights of their preferences.

    `calibration` is what guidance weight 1 multiplies rewards by.
    """
    parts = []
    with bar(title or "", total=len(pairs) if title else 0) as progress:
        for start in range(0, len(pairs), _CHUNK):
            batch = torch.arange(start, min(start + _CHUNK, len(pairs)))
            answers = pairs.answers(batch)
            positions, owners = rewards.cache.positions(answers)
            rows = weights[batch].repeat(2, 1)[owners]
            pieces = zip(positions.split(_CHUNK_TOKENS), rows.split(_CHUNK_TOKENS), strict=True)
            tokens = torch.cat([_token_scores(heads, rewards, *piece, calibration) for piece in pieces])  # (T, 2)
            lengths = torch.bincount(owners, minlength=len(answers))
            sums = answer_sums(tokens, owners, len(answers))
            parts.append(torch.stack([sums[:, 0], sums[:, 1] / lengths, lengths.float()]).view(3, 2, -1))
            progress.advance(len(batch))
    table = torch.cat(parts, dim=-1)
    return PairScores(*table[:2].flatten(0, 1), *table[2].long())


def _token_scores(
    heads: PreferenceHeads, rewards: TokenRewards, positions: torch.Tensor, weights: torch.Tensor, calibration: float
) -> torch.Tensor:
    """(T, 2): the reward of each realised token, and its guided log-probability at guidance weight 1."""
    reference, personalised, realised = rewards.logits(heads, positions, weights)
    change = (personalised - reference).masked_fill(reference == -torch.inf, 0)  # the reward, up to a constant
    guided = guided_log_probs(reference, change, calibration)
    return torch.stack([token_reward(personalised, reference, realised), pick(guided, realised)], dim=1)


def measure(
    heads: PreferenceHeads, rewards: TokenRewards, pairs: PairTable, weights: torch.Tensor, calibration: float
) -> dict[str, Any]:
    """Metrics of one split; arguments as in `score_pairs`."""
    scores = score_pairs(heads, rewards, pairs, weights, calibration)
    return summarise(scores.margins, scores.guided_margins)


def summarise(margins: torch.Tensor, guided_margins: torch.Tensor) -> dict[str, Any]:
    """The metrics of this module's heading, and the number of pairs, from two (N,) margins; see `PairScores`."""
    return {
        "pairs": len(margins),
        "pair_accuracy": round(outcomes(margins).mean().item(), _DIGITS),
        "margin": round(margins.mean().item(), _DIGITS),
        "policy_accuracy": round(outcomes(guided_margins).mean().item(), _DIGITS),
    }


def outcomes(margins: torch.Tensor) -> torch.Tensor:
    """(N,) margins of chosen over rejected to (N,) outcomes: 1 won, 0 lost, one half a tie."""
    return (margins.sign() + 1) / 2


def share_of(won: torch.Tensor) -> Share:
    """The mean of (N,) outcomes with its interval.

    An odd tie belongs to neither side: the interval then spans those of both.
    """
    total = won.double().sum().item()
    low, high = (
        binomtest(whole, len(won)).proportion_ci(method="wilson") for whole in (math.floor(total), math.ceil(total))
    )
    return Share(
        round(total / len(won), _DIGITS), len(won), round(float(low.low), _DIGITS), round(float(high.high), _DIGITS)
    )


def rows_by_label(labels: Sequence[str]) -> dict[str, list[int]]:
    """Label to its rows, in alphabetical order."""
    rows: dict[str, list[int]] = {label: [] for label in sorted(set(labels))}
    for row, label in enumerate(labels):
        rows[label].append(row)
    return rows


def preference_labels(pairs: PairTable) -> list[str]:
    """The preferences of N pairs as `Preference.describe` words them, whatever the order of their names."""
    asked = [{**names, **texts} for names, texts in zip(pairs.preferences, pairs.texts, strict=True)]
    return [Preference(dict(sorted(weights.items())), {}).describe() for weights in asked]


@dataclass(frozen=True)
class Verdict:
    """Is a reward model better than a baseline on the same pairs?"""

    words: Literal["beats", "does not beat", "is worse than"]  # `does not beat` where they cannot be told apart
    difference: float  # of the pair accuracies, the reward model's less the baseline's
    p: float  # of McNemar's exact test


def verdict(model: torch.Tensor, baseline: torch.Tensor) -> Verdict:
    """McNemar's exact test: among the pairs on which the two differ, does either win more than half?

    `model` and `baseline` are (N,) `outcomes` on the same pairs; a tie against a win is a difference too.
    """
    better, worse = int((model > baseline).sum()), int((model < baseline).sum())
    p = float(binomtest(better, better + worse).pvalue) if better + worse else 1.0
    difference = round((model.double().mean() - baseline.double().mean()).item(), 4)
    words: Literal["beats", "does not beat", "is worse than"] = "does not beat"
    if p < _LEVEL:
        words = "beats" if better > worse else "is worse than"
    return Verdict(words, difference, float(f"{p:.3g}"))


@dataclass(frozen=True)
class LengthEffect:
    """How the reward goes with the answers' lengths.

    The correlation takes each pair both ways round, so that it does not matter which answer is called the chosen one.
    """

    correlation: float | None  # Spearman's, of the differences in reward and in tokens; None where one is always 0
    labels: float | None  # share of the pairs of unequal length in which the longer answer is chosen; None without any
    rewards: float | None  # share of the same pairs in which the longer answer has the higher reward


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
    values = margins.double().quantile(torch.tensor(QUANTILES, dtype=torch.double))
    return tuple(round(value, _DIGITS) for value in values.tolist())


def split_figures(
    name: str, scores: PairScores, labels: Sequence[str], baselines: Mapping[str, torch.Tensor]
) -> dict[str, Any]:
    """All figures of one split of N pairs, for `report.json`; shares are of pairs that are right.

    Args:
        labels: N preferences, as from `preference_labels`.
        baselines: name to the (N,) margins of a baseline on the same pairs, at least one.
    """
    won, guided = outcomes(scores.margins), outcomes(scores.guided_margins)
    theirs = {baseline: outcomes(margins) for baseline, margins in baselines.items()}
    groups = sorted(rows_by_label(labels).items(), key=lambda group: -len(group[1]))
    return {
        "name": name,
        "metrics": summarise(scores.margins, scores.guided_margins),
        "pair_accuracy": share_of(won),
        "policy_accuracy": share_of(guided),
        "preferences": [  # the most frequent ones first
            {
                "label": label,
                "pair_accuracy": share_of(won[rows]),
                "policy_accuracy": share_of(guided[rows]),
                "length": length_effect(scores.at(rows)),
                "baselines": {baseline: share_of(other[rows]).value for baseline, other in theirs.items()},
            }
            for label, rows in groups[:_PREFERENCES]
        ],
        "more_preferences": max(len(groups) - _PREFERENCES, 0),  # further ones, without figures
        "baselines": [
            {"name": baseline, "pair_accuracy": share_of(other), "verdict": verdict(won, other)}
            for baseline, other in theirs.items()
        ],
        "quantiles": margin_quantiles(scores.margins),
        "length": length_effect(scores),
    }


@dataclass(frozen=True)
class HeadGeometry:
    """The K heads B_k A_k as (H, H) matrices: names, Frobenius norms, cosines (0 for a head that is zero)."""

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


def pair_moments(heads: PreferenceHeads, rewards: TokenRewards, pairs: PairTable) -> list[list[float]]:
    """(K, K) second moments of the pairs' margins, each principle alone, nats squared; for `pad learn`.

        M_kl = mean over pairs of d_k d_l,   d_k = R(e_k, chosen) - R(e_k, rejected)

    Moments about 0, since which answer was chosen is a question of the pair's preference; of a few hundred pairs.
    """
    drawn = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0))[:_MOMENT_PAIRS]
    table, margins = pairs.rows(drawn.tolist()), []
    with bar("Comparing heads", total=len(heads.names)) as progress:
        for weights in torch.eye(len(heads.names)):
            margins.append(score_pairs(heads, rewards, table, weights.expand(len(drawn), -1), 1.0).margins)
            progress.advance()
    table_of_margins = torch.stack(margins, dim=1).double()
    moments = table_of_margins.T @ table_of_margins / len(table_of_margins)
    return [[round(value, _DIGITS) for value in row] for row in moments.tolist()]
