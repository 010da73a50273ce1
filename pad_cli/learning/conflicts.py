"""Which preferences cannot both be had, found by measurement.

Prompts are answered plainly, under each preference alone, and under both of a pair. What a preference gains is reward
by its own measure, on prompt i:

    alone_i = R(p, x_i, y_p) - R(p, x_i, y)          both_i = R(p, x_i, y_p+q) - R(p, x_i, y)

It is lost beside q where the 95 % interval of the mean of both_i - alone_i / 2 lies below 0: less than half of what it
gains alone is left. A preference that gains nothing alone has nothing to lose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.evaluation.statistics import Sample, by_prompt, intervals
from pad_cli.learning.effects import answers_under, rewards_of
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import Messages

_LEFT = 0.5  # share of the gain below which a preference is lost
_FEWEST = 5  # prompts, below which an interval says nothing
_CONFIDENCE, _RESAMPLES, _SEED = 0.95, 2000, 0


@dataclass(frozen=True)
class Kept:
    """What is left of one preference when another is asked for as well.

    Attributes:
        preference: in words that can be typed.
        alone: mean gain in reward when only it is asked for, nats.
        both: mean gain when both are.
        lost: less than half is left, surely.
    """

    preference: str
    alone: float
    both: float
    lost: bool

    @property
    def share(self) -> float | None:
        """Of the gain, what is left; None where there is no gain."""
        return self.both / self.alone if self.alone > 0 else None


@dataclass(frozen=True)
class Pair:
    """Two preferences asked for at once."""

    first: Kept
    second: Kept

    @property
    def conflict(self) -> bool:
        return self.first.lost or self.second.lost

    @property
    def left(self) -> float:
        """The smaller share that is left; 1 where neither gains alone."""
        return min([share for each in (self.first, self.second) if (share := each.share) is not None], default=1.0)


def count_answers(preferences: int, prompts: int) -> int:
    """How many answers `measure_pairs` takes: without, under each, and under each pair."""
    return prompts * (1 + preferences + preferences * (preferences - 1) // 2)


def measure_pairs(
    engine: PadEngine,
    preferences: Sequence[Preference],
    prompts: Sequence[Messages],
    settings: DecodingSettings,
    on_batch: Callable[[int], None] | None = None,
) -> list[Pair]:
    """Every pair of some preferences, those that lose most first.

    Args:
        engine: the policy and its reward model.
        preferences: each is asked for alone and with each other one.
        prompts: at least 5.
        settings: how to decode.
        on_batch: called with the number of answers just finished; see `count_answers`.

    Raises:
        UsageError: too few prompts, no reward model, or none that can reward what this policy writes.
    """
    if len(prompts) < _FEWEST:
        raise UsageError(
            f"{len(prompts)} prompts are too few to tell whether preferences conflict.",
            f"Give at least {_FEWEST}, better 16, or ask for one preference only.",
        )
    chosen = list(combinations(range(len(preferences)), 2))
    sums = [_sum(preferences[first], preferences[second]) for first, second in chosen]
    plain, *rest = answers_under(engine, [None, *preferences, *sums], prompts, settings, on_batch)
    alone, both = rest[: len(preferences)], dict(zip(chosen, rest[len(preferences) :], strict=True))

    gains = []
    for preference, answers in zip(preferences, alone, strict=True):
        before = rewards_of(engine, prompts, plain, preference)
        gains.append((before, _less(rewards_of(engine, prompts, answers, preference), before)))
    pairs = []
    for pair, answers in both.items():
        kept = []
        for number in pair:
            before, gain = gains[number]
            gained = _less(rewards_of(engine, prompts, answers, preferences[number]), before)
            kept.append(_kept(preferences[number].describe(), gain, gained))
        pairs.append(Pair(*kept))
    return sorted(pairs, key=lambda pair: (not pair.conflict, pair.left))


def _kept(name: str, alone: Sequence[float], both: Sequence[float]) -> Kept:
    gain, short = _sample(alone), _sample([b - _LEFT * a for a, b in zip(alone, both, strict=True)])
    gains, left = intervals([gain, short], confidence=_CONFIDENCE, resamples=_RESAMPLES, seed=_SEED)
    assert gains is not None  # there are several prompts
    assert left is not None
    return Kept(name, gain.mean, sum(both) / len(both), lost=gains.low > 0 and left.high < 0)


def _sample(values: Sequence[float]) -> Sample:
    return by_prompt((str(number), value) for number, value in enumerate(values))


def _less(values: Sequence[float], before: Sequence[float]) -> list[float]:
    return [value - base for value, base in zip(values, before, strict=True)]


def _sum(first: Preference, second: Preference) -> Preference:
    """Both at once: weights add."""
    weights, texts = Counter(first.weights), Counter(first.texts)
    weights.update(second.weights)
    texts.update(second.texts)
    return Preference({k: w for k, w in weights.items() if w}, {t: w for t, w in texts.items() if w})
