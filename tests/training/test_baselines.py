"""The baselines learn what they are said to learn and nothing else; verdicts are McNemar's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from pad_cli.models.prompts import decode_answers
from pad_cli.records import PreferencePair, as_messages
from pad_cli.training.baselines import Margins, fit_baselines
from pad_cli.training.metrics import outcomes, verdict
from pad_cli.training.pair_table import PairTable, SequenceBook, tabulate

JOLLY, GRAVE, NEUTRAL = ["laugh", "grin", "joke"], ["duty", "order", "law"], ["tea", "boat", "field", "lamp"]
Row = tuple[Mapping[str, float], str, str]


class Pairs:
    """Tables of rows (preference, chosen, rejected) over one set of answers."""

    def __init__(self, *parts: list[Row], texts: Mapping[str, float] | None = None) -> None:
        numbers: dict[str, int] = {}
        self.tables = []
        for rows in parts:
            for _, *answers in rows:
                for answer in answers:
                    numbers.setdefault(answer, len(numbers))
            chosen, rejected = (torch.tensor([numbers[row[side]] for row in rows]) for side in (1, 2))
            self.tables.append(PairTable(chosen, rejected, tuple(row[0] for row in rows), ({},) * len(rows)))
        self.texts = list(numbers)

    def margins(self, name: str, table: int = -1) -> torch.Tensor:
        return self.fitted(name)(self.tables[table])

    def fitted(self, name: str) -> Margins:
        lengths = np.array([float(len(text.split())) for text in self.texts])
        return fit_baselines(self.tables[0], self.texts, lengths)[name]


def sentence(rng: random.Random, words: list[str], length: int = 5) -> str:
    return " ".join([rng.choice(words), *rng.choices(NEUTRAL, k=length - 1), str(rng.random())])


def styles(count: int, seed: int) -> list[Row]:
    """`jolly` and `grave` answers of equal length, told apart by one word."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for number in range(count):
        jolly, grave = sentence(rng, JOLLY), sentence(rng, GRAVE)
        rows.append(({"jolly": 1.0}, jolly, grave) if number % 2 else ({"grave": 1.0}, grave, jolly))
    return rows


def lengths(count: int, seed: int) -> list[Row]:
    """`long` wants the longer answer, `short` the shorter one; words say nothing."""
    rng = random.Random(seed)
    rows: list[Row] = []
    for number in range(count):
        longer, shorter = (sentence(rng, NEUTRAL, rng.randint(*span)) for span in ((6, 9), (2, 5)))
        rows.append(({"long": 1.0}, longer, shorter) if number % 2 else ({"short": 1.0}, shorter, longer))
    return rows


def accuracy(margins: torch.Tensor) -> float:
    return outcomes(margins).mean().item()


def test_length_learns_for_each_preference_whether_the_longer_or_the_shorter_answer_wins() -> None:
    assert accuracy(Pairs(lengths(20, seed=1), lengths(30, seed=2)).margins("length")) == 1


def test_length_is_blind_to_words() -> None:
    assert accuracy(Pairs(styles(40, seed=1), styles(30, seed=2)).margins("length")) == 0.5


def test_bag_of_words_learns_the_words_of_each_preference() -> None:
    assert accuracy(Pairs(styles(40, seed=1), styles(30, seed=2)).margins("bag_of_words")) == 1


def test_equally_long_answers_tie_on_length() -> None:
    rows: list[Row] = [({"long": 1.0}, "tea boat", "boat lamp")]
    assert Pairs(lengths(20, seed=1), rows).margins("length").tolist() == [0]


def turned(rows: list[Row], sign: float) -> list[Row]:
    return [({name: sign * weight for name, weight in names.items()}, second, first) for names, first, second in rows]


