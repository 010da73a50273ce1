"""What a training report tells: one frozen record of a finished run, and the warnings that follow from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from pad_cli.preference import parse_preference
from pad_cli.training.baselines import Verdict, verdict
from pad_cli.training.metrics import (
    HeadGeometry,
    HistoryPoint,
    LengthEffect,
    PairScores,
    Reliability,
    Share,
    alike,
    explain_length,
    length_effect,
    margin_quantiles,
    opposed,
    outcomes,
    reliability,
    rows_by_label,
    share_of,
    summarise,
)

_PREFERENCES = 64  # of a split that are told apart
_FEW_PAIRS = 100
_FEW_OF_A_PREFERENCE = 30  # below this, a preference's own length correlation is chance
_MANY_CUT = 0.2
_OVERFIT = 0.1  # accuracy on training pairs less that on validation pairs
_OPPOSED, _ALIKE = -0.5, 0.9  # cosines of heads
_UNBALANCED = 10  # times as many pairs of one preference as of another
_LENGTH = 0.5  # correlation of the reward with length
_NAMED = 3  # pairs of heads that a warning names


@dataclass(frozen=True)
class BaselineFacts:
    """A baseline on one split.

    Attributes:
        name: `length` or `bag_of_words`.
        pair_accuracy: its own.
        verdict: does the reward model beat it?
    """

    name: str
    pair_accuracy: Share
    verdict: Verdict


@dataclass(frozen=True)
class PreferenceFacts:
    """One preference of one split.

    Attributes:
        label: as `Preference.describe` words it.
        pair_accuracy: of its pairs.
        policy_accuracy: of its pairs.
        length: how the reward under it goes with length.
        baselines: name of a baseline to its pair accuracy.
    """

    label: str
    pair_accuracy: Share
    policy_accuracy: Share
    length: LengthEffect
    baselines: Mapping[str, float]


@dataclass(frozen=True)
class SplitFacts:
    """A validation split.

    Attributes:
        name: its key in the recipe.
        metrics: as from `metrics.summarise`.
        pair_accuracy: with its interval.
        policy_accuracy: with its interval.
        preferences: the same for the commonest preferences, by frequency.
        more_preferences: how many further ones there are.
        baselines: in the order in which they were given.
        quantiles: `metrics.QUANTILES` of the margins, nats.
        reliability: of the reward model's confidence.
        length: how the reward goes with length.
    """

    name: str
    metrics: Mapping[str, int | float]
    pair_accuracy: Share
    policy_accuracy: Share
    preferences: tuple[PreferenceFacts, ...]
    more_preferences: int
    baselines: tuple[BaselineFacts, ...]
    quantiles: tuple[float, ...]
    reliability: Reliability
    length: LengthEffect

    @property
    def best_baseline(self) -> BaselineFacts:
        """The one that is hardest to beat here."""
        return max(self.baselines, key=lambda baseline: baseline.pair_accuracy.value)


@dataclass(frozen=True)
class StageFacts:
    """A finished stage.

    Attributes:
        name: `heads`, `encoder`, `adapter` or `joint`.
        steps: optimiser steps taken.
        seconds: of wall time.
        history: what was measured on the way; may be empty.
    """

    name: str
    steps: int
    seconds: float
    history: tuple[HistoryPoint, ...] = ()


@dataclass(frozen=True)
class TrainingFacts:
    """A finished training run; `dataclasses.asdict` of it is JSON.

    Attributes:
        name: what the reward model is called.
        backbone: the language model under it, as the recipe names it.
        conditioning: `heads`, or `prompt` for one dense head that reads the preference in the prompt.
        principles: names of the heads; empty with `prompt`.
        rank: of each head; 0 with `prompt`.
        has_adapter: has it LoRA weights?
        has_encoder: does it take free text by a preference encoder?
        pairs: training pairs.
        preferences: label to number of training pairs.
        answers: distinct answers, of training and validation.
        cut_answers: how many of them lost their end.
        max_answer_tokens: the recipe's limit.
        stages: in order.
        calibration: what guidance weight 1 multiplies rewards by: one factor, or one for each principle.
        train: pair accuracy on training pairs; None where it was not measured.
        splits: the validation splits.
        heads: norms and cosines of the heads; None with `prompt`.
        shuffled_labels: was it trained on labels swapped at random?
        seed: of the run.
        normaliser_error: mean absolute difference of token rewards from those normalised over the whole vocabulary,
            nats; None where training normalised over all of it.
        cut_to_context: how many answers lost their end only because the backbone cannot read that much.
        context_length: the most tokens of prompt and answer that it reads; None where nothing limits them.
        data: where the pairs came from: a `DataReport` as a mapping, and under `lengths` what `SequenceBook.lengths`
            gives; parts may be missing.
    """

    name: str
    backbone: str
    conditioning: str
    principles: tuple[str, ...]
    rank: int
    has_adapter: bool
    has_encoder: bool
    pairs: int
    preferences: Mapping[str, int]
    answers: int
    cut_answers: int
    max_answer_tokens: int
    stages: tuple[StageFacts, ...]
    calibration: tuple[float, ...]
    train: Share | None
    splits: tuple[SplitFacts, ...]
    heads: HeadGeometry | None = None
    shuffled_labels: bool = False
    seed: int = 0
    normaliser_error: float | None = None
    cut_to_context: int = 0
    context_length: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


def split_facts(
    name: str,
    scores: PairScores,
    labels: Sequence[str],
    baselines: Mapping[str, torch.Tensor],
    beta: float,
    *,
    trained: PairScores | None = None,
    length_normalised: bool = False,
) -> SplitFacts:
    """All figures of one split.

    Args:
        name: of the split.
        scores: of its N pairs.
        labels: N preferences, as from `metrics.preference_labels`.
        baselines: name to the (N,) margins of a baseline on the same pairs, at least one.
        beta: the loss temperature of the last stage that moved the rewards.
        trained: scores of the pairs as that stage's loss saw them, where heads were scaled afterwards.
        length_normalised: did its loss compare rewards per token?
    """
    won, guided = outcomes(scores.margins), outcomes(scores.guided_margins)
    theirs = {baseline: outcomes(margins) for baseline, margins in baselines.items()}
    groups = sorted(rows_by_label(labels).items(), key=lambda group: -len(group[1]))
    return SplitFacts(
        name=name,
        metrics=summarise(scores),
        pair_accuracy=share_of(won),
        policy_accuracy=share_of(guided),
        preferences=tuple(
            PreferenceFacts(
                label,
                share_of(won[rows]),
                share_of(guided[rows]),
                length_effect(scores.at(rows)),
                {baseline: share_of(other[rows]).value for baseline, other in theirs.items()},
            )
            for label, rows in groups[:_PREFERENCES]
        ),
        more_preferences=max(len(groups) - _PREFERENCES, 0),
        baselines=tuple(
            BaselineFacts(baseline, share_of(other), verdict(won, baseline, other))
            for baseline, other in theirs.items()
        ),
        quantiles=margin_quantiles(scores.margins),
        reliability=_reliability(trained or scores, beta, length_normalised),
        length=length_effect(scores),
    )


def _reliability(scores: PairScores, beta: float, length_normalised: bool) -> Reliability:
    return reliability(scores.margins_per_token() if length_normalised else scores.margins, beta)


def metrics_of(facts: TrainingFacts) -> dict[str, dict[str, Any]]:
    """The content of `metrics.json`: split to its metrics, then intervals, baselines and preferences."""
    return {split.name: _split_metrics(split) for split in facts.splits}


def _split_metrics(split: SplitFacts) -> dict[str, Any]:
    return {
        **split.metrics,
        "pair_accuracy_interval": [split.pair_accuracy.low, split.pair_accuracy.high],
        "policy_accuracy_interval": [split.policy_accuracy.low, split.policy_accuracy.high],
        "calibration_error": split.reliability.error,
        "length_correlation": split.length.correlation,
        "baselines": {
            baseline.name: {
                "pair_accuracy": baseline.pair_accuracy.value,
                "reward_model": baseline.verdict.words,
                "difference": baseline.verdict.difference,
                "p": baseline.verdict.p,
            }
            for baseline in split.baselines
        },
        "preferences": {
            preference.label: {
                "pairs": preference.pair_accuracy.n,
                "pair_accuracy": preference.pair_accuracy.value,
                "pair_accuracy_interval": [preference.pair_accuracy.low, preference.pair_accuracy.high],
                "policy_accuracy": preference.policy_accuracy.value,
                "policy_accuracy_interval": [preference.policy_accuracy.low, preference.policy_accuracy.high],
                "length_correlation": preference.length.correlation,
                "baselines": dict(preference.baselines),
            }
            for preference in split.preferences
        },
    }


def warnings_of(facts: TrainingFacts) -> list[str]:
    """What a reader must know before trusting the figures, a sentence or two each; the gravest first."""
    return [*_validation_warnings(facts), *_data_warnings(facts), *_length_warnings(facts), *_head_warnings(facts)]


def _validation_warnings(facts: TrainingFacts) -> Iterator[str]:
    if facts.shuffled_labels:
        yield "The training labels were swapped at random: this is a control, which should not beat anything."
    if not facts.splits:
        yield "There is no validation split, so nothing here says whether it learned. Set data.validation_share."
    for split in facts.splits:
        if split.pair_accuracy.n < _FEW_PAIRS:
            low, high = split.pair_accuracy.low, split.pair_accuracy.high
            yield (
                f"{split.name} has {split.pair_accuracy.n} pairs: its pair accuracy may be anything from {low:.2f} to "
                f"{high:.2f}. Validate on at least {_FEW_PAIRS}."
            )
        if facts.train is not None and _overfits(facts.train, split.pair_accuracy):
            yield (
                f"Pair accuracy is {facts.train.value:.2f} on training pairs and {split.pair_accuracy.value:.2f} on "
                f"{split.name}: it has learned its training pairs by heart, or {split.name} asks for something else. "
                "Train for fewer steps, with patience, dropout or weight decay, or on more prompts."
            )


def _data_warnings(facts: TrainingFacts) -> Iterator[str]:
    if facts.cut_to_context:
        yield (
            f"{facts.cut_to_context / facts.answers:.0%} of the answers were cut because the backbone reads at most "
            f"{facts.context_length} tokens of prompt and answer; what comes later was neither learned nor judged."
        )
    cut = facts.cut_answers - facts.cut_to_context
    if cut > _MANY_CUT * facts.answers:
        yield (
            f"{cut / facts.answers:.0%} of the answers were cut at {facts.max_answer_tokens} tokens; "
            "what comes later was neither learned nor judged. Raise data.max_answer_tokens."
        )
    counts = _pairs_by_principle(facts)
    if counts and max(counts.values()) > _UNBALANCED * min(counts.values()):
        most, least = (pick(counts, key=counts.__getitem__) for pick in (max, min))
        yield (
            f"'{most}' has {counts[most]:,} training pairs, '{least}' {counts[least]:,}: look at the accuracy of each "
            "preference, not at the mean. Give the rarer one's source a higher weight."
        )


def _pairs_by_principle(facts: TrainingFacts) -> dict[str, int]:
    """In how many training pairs each principle is asked for; each preference, where the model has no principles."""
    if not facts.principles:
        return dict(facts.preferences)
    counts = dict.fromkeys(facts.principles, 0)
    for label, pairs in facts.preferences.items():
        for name in parse_preference([label], facts.principles, accepts_text=True).weights:
            counts[name] += pairs
    return counts


def _length_warnings(facts: TrainingFacts) -> Iterator[str]:
    for split in facts.splits:
        if split.length.correlation is not None and abs(split.length.correlation) > _LENGTH:
            yield (
                f"On {split.name} the reward goes with length (correlation {split.length.correlation:+.2f}). "
                f"{explain_length(split.length)} A length-normalised loss weakens this."
            )
        single = [
            f"'{preference.label}' ({correlation:+.2f})"
            for preference in split.preferences
            if preference.pair_accuracy.n >= _FEW_OF_A_PREFERENCE
            and (correlation := preference.length.correlation) is not None
            and abs(correlation) > _LENGTH
        ]
        if single and len(split.preferences) > 1:
            yield (
                f"On {split.name} the reward goes with length under {_listed(single)}; right for a preference that is "
                "about length, else a short cut."
            )


def _head_warnings(facts: TrainingFacts) -> Iterator[str]:
    if facts.heads is None:
        return
    if fighting := opposed(facts.heads, below=_OPPOSED):
        yield f"Heads that fight: {_heads(fighting)}. Asked for together, they undo each other."
    if same := alike(facts.heads, above=_ALIKE):
        yield f"Heads that do the same: {_heads(same)}. The data hardly tell these preferences apart."


def _overfits(train: Share, validation: Share) -> bool:
    return train.value - validation.value > _OVERFIT and train.low > validation.high


def _heads(found: Sequence[tuple[str, str, float]]) -> str:
    return _listed([f"'{one}' and '{other}' (cosine {cosine:+.2f})" for one, other, cosine in found])


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _NAMED
    return ", ".join(items[:_NAMED]) + (f" and {more} more" if more > 0 else "")
