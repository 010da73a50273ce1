"""Pairs with the report on their source; taking out what teaches nothing, and adding contrast pairs."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterable, Sequence
from itertools import permutations
from typing import NamedTuple

from pad_cli.records import Messages, PreferencePair, SourceReport


class SourcedPair(NamedTuple):
    """A preference pair, and the report on its source."""

    pair: PreferencePair
    source: SourceReport

    def drop(self, reason: str) -> None:
        self.source.drop("pair", reason, self.pair.place)


def prompt_key(prompt: Messages) -> tuple[tuple[str, str], ...]:
    """Equal for equal conversations."""
    return tuple((message["role"], message["content"]) for message in prompt)


def preference_key(pair: PreferencePair) -> Hashable:
    """Equal for equal preferences."""
    return frozenset(pair.preference.items()), frozenset(pair.texts.items())


def pair_key(pair: PreferencePair) -> tuple[Hashable, str, str]:
    """Equal for equal pairs; the question (prompt and preference), then the chosen and the rejected answer."""
    return (prompt_key(pair.prompt), preference_key(pair)), pair.chosen, pair.rejected


def clean(pairs: Iterable[SourcedPair]) -> list[SourcedPair]:
    """Without pairs of equal answers, exact duplicates (the first stays), and contradictions (all of them go)."""
    first: dict[tuple[Hashable, str, str], SourcedPair] = {}
    for sourced in pairs:
        if sourced.pair.chosen.strip() == sourced.pair.rejected.strip():
            sourced.drop("chosen equals rejected")
        elif first.setdefault(pair_key(sourced.pair), sourced) is not sourced:
            sourced.drop("duplicate")
    consistent = []
    for (question, chosen, rejected), sourced in first.items():
        if (question, rejected, chosen) in first:
            sourced.drop("contradiction: the same two answers also the other way round")
        else:
            consistent.append(sourced)
    return consistent


def without_leaks(pairs: Sequence[SourcedPair], validation: Iterable[PreferencePair]) -> list[SourcedPair]:
    """Training pairs whose prompt no validation pair has, white space and letter case aside."""
    measured = set(normalised_prompts(validation))
    clear = []
    for sourced, prompt in zip(pairs, normalised_prompts(pair for pair, _ in pairs), strict=True):
        if prompt in measured:
            sourced.drop("prompt of a validation split")
        else:
            clear.append(sourced)
    return clear


def normalised_prompts(pairs: Iterable[PreferencePair]) -> list[str]:
    """For each pair a text that is equal for prompts which differ in white space and letter case only."""

    @functools.cache  # many pairs share a prompt
    def normalised(text: str) -> str:
        return " ".join(text.split()).casefold()

    return ["\0".join(f"{each['role']}\0{normalised(each['content'])}" for each in pair.prompt) for pair in pairs]


def contrast_pairs(pairs: Sequence[SourcedPair]) -> list[SourcedPair]:
    """The pairs that follow where the answers to a prompt were each written for one preference.

    They separate a preference from quality: when an answer is chosen under one preference and rejected under another,
    only the preference can tell why. Answers were written so, for a prompt and source, when there are at least two
    preferences, each a single one of weight 1; every chosen answer is chosen under one of them only; and every rejected
    answer is chosen under another. Then each answer beats, under its own preference, every answer of another one.

    Returns:
        Those pairs that are not among the given ones, and contradict none of them.
    """
    known = {pair_key(pair) for pair, _ in pairs}
    groups: dict[Hashable, list[SourcedPair]] = {}
    for sourced in pairs:
        groups.setdefault((id(sourced.source), prompt_key(sourced.pair.prompt)), []).append(sourced)
    added = []
    for group in groups.values():
        written = _written_for([pair for pair, _ in group])
        source = group[0].source
        for winner, loser in permutations(written, 2):
            model = written[winner]
            if preference_key(model) == preference_key(written[loser]):
                continue
            pair = PreferencePair(model.prompt, model.preference, winner, loser, model.texts, model.place)
            question, chosen, rejected = key = pair_key(pair)
            if key not in known and (question, rejected, chosen) not in known:
                known.add(key)
                source.contrast_pairs += 1
                added.append(SourcedPair(pair, source))
    return added


def _written_for(group: Sequence[PreferencePair]) -> dict[str, PreferencePair]:
    """Answer to a pair of the preference it was written for; empty where answers were not written so."""
    written: dict[str, PreferencePair] = {}
    for pair in group:
        other = written.setdefault(pair.chosen, pair)
        if [*pair.preference.values(), *pair.texts.values()] != [1.0] or preference_key(other) != preference_key(pair):
            return {}
    for pair in group:
        loser = written.get(pair.rejected)
        if loser is None or preference_key(loser) == preference_key(pair):
            return {}
    return written