@pytest.mark.parametrize(("name", "make"), [("length", lengths), ("bag_of_words", styles)])
class TestBoth:
    def test_swapping_an_answer_pair_turns_its_margin(self, name: str, make: Any) -> None:
        rows = make(20, 2)
        pairs = Pairs(make(30, 1), rows, turned(rows, 1.0))
        assert torch.equal(pairs.margins(name, 1), -pairs.margins(name, 2))

    def test_a_negative_weight_turns_a_margin(self, name: str, make: Any) -> None:
        rows = make(20, 2)
        pairs = Pairs(make(30, 1), rows, turned(rows, -1.0))
        torch.testing.assert_close(pairs.margins(name, 1), pairs.margins(name, 2))

    def test_pairs_that_ask_for_the_opposite_teach_the_same_the_other_way_round(self, name: str, make: Any) -> None:
        rows, held_out = make(30, 1), make(20, 2)
        direct, negated = Pairs(rows, held_out), Pairs(turned(rows, -1.0), held_out)
        torch.testing.assert_close(direct.margins(name), negated.margins(name), atol=1e-3, rtol=1e-3)

    def test_a_combination_is_the_weighted_sum_of_its_principles(self, name: str, make: Any) -> None:
        rows = make(40, 1)
        first, second = sorted({key for names, *_ in rows for key in names})
        chosen, rejected = rows[0][1:]
        asked: list[Mapping[str, float]] = [{first: 1.0}, {second: 1.0}, {first: 2.0, second: -0.5}]
        one, other, both = Pairs(rows, [(names, chosen, rejected) for names in asked]).margins(name).tolist()
        assert one != 0
        assert both == pytest.approx(2 * one - 0.5 * other)

    def test_what_training_never_named_falls_back_on_what_wins_whatever_was_asked(self, name: str, make: Any) -> None:
        rows: list[Row] = [({"known": 1.0}, *answers) for _, *answers in make(40, 1)[1::2]]
        known = Pairs(rows, [(names, *pair) for names in ({"new": 1.0}, {"known": 1.0}) for _, *pair in rows[:9]])
        unseen, seen = known.margins(name).split(9)
        torch.testing.assert_close(unseen, seen, atol=1e-4, rtol=1e-4)

    def test_free_text_is_judged_by_all_training_pairs(self, name: str, make: Any) -> None:
        rows = make(40, 1)[1::2]
        pairs = Pairs(rows, rows[:9])
        table = pairs.tables[1]
        wished = PairTable(table.chosen, table.rejected, ({},) * 9, ({"like a sailor": 1.0},) * 9)
        margins = pairs.fitted(name)(wished)
        assert accuracy(margins) == 1

    def test_the_same_pairs_give_the_same_margins(self, name: str, make: Any) -> None:
        first, second = (Pairs(make(40, 1), make(20, 2)).margins(name) for _ in range(2))
        assert torch.equal(first, second)


def test_words_that_training_never_had_change_nothing() -> None:
    rows: list[Row] = [({"jolly": 1.0}, "laugh tea", "duty tea"), ({"jolly": 1.0}, "laugh tea zebra", "duty tea")]
    plain, unknown = Pairs(styles(40, seed=1), rows).margins("bag_of_words").tolist()
    assert plain == unknown > 0


def test_punctuation_counts_as_words() -> None:
    rows: list[Row] = [({"loud": 1.0}, f"{word} !", f"{word} .") for word in NEUTRAL]
    assert accuracy(Pairs(rows, [({"loud": 1.0}, "sea !", "sea .")]).margins("bag_of_words")) == 1


def test_answers_without_a_word_tie() -> None:
    rows: list[Row] = [({"jolly": 1.0}, " ", "")] * 3
    assert Pairs(rows, rows).margins("bag_of_words").tolist() == [0, 0, 0]


def test_one_training_pair_is_enough() -> None:
    rows: list[Row] = [({"jolly": 1.0}, "laugh now", "duty")]
    assert all(Pairs(rows, rows).margins(name).item() > 0 for name in ("length", "bag_of_words"))


def test_answers_are_read_as_the_model_reads_them(byte_tokenizer: Any) -> None:
    """Cut at six tokens, which are bytes; the end token is not read."""
    book = SequenceBook()
    tabulate([PreferencePair(as_messages("Why?"), {"a": 1.0}, "laughing out loud", "duty")], book)
    sequences, _ = book.tokenised(byte_tokenizer, 64, 6)
    assert decode_answers(byte_tokenizer, [answer for _, answer in sequences]) == ["laughi", "duty"]


def outcome(won: int, lost: int, tied: int = 0) -> torch.Tensor:
    return torch.tensor([1.0] * won + [0.0] * lost + [0.5] * tied)


def test_a_verdict_counts_the_pairs_on_which_the_two_differ() -> None:
    """Ten against two of twelve: p = 2 (1 + 12 + 66) / 2^12."""
    model = torch.cat([outcome(10, 2), torch.ones(88)])
    baseline = torch.cat([outcome(0, 10), outcome(2, 0), torch.ones(88)])
    found = verdict(model, baseline)
    assert found.words == "beats"
    assert found.p == pytest.approx(158 / 4096, abs=1e-4)
    assert found.difference == 0.08
    assert verdict(baseline, model).words == "is worse than"


def test_a_difference_that_chance_explains_does_not_beat() -> None:
    found = verdict(outcome(9, 1), outcome(6, 4))
    assert (found.words, found.difference) == ("does not beat", 0.3)


def test_equal_outcomes_do_not_beat() -> None:
    assert verdict(outcome(50, 5), outcome(50, 5)).p == 1
    assert verdict(outcome(50, 5), outcome(50, 5)).words == "does not beat"


def test_a_win_against_a_tie_is_a_difference() -> None:
    assert verdict(outcome(20, 0), outcome(0, 0, 20)).words == "beats"
