"""What preferences do to text, and the trade-off between two of them, measured by the reward model itself.

Prompts are answered plainly, under each preference p alone, and under both of two. What a preference gains is reward
by its own measure, on prompt i:

    alone_i = R(p, x_i, y_p) - R(p, x_i, y)          both_i = R(p, x_i, y_p+q) - R(p, x_i, y)

It is lost beside q where the 95 % interval of the mean of both_i - alone_i / 2 lies below 0: less than half of what it
gains alone is left. A preference that gains nothing alone has nothing to lose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import DataError, UsageError
from pad_cli.evaluation.sequence_rewards import answer_tokens, sequence_rewards
from pad_cli.evaluation.statistics import by_prompt, intervals
from pad_cli.learning.posterior import Array
from pad_cli.models.reward_model import RewardModel
from pad_cli.pairs import note_changes, prompt_of, read_rows
from pad_cli.preference import Preference
from pad_cli.prompts import Prompt, distinct, load_benchmark
from pad_cli.recipe import BenchmarkSettings, DecodingSettings
from pad_cli.records import Generation, Messages

_LEFT = 0.5  # share of the gain below which a preference is lost
_FEWEST = 5  # prompts, below which an interval says nothing
_CONFIDENCE, _RESAMPLES, _SEED = 0.95, 2000, 0


@dataclass(frozen=True)
class MeanReward:
    """Summed rewards under one principle, means over prompts in nats, of plain and of steered answers."""

    principle: str
    plain: float
    steered: float


@dataclass(frozen=True)
class Effect:
    """What a preference, safety floor included, does: N prompts, answers without and with it, and their rewards."""

    preference: str
    guidance_weight: float
    prompts: tuple[Messages, ...]
    plain: tuple[str, ...]
    steered: tuple[str, ...]
    rewards: tuple[MeanReward, ...]


@dataclass(frozen=True)
class Gain:
    """A preference's mean gain in reward, alone and with another one, nats; `lost` if surely less than half is left."""

    preference: str
    alone: float
    both: float
    lost: bool

    @property
    def share(self) -> float | None:
        """Of the gain, what is left; None where there is no gain."""
        return self.both / self.alone if self.alone > 0 else None


@dataclass(frozen=True)
class TradeOff:
    """Two preferences at once."""

    first: Gain
    second: Gain

    @property
    def conflict(self) -> bool:
        return self.first.lost or self.second.lost

    @property
    def left(self) -> float:
        """The smaller share that is left; 1 where neither gains alone."""
        return min([share for each in (self.first, self.second) if (share := each.share) is not None], default=1.0)


def read_prompts(path: Path | None, count: int) -> list[Messages]:
    """The first `count` distinct prompts of a file, or of the embedded world's held-out ones where `path` is None.

    Raises:
        DataError: a line is wrong, or there is none.
    """
    if path is None:
        options = {"prompts": count, "groups": ["single"]}
        prompts = [item.prompt for item in load_benchmark(BenchmarkSettings(benchmark="embedded", options=options))]
    else:
        rows = read_rows(path)
        prompts = [prompt_of(row) for row in rows]
        note_changes(rows)
    if not prompts:
        raise DataError("the file has no rows", path=path, hint='One JSON object a line: {"prompt": ...}')
    return [prompt.messages for prompt in distinct([Prompt(prompt) for prompt in prompts])[:count]]


def parts_of(preference: Preference) -> list[Preference]:
    """Each principle and each text of a preference on its own."""
    return [
        *(Preference({name: weight}, {}) for name, weight in preference.weights.items()),
        *(Preference({}, {text: weight}) for text, weight in preference.texts.items()),
    ]


def measure_effect(
    engine: PadEngine,
    preference: Preference,
    prompts: Sequence[Messages],
    settings: DecodingSettings,
    on_batch: Callable[[int], None] | None = None,
) -> Effect:
    """Answer N prompts without and with a preference, and reward both.

    `on_batch` is called with the number of answers just finished, 2 N in all.

    Raises:
        UsageError: there is no reward model, or none that can reward what this policy writes.
    """
    model = _reward_model(engine)
    plain, steered = _answers_under(engine, [None, preference], prompts, settings, on_batch)
    rewards = []
    for unit in [Preference({name: 1.0}, {}) for name in model.principles] or parts_of(preference):
        before, after = (_rewards(engine, prompts, answers, unit).mean() for answers in (plain, steered))
        rewards.append(MeanReward(unit.describe(), float(before), float(after)))
    without, under = (tuple(answer.text for answer in answers) for answers in (plain, steered))
    return Effect(preference.describe(), settings.guidance_weight, tuple(prompts), without, under, tuple(rewards))


