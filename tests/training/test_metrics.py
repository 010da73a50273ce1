"""Scores of preference pairs against the reward model's own, an answer at a time; shares and their intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.models.scoring import corpus_of
from pad_cli.preference import parse_preference
from pad_cli.records import PreferencePair, as_messages
from pad_cli.training import metrics
from pad_cli.training.hidden_cache import HiddenStateExtractor, build_hidden_cache
from pad_cli.training.metrics import (
    PairScores,
    measure,
    outcomes,
    preference_labels,
    rows_by_label,
    score_pairs,
    share_of,
    summarise,
)
from pad_cli.training.pair_table import PairTable, SequenceBook, tabulate
from pad_cli.training.token_rewards import TokenRewards

PAIRS = tuple(
    PreferencePair(as_messages(prompt), preference, chosen, rejected)
    for prompt, preference, chosen, rejected in (
        ("Hi", {"humorous": 1.0}, "Hello there.", "Yes?"),
        ("How do I bake?", {"formal": -1.0}, "Mix flour, then wait.", "Bake."),
        ("Why?", {"concise": 1.0, "formal": 0.5}, "So.", "Because it is so."),
        ("Why?", {"humorous": 1.0}, "So.", "So."),
        ("Hi", {"formal": -1.0}, "Yes?", "Hello there."),
    )
)
CALIBRATION = 0.7


class Task:
    """The pairs, cached for a reward model."""

    def __init__(self, model: PersonalizedRewardModel, directory: Path, exact: bool) -> None:
        self.model = model
        book = SequenceBook()
        self.table = tabulate(PAIRS, book)
        sequences, _ = book.tokenised(model.backbone.tokenizer, 64, 64)
        corpus = None if exact else corpus_of(sequences)
        reader = HiddenStateExtractor(model.backbone, None, torch.float32, corpus, 4)
        cache = build_hidden_cache(sequences, reader, directory)
        self.rewards = TokenRewards(cache, model.backbone.head, exact, False)

    def scores(self, table: PairTable | None = None, heads: PreferenceHeads | None = None) -> PairScores:
        table = table or self.table
        weights = table.weights(self.model.heads.names)
        return score_pairs(heads or self.model.heads, self.rewards, table, weights, CALIBRATION)


@pytest.fixture(params=[True, False], ids=["exact", "truncated"])
def task(request: pytest.FixtureRequest, reward_model: PersonalizedRewardModel, tmp_path: Path) -> Task:
    return Task(reward_model, tmp_path, request.param)


@pytest.fixture
def exact(reward_model: PersonalizedRewardModel, tmp_path: Path) -> Task:
    return Task(reward_model, tmp_path, True)


def close(ours: PairScores, theirs: PairScores) -> None:
    for name, values in vars(ours).items():
        torch.testing.assert_close(values, getattr(theirs, name), atol=1e-4, rtol=1e-4)


def test_summed_rewards_are_those_of_the_reward_model(exact: Task) -> None:
    scores = exact.scores()
    for row, pair in enumerate(PAIRS):
        specs = [f"{name}={weight}" for name, weight in pair.preference.items()]
        for answer, found in ((pair.chosen, scores.chosen[row]), (pair.rejected, scores.rejected[row])):
            rewards = exact.model.token_rewards(pair.prompt, answer, exact.model.preference(specs))
            assert found.item() == pytest.approx(rewards.sum().item(), abs=1e-3)


def test_the_guided_likelihood_is_that_of_the_policy_with_its_logits_moved_by_calibrated_rewards(exact: Task) -> None:
    backbone, heads = exact.model.backbone, exact.model.heads
    scores = exact.scores()
    for row, pair in enumerate(PAIRS):
        prompt = encode_prompt(backbone.tokenizer, pair.prompt)
        answer = encode_answer(backbone.tokenizer, pair.chosen)
        tokens = torch.tensor([[*prompt, *answer[:-1]]])
        with torch.inference_mode():
            hidden = backbone.hidden_states(tokens, torch.ones_like(tokens))[0, len(prompt) - 1 :]
            weights = exact.table.weights(heads.names)[row].expand(len(answer), -1)
            plain, moved = backbone.head(hidden), backbone.head(hidden + heads(hidden, weights))
        guided = (plain + CALIBRATION * (moved.log_softmax(-1) - plain.log_softmax(-1))).log_softmax(-1)
        expected = sum(guided[step, token].item() for step, token in enumerate(answer)) / len(answer)
        assert scores.chosen_guided[row].item() == pytest.approx(expected, abs=1e-4)


def test_lengths_are_the_answers_tokens(task: Task) -> None:
    scores, tokenizer = task.scores(), task.model.backbone.tokenizer
    assert scores.chosen_tokens.tolist() == [len(encode_answer(tokenizer, pair.chosen)) for pair in PAIRS]
    assert scores.rejected_tokens.tolist() == [len(encode_answer(tokenizer, pair.rejected)) for pair in PAIRS]


def test_a_batch_scores_as_its_pairs_do_one_at_a_time(task: Task) -> None:
    singles = [task.scores(task.table.rows([row])) for row in range(len(PAIRS))]
    joined = PairScores(*(torch.cat(values) for values in zip(*(vars(one).values() for one in singles), strict=True)))
    close(task.scores(), joined)
    close(task.scores().at([2, 0]), task.scores(task.table.rows([2, 0])))


def test_pieces_do_not_change_scores(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = task.scores()
    monkeypatch.setattr(metrics, "_CHUNK", 2)
    monkeypatch.setattr(metrics, "_CHUNK_TOKENS", 3)
    close(task.scores(), whole)


def test_swapped_pairs_have_the_opposite_metrics(task: Task) -> None:
    swapped = PairTable(task.table.rejected, task.table.chosen, task.table.preferences, task.table.texts)
    ours, theirs = (summarise(each.margins, each.guided_margins) for each in (task.scores(), task.scores(swapped)))
    assert ours["pair_accuracy"] + theirs["pair_accuracy"] == pytest.approx(1)
    assert ours["policy_accuracy"] + theirs["policy_accuracy"] == pytest.approx(1)
    assert ours["margin"] == pytest.approx(-theirs["margin"], abs=1e-4)


def test_heads_that_reward_nothing_win_half_by_ties_and_guide_as_the_policy_does(task: Task) -> None:
    nothing = PreferenceHeads(task.model.heads.names, task.model.backbone.hidden_size, 2)
    scores = task.scores(heads=nothing)
    assert summarise(scores.margins, scores.guided_margins)["pair_accuracy"] == 0.5
    assert not scores.margins.any()
    assert scores.chosen_guided.tolist() != scores.rejected_guided.tolist()


def test_two_equal_answers_tie(task: Task) -> None:
    assert outcomes(task.scores().margins)[3] == 0.5
    assert outcomes(torch.tensor([2.0, -0.1, 0.0])).tolist() == [1, 0, 0.5]


def test_measure_summarises_the_scores(task: Task) -> None:
    weights = task.table.weights(task.model.heads.names)
    found = measure(task.model.heads, task.rewards, task.table, weights, CALIBRATION)
    scores = task.scores()
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in zip(scores.chosen, scores.rejected, strict=True))
    assert found["pairs"] == len(PAIRS)
    assert found["pair_accuracy"] == pytest.approx(wins / len(PAIRS), abs=1e-4)
    assert found["margin"] == pytest.approx((scores.chosen - scores.rejected).mean().item(), abs=1e-4)
    assert list(found) == ["pairs", "pair_accuracy", "margin", "policy_accuracy"]


@pytest.mark.parametrize(("won", "n"), [(0, 7), (7, 7), (30, 40), (1, 1)])
def test_intervals_are_wilsons(won: int, n: int) -> None:
    """Against the formula (Wilson 1927), z = 1.96."""
    share, z = share_of(torch.tensor([1.0] * won + [0.0] * (n - won))), 1.959964
    p = won / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    assert (share.value, share.n) == (round(p, 4), n)
    assert (share.low, share.high) == pytest.approx((middle - half, middle + half), abs=1e-4)


def test_the_interval_of_an_odd_tie_spans_both_ways_to_count_it() -> None:
    lost, tied, won = (share_of(torch.tensor([1.0, 1.0, 0.0, last])) for last in (0.0, 0.5, 1.0))
    assert (tied.low, tied.high) == (lost.low, won.high)
    assert tied.value == 0.625


def test_shares_by_label_make_up_the_whole() -> None:
    won, labels = torch.tensor([1.0, 0.0, 0.5, 1.0, 1.0]), ["b", "a", "a", "b", "c"]
    parts = {label: share_of(won[rows]) for label, rows in rows_by_label(labels).items()}
    assert list(parts) == ["a", "b", "c"]
    assert sum(part.value * part.n for part in parts.values()) == pytest.approx(won.sum().item())
    assert (parts["a"].value, parts["a"].n) == (0.25, 2)


def test_a_label_names_a_preference_whatever_its_order_and_can_be_typed() -> None:
    both: list[dict[str, Any]] = [{"formal": -1.0, "concise": 0.5}, {"concise": 0.5, "formal": -1.0}]
    numbers = torch.zeros(2, dtype=torch.long)
    first, second = preference_labels(PairTable(numbers, numbers, tuple(both), ({}, {})))
    assert first == second
    assert parse_preference([first], ["formal", "concise"], accepts_text=False).weights == both[0]
