"""Diagnostics against what they stand for: dense matrices and symmetric pairs."""

from __future__ import annotations

import itertools

import pytest
import torch

from pad_cli.models.heads import PreferenceHeads
from pad_cli.reports.training_report import explain_length
from pad_cli.training.metrics import (
    QUANTILES,
    LengthEffect,
    PairScores,
    head_geometry,
    length_effect,
    margin_quantiles,
)

NAMES = ("humorous", "formal", "concise", "idle")


def scores_of(margins: list[float], lengths: list[tuple[int, int]]) -> PairScores:
    chosen, rejected = torch.tensor(lengths).T
    zeros = torch.zeros(len(margins))
    return PairScores(torch.tensor(margins), zeros, zeros, zeros, chosen, rejected)


def random_scores(seed: int, lean: float = 1.0) -> PairScores:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 40, (60, 2), generator=generator)
    noise = 10 * torch.randn(60, generator=generator)
    return scores_of((lean * (lengths[:, 0] - lengths[:, 1]) + noise).tolist(), lengths.tolist())


def swapped(scores: PairScores, rows: torch.Tensor) -> PairScores:
    first, second = ("chosen", "chosen_guided", "chosen_tokens"), ("rejected", "rejected_guided", "rejected_tokens")
    values = dict(vars(scores))
    for one, other in zip(first, second, strict=True):
        values[one], values[other] = values[one].where(~rows, values[other]), values[other].where(~rows, values[one])
    return PairScores(**values)


def test_the_length_correlation_does_not_depend_on_which_answer_is_the_chosen_one() -> None:
    scores = random_scores(seed=1)
    rows = torch.arange(60) % 3 == 0
    turned = swapped(scores, rows)
    assert turned.margins[0] == -scores.margins[0]
    assert length_effect(turned).correlation == length_effect(scores).correlation
    assert length_effect(turned).rewards == length_effect(scores).rewards
    assert length_effect(swapped(scores, torch.ones(60, dtype=torch.bool))).labels == pytest.approx(
        1 - (length_effect(scores).labels or 0)
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_a_reward_that_is_length_correlates_fully(sign: int) -> None:
    lengths = [(3, 9), (9, 1), (5, 4), (2, 2)]
    effect = length_effect(scores_of([sign * float(a - b) for a, b in lengths], lengths))
    assert effect == LengthEffect(sign, 0.6667, 1.0 if sign > 0 else 0.0)


def test_a_reward_that_ignores_length_hardly_correlates() -> None:
    found = length_effect(random_scores(seed=2, lean=0.0)).correlation
    assert found is not None
    assert abs(found) < 0.3


def test_where_nothing_differs_there_is_no_correlation() -> None:
    assert length_effect(scores_of([1.0, 2.0], [(4, 4), (7, 7)])) == LengthEffect(None, None, None)
    assert length_effect(scores_of([0.0, 0.0], [(4, 5), (7, 2)])) == LengthEffect(None, 0.5, 0.5)


@pytest.mark.parametrize(
    ("labels", "rewards", "words"),
    [(0.6, 0.8, "in 60% of the pairs and has the higher reward in 80%"), (None, None, "explains nothing")],
)
def test_a_length_effect_is_explained_by_the_labels(labels: float | None, rewards: float | None, words: str) -> None:
    assert words in explain_length({"labels": labels, "rewards": rewards})


def test_quantiles_are_values_below_which_that_share_of_margins_lies() -> None:
    margins = torch.arange(1001.0).flip(0)
    assert margin_quantiles(margins) == tuple(1000 * quantile for quantile in QUANTILES)


@pytest.fixture
def heads() -> PreferenceHeads:
    """Random, the last one zero."""
    made = PreferenceHeads(NAMES, hidden_size=24, rank=3, seed=1)
    with torch.no_grad():
        made.up[:3].normal_(generator=torch.Generator().manual_seed(2))
    return made


def test_norms_and_cosines_are_those_of_the_matrices(heads: PreferenceHeads) -> None:
    with torch.no_grad():
        matrices = (heads.up @ heads.down).flatten(1)
    geometry = head_geometry(heads)
    assert geometry.names == NAMES
    assert geometry.norms == pytest.approx(matrices.norm(dim=1).tolist(), abs=1e-3)
    for one, other in itertools.product(range(3), repeat=2):
        expected = torch.cosine_similarity(matrices[one], matrices[other], dim=0).item()
        assert geometry.cosines[one][other] == pytest.approx(expected, abs=1e-3)


def test_a_head_that_is_zero_is_at_right_angles_to_all(heads: PreferenceHeads) -> None:
    geometry = head_geometry(heads)
    assert geometry.norms[3] == 0
    assert geometry.cosines[3] == (0, 0, 0, 0)


def test_heads_that_copy_or_negate_each_other_are_found(heads: PreferenceHeads) -> None:
    with torch.no_grad():
        for copy, sign in ((1, -2.0), (3, 0.5)):
            heads.up[copy], heads.down[copy] = sign * heads.up[0], heads.down[0]
    geometry = head_geometry(heads)
    cosines = {(one, other): geometry.cosines[i][j] for i, one in enumerate(NAMES) for j, other in enumerate(NAMES)}
    assert (cosines["humorous", "formal"], cosines["humorous", "idle"]) == (-1.0, 1.0)
    assert geometry.norms[1] == pytest.approx(2 * geometry.norms[0], abs=1e-3)
