"""How many tokens are drafted, decided by how many earlier drafts were right."""

from __future__ import annotations

import itertools
import random

import pytest

from pad_cli.decoding.speculative import BlockLength


def run(length: BlockLength, share: float, blocks: int, rows: int = 1) -> list[int]:
    """The lengths chosen for some blocks when so large a share of drafts is right."""
    chance, counts = random.Random(0), []
    for _ in range(blocks):
        count = length.next()
        accepted = [next((n for n in range(count) if chance.random() >= share), count) for _ in range(rows)]
        length.learn(sum(min(number + 1, count) for number in accepted), sum(accepted))
        counts.append(count)
    return counts


def test_a_fixed_length_stays() -> None:
    assert set(run(BlockLength(5), 0.0, 50)) == {5}


def test_right_drafts_are_long() -> None:
    assert run(BlockLength(), 1.0, 30)[-20:] == [12] * 20


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize(("share", "least", "most"), [(0.9, 6, 12), (0.7, 1, 4), (0.5, 0, 2)])
def test_a_block_is_as_long_as_its_last_token_is_likely_to_be_kept(
    share: float, least: int, most: int, rows: int
) -> None:
    counts = run(BlockLength(), share, 400, rows)[50:]
    assert least <= sum(counts) / len(counts) <= most


@pytest.mark.parametrize("rows", [1, 8])
def test_wrong_drafts_are_given_up_but_tried_again_now_and_then(rows: int) -> None:
    counts = run(BlockLength(), 0.0, 300, rows)[10:]
    idle = [len(list(group)) for drafts, group in itertools.groupby(counts, key=bool) if not drafts]
    assert counts.count(0) > 0.8 * len(counts)
    assert max(idle) <= 40


@pytest.mark.parametrize(("before", "after"), [(0.0, 1.0), (0.3, 0.95), (1.0, 0.0), (0.95, 0.2)])
def test_the_length_follows_when_drafts_become_better_or_worse(before: float, after: float) -> None:
    length = BlockLength()
    run(length, before, 100)
    counts = run(length, after, 100)[40:]
    assert (sum(counts) / len(counts) > 6) is (after > before)
