"""What a preference does to text, measured by the reward model itself.

Prompts are answered by the policy alone, under the whole preference, and under each of its parts alone. A part that
gains reward alone, but not in the whole, is lost beside the others: they are incompatible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import DataError
from pad_cli.evaluation.sequence_rewards import answer_tokens, sequence_rewards
from pad_cli.pairs import note_changes, prompt_of, read_rows
from pad_cli.preference import Preference
from pad_cli.prompts import Prompt, distinct, load_benchmark
from pad_cli.recipe import BenchmarkSettings, DecodingSettings
from pad_cli.records import Generation, Messages
from pad_cli.system.progress import bar


@dataclass(frozen=True)
class MeanReward:
    """Summed rewards under one part of a preference, or another principle: means over prompts, nats."""

    preference: str
    plain: float  # of answers by the policy alone
    alone: float | None  # of answers under this part only; None for a principle that is no part
    steered: float  # of answers under the whole preference


@dataclass(frozen=True)
class Effect:
    """What a preference, safety floor included, does: N prompts, answers without and with it, and their rewards."""

    preference: str
    guidance_weight: float
    prompts: tuple[Messages, ...]
    plain: tuple[str, ...]
    steered: tuple[str, ...]
    rewards: tuple[MeanReward, ...]


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


def measure_effect(
    engine: PadEngine, preference: Preference, prompts: Sequence[Messages], settings: DecodingSettings
) -> Effect:
    """Answer N prompts without a preference, with it and with its parts, and reward the answers.

    Sampling draws the same under each preference. Rewards are not calibrated.

    Raises:
        UsageError: the reward model cannot reward what this policy writes.
    """
    model, count = engine.reward_model, len(prompts)
    assert model is not None, "it has read the preference"
    parts = [
        *(Preference({name: weight}, {}) for name, weight in preference.weights.items()),
        *(Preference({}, {text: weight}) for text, weight in preference.texts.items()),
    ]
    others = [Preference({name: 1.0}, {}) for name in model.principles if name not in preference.weights]
    steering = [None, preference, *(parts if len(parts) > 1 else ())]
    with bar("Answering under each preference", total=len(steering) * count) as progress:
        plain, steered, *alone = [
            engine.generate(prompts, None if each is None else [each] * count, settings, on_batch=progress.advance)
            for each in steering
        ]

    def mean(answers: Sequence[Generation], unit: Preference) -> float:
        tokens = [answer_tokens(model, answer.text, ended=answer.finish_reason == "stop") for answer in answers]
        return sequence_rewards(model, engine.policy, prompts, [unit] * count, tokens).double().mean().item()

    rewards = [
        MeanReward(part.describe(), mean(plain, part), mean(own, part), mean(steered, part))
        for part, own in zip(parts, alone or [steered], strict=False)
    ]
    rewards += [MeanReward(each.describe(), mean(plain, each), None, mean(steered, each)) for each in others]
    without, under = (tuple(answer.text for answer in answers) for answers in (plain, steered))
    return Effect(preference.describe(), settings.guidance_weight, tuple(prompts), without, under, tuple(rewards))
