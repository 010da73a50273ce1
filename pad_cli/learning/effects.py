"""What a preference does to text: answers with it beside answers without it, and how the reward model rewards both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import DataError, UsageError
from pad_cli.evaluation.sequence_rewards import AnswerToReward, answer_tokens, sequence_rewards
from pad_cli.models.reward_model import RewardModel
from pad_cli.pairs import note_changes, prompt_of, read_rows
from pad_cli.preference import Preference
from pad_cli.prompts import Prompt, distinct, load_benchmark
from pad_cli.recipe import BenchmarkSettings, DecodingSettings
from pad_cli.records import Generation, Messages


@dataclass(frozen=True)
class MeanReward:
    """What answers are worth under one principle: means over prompts of summed rewards, nats, not calibrated.

    Attributes:
        principle: its name; for a reward model without names the words.
        plain: of the policy's own answers.
        steered: of the answers under the preference.
    """

    principle: str
    plain: float
    steered: float


@dataclass(frozen=True)
class Effect:
    """What a preference does.

    Attributes:
        preference: the one asked for, in words that can be typed; with the safety floor.
        guidance_weight: of the steered answers.
        prompts: N conversations.
        plain: N answers of the policy alone.
        steered: N answers under the preference.
        rewards: under each principle.
    """

    preference: str
    guidance_weight: float
    prompts: tuple[Messages, ...]
    plain: tuple[str, ...]
    steered: tuple[str, ...]
    rewards: tuple[MeanReward, ...]


def read_prompts(path: Path | None, count: int) -> list[Messages]:
    """Prompts to try a preference on, each once.

    Args:
        path: a file with a `prompt` in each row; None takes the embedded world's held-out prompts.
        count: at most so many, the first ones.

    Raises:
        DataError: a line is wrong, or there is none.
    """
    if path is None:
        options = {"prompts": count, "groups": ["single"]}
        items = load_benchmark(BenchmarkSettings(benchmark="embedded", options=options))
        prompts = [item.prompt for item in items]
    else:
        rows = read_rows(path)
        prompts = [prompt_of(row) for row in rows]
        note_changes(rows)
    if not prompts:
        raise DataError("the file has no rows", path=path, hint='One JSON object a line: {"prompt": ...}')
    return [prompt.messages for prompt in distinct([Prompt(prompt) for prompt in prompts])[:count]]


def measure_effect(
    engine: PadEngine,
    preference: Preference,
    prompts: Sequence[Messages],
    settings: DecodingSettings,
    on_batch: Callable[[int], None] | None = None,
) -> Effect:
    """Answer prompts without and with a preference, and reward both.

    Args:
        engine: the policy and its reward model.
        preference: from `engine.preference`.
        prompts: N, at least one.
        settings: how to decode.
        on_batch: called with the number of answers just finished, 2 N in all.

    Raises:
        UsageError: there is no reward model, or none that can reward what this policy writes.
    """
    model = reward_model_of(engine)
    plain, steered = answers_under(engine, [None, preference], prompts, settings, on_batch)
    units = [Preference({name: 1.0}, {}) for name in model.principles] or parts_of(preference)
    rewards = []
    for unit in units:
        before, after = (rewards_of(engine, prompts, answers, unit) for answers in (plain, steered))
        rewards.append(MeanReward(unit.describe(), sum(before) / len(before), sum(after) / len(after)))
    return Effect(
        preference.describe(),
        settings.guidance_weight,
        tuple(prompts),
        tuple(answer.text for answer in plain),
        tuple(answer.text for answer in steered),
        tuple(rewards),
    )


def parts_of(preference: Preference) -> list[Preference]:
    """Each principle and each text of a preference on its own."""
    return [
        *(Preference({name: weight}, {}) for name, weight in preference.weights.items()),
        *(Preference({}, {text: weight}) for text, weight in preference.texts.items()),
    ]


def reward_model_of(engine: PadEngine) -> RewardModel:
    """The engine's reward model.

    Raises:
        UsageError: it has none.
    """
    if engine.reward_model is None:
        raise UsageError("There is no reward model to ask.", "Name one: --reward-model")
    return engine.reward_model


def answers_under(
    engine: PadEngine,
    preferences: Sequence[Preference | None],
    prompts: Sequence[Messages],
    settings: DecodingSettings,
    on_batch: Callable[[int], None] | None = None,
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


def rewards_of(
    engine: PadEngine, prompts: Sequence[Messages], answers: Sequence[Generation], preference: Preference
) -> list[float]:
    """Summed rewards of answers under a preference, nats, not calibrated."""
    model = reward_model_of(engine)
    to_reward = [
        AnswerToReward(prompt, preference, answer_tokens(model, answer.text, ended=answer.finish_reason == "stop"))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    rewards: list[float] = sequence_rewards(model, engine.policy, to_reward).tolist()
    return rewards
