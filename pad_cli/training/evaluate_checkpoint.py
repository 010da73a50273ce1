"""A finished reward model measured again, on any preference pairs: exact rewards, whatever its form.

Training measures from cached states and, on a large vocabulary, over some of its tokens. Here the model reads every
answer as it does when decoding, with its adapter and its prompt, and normalises over all tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pad_cli.equation import STRENGTH, guided_log_probs, pick, rewards_of_all, spread, strength
from pad_cli.errors import DataError, UsageError
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.context import cut_to_context, room
from pad_cli.models.language_model import LanguageModel, load_language_model, same_vocabulary
from pad_cli.models.prompts import check_prompts, encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel, RewardModel
from pad_cli.pairs import load_pairs
from pad_cli.preference import Preference
from pad_cli.recipe import DataSettings, ModelSettings
from pad_cli.records import Messages, PreferencePair
from pad_cli.system.progress import bar

_CHUNK = 256  # tokens whose logits are held at once


@dataclass(frozen=True)
class CheckpointMetrics:
    """What a reward model is worth on some pairs.

    Attributes:
        pairs: how many.
        pair_accuracy: share whose chosen answer has the higher summed reward; ties count half.
        margin: mean difference of the sums, nats.
        policy_accuracy: share whose chosen answer is likelier per token under guidance weight 1; ties count half.
        strength: how far guidance weight 1 moves the reference's ten likeliest tokens apart: root mean square over
            states of the standard deviation, nats.
        strength_by_preference: the same by preference.
        aimed_strength: what calibration aims at (for each principle on its own, on the training states).
    """

    pairs: int
    pair_accuracy: float
    margin: float
    policy_accuracy: float
    strength: float
    strength_by_preference: dict[str, float]
    aimed_strength: float


@dataclass(frozen=True)
class PairReading:
    """What a reward model says of a pair's two answers, chosen before rejected.

    Attributes:
        rewards: summed rewards, nats.
        likelihoods: guidance weight to log-likelihoods under the guided policy, nats a token, over all tokens of the
            vocabulary; empty where the policy has another one than the reward model.
        squares: (T,) squared spreads of the reference's ten likeliest tokens, over the tokens of both.
    """

    rewards: tuple[float, float]
    likelihoods: dict[float, tuple[float, float]]
    squares: torch.Tensor


@dataclass(frozen=True)
class _Answer:
    """The same of one answer."""

    reward: float
    likelihoods: list[float]
    squares: torch.Tensor


def evaluate_checkpoint(
    location: str, pairs: str, policy: ModelSettings | None = None, max_tokens: int = 512
) -> CheckpointMetrics:
    """Measure a reward model on a JSONL file of preference pairs.

    Args:
        location: the reward model: a directory, a registered source, or an id on the hub.
        pairs: the file.
        policy: the policy that rewards are relative to; needed by, and only used for, the released form.
        max_tokens: prompts lose their beginning, answers their end above it, as training's default is.

    Raises:
        DataError: the file is wrong, a chat template refuses a prompt, or a pair names an unknown principle.
        CheckpointError, ModelLoadError: the reward model or its backbone cannot be loaded.
        UsageError: the released form is given no policy, or one of another vocabulary.
        PreferenceError: a pair has a weight that words cannot carry, for a reward model that reads words.
    """
    model = load_reward_model(location)
    rows = load_pairs(DataSettings(train=pairs, contrast=False), seed=0, principles=model.principles).train
    check_prompts(model.backbone.tokenizer, [(pair.place, pair.prompt) for pair in rows])
    steered = model.backbone
    if model.reference == "policy":
        if policy is None:
            raise UsageError(
                f"Rewards of '{location}' are relative to the policy that it steers.", "Name that too: --policy"
            )
        steered = load_language_model(policy)
        if not same_vocabulary(steered, model.backbone):
            raise UsageError("This policy has another vocabulary than the reward model's backbone.", "Name another.")
    return evaluate_pairs(model, rows, steered, max_tokens)


@torch.inference_mode()
def evaluate_pairs(
    model: RewardModel, pairs: Sequence[PreferencePair], policy: LanguageModel, max_tokens: int = 512
) -> CheckpointMetrics:
    """Measure a loaded reward model.

    Args:
        model: the reward model.
        pairs: N preference pairs.
        policy: the reference, where that is the policy.
        max_tokens: longest prompt and longest answer, in tokens.
    """
    if not pairs:
        raise DataError("There are no preference pairs to measure on.", hint="Give a file with at least one.")
    readings: list[PairReading] = []
    spreads: dict[str, list[torch.Tensor]] = {}
    steered = policy if model.reference == "policy" else model.backbone
    with bar("Measuring pairs", total=len(pairs)) as progress:
        for pair in pairs:
            reading = read_pair(model, pair, steered, [1.0], max_tokens)
            readings.append(reading)
            spreads.setdefault(_preference(model, pair).describe(), []).append(reading.squares)
            progress.advance()
    rewards = [reading.rewards for reading in readings]
    likelihoods = [reading.likelihoods[1.0] for reading in readings]
    return CheckpointMetrics(
        pairs=len(pairs),
        pair_accuracy=_wins(rewards),
        margin=sum(first - second for first, second in rewards) / len(rewards),
        policy_accuracy=_wins(likelihoods),
        strength=_root_mean([part for parts in spreads.values() for part in parts]),
        strength_by_preference={name: _root_mean(parts) for name, parts in spreads.items()},
        aimed_strength=STRENGTH,
    )


@torch.inference_mode()
def read_pair(
    model: RewardModel,
    pair: PreferencePair,
    policy: LanguageModel,
    guidance_weights: Sequence[float],
    max_tokens: int = 512,
) -> PairReading:
    """Read both answers of a pair under its preference.

    Args:
        model: the reward model.
        pair: the pair.
        policy: what it steers; its backbone or another language model.
        guidance_weights: at which the guided policy is read.
        max_tokens: longest prompt and longest answer, in tokens.

    Raises:
        DataError: the pair's preference is none of this reward model's.
        PreferenceError: it has a weight that words cannot carry, for a reward model that reads words.
    """
    preference = _preference(model, pair)
    chosen, rejected = (
        _read(model, policy, pair.prompt, answer, preference, guidance_weights, max_tokens)
        for answer in (pair.chosen, pair.rejected)
    )
    guided = zip(chosen.likelihoods, rejected.likelihoods, strict=True)
    return PairReading(
        (chosen.reward, rejected.reward),
        dict(zip(guidance_weights, guided, strict=False)),
        torch.cat([chosen.squares, rejected.squares]),
    )


def _preference(model: RewardModel, pair: PreferencePair) -> Preference:
    """A pair's preference, if this reward model can take it."""
    unknown = sorted(set(pair.preference) - set(model.principles))
    if unknown:
        raise DataError(
            f"This reward model has no principle {', '.join(unknown)}.",
            hint=f"It has {', '.join(model.principles) or 'none'}; drop the other rows.",
        )
    if pair.texts and isinstance(model, PersonalizedRewardModel) and model.encoder is None:
        raise DataError(
            f"This reward model reads no free text: '{next(iter(pair.texts))}'.",
            hint=f"It has the principles {', '.join(model.principles)}; drop the other rows.",
        )
    return Preference(dict(pair.preference), dict(pair.texts))


