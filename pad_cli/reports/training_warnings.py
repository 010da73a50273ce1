"""What a reader must know before trusting the figures of a training, from its `report.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from pad_cli.preference import parse_preference

Record = Mapping[str, Any]
"""A part of `report.json`; its keys are those of `training.record.TrainingRecord`."""

_NAMED = 3  # items that a warning names

_FEW_PAIRS = 100
_FEW_OF_A_PREFERENCE = 30  # below this, a preference's own length correlation is chance
_MANY_CUT = 0.2
_OVERFIT = 0.1  # accuracy on training pairs less that on validation pairs
_OPPOSED, _ALIKE = -0.5, 0.9  # cosines of heads
_UNBALANCED = 10  # times as many pairs of one preference as of another
_LENGTH = 0.5  # correlation of the reward with length
_LITTLE = 0.05  # two shares no farther apart are the same


def warnings_of(record: Record) -> list[str]:
    """What a reader must know before trusting the figures, a sentence or two each; the gravest first."""
    return [*_validation_warnings(record), *_data_warnings(record), *_length_warnings(record), *_head_warnings(record)]


def _validation_warnings(record: Record) -> Iterator[str]:
    if record["shuffled_labels"]:
        yield "The training labels were swapped at random: this is a control, which should not beat anything."
    if not record["splits"]:
        yield "There is no validation split, so nothing here says whether it learned. Set data.validation_share."
    for split in record["splits"]:
        name, held_out, train = split["name"], split["pair_accuracy"], record["train"]
        if held_out["n"] < _FEW_PAIRS:
            yield (
                f"{name} has {held_out['n']} pairs: its pair accuracy may be anything from {held_out['low']:.2f} to "
                f"{held_out['high']:.2f}. Validate on at least {_FEW_PAIRS}."
            )
        if train and train["value"] - held_out["value"] > _OVERFIT and train["low"] > held_out["high"]:
            yield (
                f"Pair accuracy is {train['value']:.2f} on training pairs and {held_out['value']:.2f} on {name}: the "
                f"model has memorised its training pairs, or {name} differs from them. Train for fewer steps, with "
                "patience, dropout or weight decay, or on more prompts."
            )


def _data_warnings(record: Record) -> Iterator[str]:
    at_context, answers = record["cut_to_context"], record["answers"]
    if at_context:
        yield (
            f"{at_context / answers:.0%} of the answers were cut because the backbone reads at most "
            f"{record['context_length']} tokens of prompt and answer; what comes later was neither learned nor judged."
        )
    cut = record["cut_answers"] - at_context
    if cut > _MANY_CUT * answers:
        yield (
            f"{cut / answers:.0%} of the answers were cut at {record['max_answer_tokens']} tokens; "
            "what comes later was neither learned nor judged. Raise data.max_answer_tokens."
        )
    counts = _pairs_by_principle(record)
    if counts and max(counts.values()) > _UNBALANCED * min(counts.values()):
        most, least = (pick(counts, key=counts.__getitem__) for pick in (max, min))
        yield (
            f"'{most}' has {counts[most]:,} training pairs, '{least}' {counts[least]:,}: look at the accuracy of each "
            "preference, not at the mean. Give the rarer one's source a higher weight."
        )


def _pairs_by_principle(record: Record) -> dict[str, int]:
    """Training pairs that ask for each principle; for each preference, where the model has no principles."""
    if not record["principles"]:
        return dict(record["preferences"])
    counts = dict.fromkeys(record["principles"], 0)
    for label, pairs in record["preferences"].items():
        for name in parse_preference([label], record["principles"], accepts_text=True).weights:
            counts[name] += pairs
    return counts


def _length_warnings(record: Record) -> Iterator[str]:
    for split in record["splits"]:
        if abs(split["length"]["correlation"] or 0) > _LENGTH:
            yield (
                f"On {split['name']} the reward goes with length (correlation {correlation(split['length'])}). "
                f"{explain_length(split['length'])} A length-normalised loss weakens this."
            )
        single = [
            f"'{one['label']}' ({correlation(one['length'])})"
            for one in split["preferences"]
            if one["pair_accuracy"]["n"] >= _FEW_OF_A_PREFERENCE and abs(one["length"]["correlation"] or 0) > _LENGTH
        ]
        if single and len(split["preferences"]) > 1:
            yield (
                f"On {split['name']} the reward goes with length under {_listed(single)}; right for a preference that "
                "is about length, else a short cut."
            )


def _head_warnings(record: Record) -> Iterator[str]:
    if (heads := record["heads"]) is None:
        return
    numbered = combinations(enumerate(heads["names"]), 2)
    pairs = sorted(
        ((heads["cosines"][i][j], one, other) for (i, one), (j, other) in numbered), key=lambda pair: pair[0]
    )
    if opposed := [pair for pair in pairs if pair[0] < _OPPOSED]:
        yield f"Heads that oppose each other: {_heads(opposed)}. Requested together, they cancel out."
    if alike := [pair for pair in reversed(pairs) if pair[0] > _ALIKE]:
        yield f"Heads that do the same: {_heads(alike)}. The data hardly tell these preferences apart."


def _heads(pairs: Sequence[tuple[float, str, str]]) -> str:
    return _listed([f"'{one}' and '{other}' (cosine {cosine:+.2f})" for cosine, one, other in pairs])


def explain_length(effect: Record) -> str:
    """How the reward goes with length, in a sentence: how much of it the labels account for."""
    labels, rewards = effect["labels"], effect["rewards"]
    if labels is None or rewards is None:
        return "The answers of each pair are equally long, so length explains nothing."
    lean = abs(rewards - 0.5) - abs(labels - 0.5)
    if abs(rewards - 0.5) <= _LITTLE:
        comparison = "the reward hardly leans on length"
    elif (rewards - 0.5) * (labels - 0.5) < 0:
        comparison = "the reward leans against the labels"
    elif lean > _LITTLE:
        comparison = "the reward leans on length more than the labels do"
    elif lean < -_LITTLE:
        comparison = "the reward leans on length less than the labels do"
    else:
        comparison = "the reward leans on length as the labels do"
    return (
        f"The longer answer is the chosen one in {labels:.0%} of the pairs and has the higher reward in "
        f"{rewards:.0%}: {comparison}."
    )


def correlation(effect: Record) -> str:
    """A length correlation as readers see it."""
    value = effect["correlation"]
    return "none" if value is None else f"{value:+.2f}".replace("-0.00", "+0.00")


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _NAMED
    return ", ".join(items[:_NAMED]) + (f" and {more} more" if more > 0 else "")
