"""Contrast pairs: the same two answers under several preferences, where each wins under its own.

They are what separates a preference from quality: when an answer is chosen under one preference and rejected under
another, only the preference can tell why.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import permutations

from pad_cli.pairs.ledger import Found, pair_key, preference_key, prompt_key
from pad_cli.records import PreferencePair


def contrast_pairs(found: Sequence[Found]) -> list[Found]:
    """The pairs that follow where the answers to a prompt were each written for one preference.

    That is so for a prompt and source when there are at least two preferences, each a single one of weight 1; every
    chosen answer is chosen under one of them only; and every rejected answer is chosen under another. Then each answer
    beats, under its own preference, every answer of another one.

    Returns:
        Those pairs that are not among the given ones, and contradict none of them.
    """
    given = {pair_key(one.pair) for one in found}
    added = []
    for group in _by_source_and_prompt(found):
        written = _written_for(group)
        if written is None:
            continue
        for winner, loser in permutations(written, 2):
            model = written[winner]
            if preference_key(model.pair) == preference_key(written[loser].pair):
                continue
            pair = PreferencePair(
                model.pair.prompt, model.pair.preference, winner, loser, model.pair.texts, model.place
            )
            question, chosen, rejected = key = pair_key(pair)
            if key not in given and (question, rejected, chosen) not in given:
                given.add(key)
                model.ledger.contrast_pairs += 1
                added.append(Found(pair, model.place, model.ledger))
    return added


def _by_source_and_prompt(found: Iterable[Found]) -> Iterable[list[Found]]:
    groups: dict[Hashable, list[Found]] = {}
    for one in found:
        groups.setdefault((id(one.ledger), prompt_key(one.pair.prompt)), []).append(one)
    return groups.values()


def _written_for(group: Iterable[Found]) -> dict[str, Found] | None:
    """Answer to a pair of the preference it was written for; None where answers were not written so."""
    written: dict[str, Found] = {}
    for one in group:
        weights = [*one.pair.preference.values(), *one.pair.texts.values()]
        other = written.setdefault(one.pair.chosen, one)
        if weights != [1.0] or preference_key(other.pair) != preference_key(one.pair):
            return None
    for one in group:
        loser = written.get(one.pair.rejected)
        if loser is None or preference_key(loser.pair) == preference_key(one.pair):
            return None
    return written