def count_answers(preferences: int, prompts: int) -> int:
    """How many answers `measure_trade_offs` takes: without, under each, and under each two."""
    return prompts * (1 + preferences + preferences * (preferences - 1) // 2)


def measure_trade_offs(
    engine: PadEngine,
    preferences: Sequence[Preference],
    prompts: Sequence[Messages],
    settings: DecodingSettings,
    on_batch: Callable[[int], None] | None = None,
) -> list[TradeOff]:
    """Every two of some preferences, those that lose most first; at least 5 prompts.

    `on_batch` is called with the number of answers just finished; see `count_answers`.

    Raises:
        UsageError: too few prompts, no reward model, or none that can reward what this policy writes.
    """
    if len(prompts) < _FEWEST:
        message = f"{len(prompts)} prompts are too few to tell whether preferences conflict."
        raise UsageError(message, f"Give at least {_FEWEST}, better 16, or ask for one preference only.")
    pairs = list(combinations(range(len(preferences)), 2))
    sums = [_sum(preferences[first], preferences[second]) for first, second in pairs]
    plain, *steered = _answers_under(engine, [None, *preferences, *sums], prompts, settings, on_batch)
    before = [_rewards(engine, prompts, plain, preference) for preference in preferences]

    def gains(number: int, answers: Sequence[Generation]) -> Array:
        return _rewards(engine, prompts, answers, preferences[number]) - before[number]

    alone = [gains(number, answers) for number, answers in enumerate(steered[: len(preferences)])]
    trade_offs = []
    for pair, answers in zip(pairs, steered[len(preferences) :], strict=True):
        first, second = (_gain(preferences[each].describe(), alone[each], gains(each, answers)) for each in pair)
        trade_offs.append(TradeOff(first, second))
    return sorted(trade_offs, key=lambda each: (not each.conflict, each.left))


def _gain(name: str, alone: Array, both: Array) -> Gain:
    rows = (enumerate(values.tolist()) for values in (alone, both - _LEFT * alone))
    samples = [by_prompt((str(number), value) for number, value in row) for row in rows]
    gain, left = intervals(samples, confidence=_CONFIDENCE, resamples=_RESAMPLES, seed=_SEED)
    assert gain is not None  # there are several prompts
    assert left is not None
    return Gain(name, samples[0].mean, float(both.mean()), lost=gain.low > 0 and left.high < 0)


def _sum(first: Preference, second: Preference) -> Preference:
    def add(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
        sums = {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}
        return {name: weight for name, weight in sums.items() if weight}

    return Preference(add(first.weights, second.weights), add(first.texts, second.texts))


def _reward_model(engine: PadEngine) -> RewardModel:
    if engine.reward_model is None:
        raise UsageError("There is no reward model to ask.", "Name one: --reward-model")
    return engine.reward_model


def _answers_under(
    engine: PadEngine,
    preferences: Sequence[Preference | None],
    prompts: Sequence[Messages],
    settings: DecodingSettings,
    on_batch: Callable[[int], None] | None,
) -> list[list[Generation]]:
    """Answers to all prompts under each preference; None is the policy alone. Sampling draws the same for each."""
    rows = [(preference, number) for preference in preferences for number in range(len(prompts))]
    answers = engine.generate(
        [prompts[number] for _, number in rows],
        [preference or Preference({}, {}) for preference, _ in rows],
        settings,
        [0.0 if preference is None else settings.guidance_weight for preference, _ in rows],
        streams=[str(number) for _, number in rows],
        on_batch=on_batch,
    )
    return [answers[start : start + len(prompts)] for start in range(0, len(answers), len(prompts))]


def _rewards(
    engine: PadEngine, prompts: Sequence[Messages], answers: Sequence[Generation], preference: Preference
) -> Array:
    """(N,) summed rewards of answers under a preference, nats, not calibrated."""
    model = _reward_model(engine)
    tokens = [answer_tokens(model, answer.text, ended=answer.finish_reason == "stop") for answer in answers]
    return sequence_rewards(model, engine.policy, prompts, [preference] * len(prompts), tokens).double().numpy()
