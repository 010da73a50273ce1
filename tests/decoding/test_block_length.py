"""How many tokens are drafted, decided by a made-up clock."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

import pytest

from pad_cli.decoding.speculative import BlockLength


@dataclass
class Machine:
    """What speculation costs, and how often a draft is right."""

    right: float = 0.8
    draft: float = 0.05
    fixed: float = 1.0
    token: float = 0.02
    plain: float = 1.0
    rows: int = 1
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def verify(self, count: int) -> float:
        """Seconds of a verification."""
        return (self.fixed + self.token * self.rows * (count + 1)) * (1 if count else self.plain)

    def run(self, length: BlockLength, blocks: int, *, noise: float = 0.1) -> tuple[list[int], float]:
        """The lengths that were chosen, and the tokens that a row wrote in a second."""
        counts, written, seconds = [], 0.0, 0.0
        for _ in range(blocks):
            count = length.next(self.rows)
            accepted = [self._accepted(count) for _ in range(self.rows)]
            took = self.verify(count) * (1 + self.chance.uniform(-noise, noise))
            tried = sum(min(number + 1, count) for number in accepted)
            length.learn(self.rows, count, tried, sum(accepted), self.draft, took)
            counts.append(count)
            written += sum(accepted) / self.rows + 1
            seconds += self.draft * (count + 1) + took
        return counts, written / seconds

    def best(self) -> tuple[int, float]:
        """The best of all fixed lengths, and its tokens in a second."""
        paces = [
            sum(self.right**power for power in range(count + 1)) / (self.draft * (count + 1) + self.verify(count))
            for count in range(13)
        ]
        return paces.index(max(paces)), max(paces)

    def _accepted(self, count: int) -> int:
        return next((place for place in range(count) if self.chance.random() >= self.right), count)


def test_a_fixed_length_stays() -> None:
    assert set(Machine(right=0).run(BlockLength(5), 50)[0]) == {5}


def test_right_and_cheap_drafts_are_long() -> None:
    counts, _ = Machine(right=1.0, draft=0.01).run(BlockLength(), 30)
    assert min(counts[3:]) == 12


def test_dear_verification_keeps_drafts_short() -> None:
    counts, _ = Machine(right=0.7, token=0.2).run(BlockLength(), 300)
    assert 0 < sum(counts[20:]) / 280 < 5


def test_wrong_drafts_are_given_up_but_tried_again_now_and_then() -> None:
    counts, _ = Machine(right=0.0, draft=0.5).run(BlockLength(), 300)
    idle = [len(list(group)) for drafts, group in itertools.groupby(counts[10:], key=bool) if not drafts]
    assert counts[10:].count(0) > 0.8 * 290
    assert max(idle) <= 16


@pytest.mark.parametrize(("before", "after"), [(0.0, 1.0), (0.3, 0.95), (1.0, 0.0), (0.95, 0.2)])
def test_the_length_follows_when_drafts_become_better_or_worse(before: float, after: float) -> None:
    length = BlockLength()
    Machine(right=before, draft=0.1).run(length, 100)
    later = Machine(right=after, draft=0.1)
    later.run(length, 40)
    counts, pace = later.run(length, 60)
    assert pace > 0.85 * later.best()[1]
    assert (sum(counts) / 60 > 6) is (after > before)


@pytest.mark.parametrize("right", [0, 4])
def test_a_slow_first_block_is_forgotten(right: int) -> None:
    """A program may have to be loaded for it."""
    machine, length = Machine(right=0.9), BlockLength()
    length.learn(1, length.next(1), min(right + 1, 4), right, 0.5, 30.0)
    machine.run(length, 40)
    _, pace = machine.run(length, 100)
    assert pace > 0.85 * machine.best()[1]


def test_a_batch_that_shrinks_drafts_more_tokens_in_each_row() -> None:
    length = BlockLength()
    many, _ = Machine(right=0.9, token=0.1, rows=8).run(length, 60)
    few, _ = Machine(right=0.9, token=0.1, rows=1).run(length, 60)
    assert sum(few) > 2 * sum(many)


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("plain", [0.6, 1.0])
@pytest.mark.parametrize("token", [0.0, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("draft", [0.005, 0.05, 0.4])
def test_in_the_long_run_no_fixed_length_is_much_better(draft: float, token: float, plain: float, rows: int) -> None:
    """Nor is plain decoding, count 0, which is one of them."""
    for right in (0.0, 0.2, 0.5, 0.8, 0.95, 1.0):
        machine = Machine(right=right, draft=draft, token=token, plain=plain, rows=rows)
        _, pace = machine.run(BlockLength(), 300)
        assert pace > 0.8 * machine.best()[1]