def _read(
    model: RewardModel,
    policy: LanguageModel,
    prompt: Messages,
    answer: str,
    preference: Preference,
    guidance_weights: Sequence[float],
    max_tokens: int,
) -> _Answer:
    backbone = model.backbone
    longest = backbone.context_length
    context = encode_prompt(backbone.tokenizer, model.prompt(prompt, preference), max_tokens)
    written = encode_answer(backbone.tokenizer, answer, max_tokens)
    context = context[-cut_to_context(longest, len(context), len(written)) :]
    written = written[: room(longest, len(context))]
    target = torch.tensor(written, device=backbone.device)
    tokens = torch.tensor([[*context, *target.tolist()[:-1]]], device=backbone.device)

    def states(language_model: LanguageModel) -> torch.Tensor:
        rows = tokens.to(language_model.device)
        return language_model.hidden_states(rows, torch.ones_like(rows))[0, len(context) - 1 :]

    plain = hidden = states(backbone)
    if model.adapter is not None:
        with model.adapter.on_rows_from(0):
            hidden = states(backbone)
    readable = same_vocabulary(policy, backbone)
    steered = states(policy) if readable and policy is not backbone else plain
    reference = policy if model.reference == "policy" else backbone
    if reference is policy:
        plain = steered
    weights = model.weights([preference]).expand(len(target), -1)
    shifted = hidden + model.shift(hidden, weights).to(hidden.dtype)
    reward, likelihoods = 0.0, [0.0 for _ in guidance_weights if readable]
    squares = []
    for start in range(0, len(target), _CHUNK):
        part = slice(start, start + _CHUNK)
        before = reference.head(plain[part]).to(backbone.device)
        rewards, realised = rewards_of_all(backbone.head(shifted[part]), before), target[part]
        reward += pick(rewards, realised).sum().item()
        if readable:
            own = (before if policy is reference else policy.head(steered[part])).float().to(rewards.device)
            likelihoods = [
                so_far + pick(guided_log_probs(own, rewards, weight * model.calibration), realised).sum().item()
                for so_far, weight in zip(likelihoods, guidance_weights, strict=True)
            ]
        squares.append(spread(model.calibration * rewards, before).cpu())
    return _Answer(reward, [total / len(target) for total in likelihoods], torch.cat(squares))


def _wins(scores: Sequence[tuple[float, float]]) -> float:
    return sum((first > second) + 0.5 * (first == second) for first, second in scores) / len(scores)


def _root_mean(squares: Sequence[torch.Tensor]) -> float:
    return strength(torch.cat(list(squares))).item()
