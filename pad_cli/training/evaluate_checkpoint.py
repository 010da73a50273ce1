"""A finished reward model on any preference pairs: exact rewards, whatever its form.

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
from pad_cli.models.language_model import LanguageModel, cut_to_context, load_language_model, room, same_vocabulary
from pad_cli.models.prompts import check_prompts, encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel, Reference, RewardModel
from pad_cli.models.scoring import answer_states, targets_and_owners
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
        UsageError: the released form has no policy, or one of another vocabulary.
        PreferenceError: a pair has a weight that words cannot carry, for a reward model that reads words.
    """
    model = load_reward_model(location)
    rows = load_pairs(DataSettings(train=pairs, contrast=False), seed=0, principles=model.principles).train
    check_prompts(model.backbone.tokenizer, [(pair.place, pair.prompt) for pair in rows])
    steered = model.backbone
    if model.reference is Reference.POLICY:
        if policy is None:
            raise UsageError(
                f"Rewards of '{location}' are relative to the policy that it steers.", "Name that too: --policy"
            )
        steered = load_language_model(policy)
        model.reference.check(model.backbone, steered)
    return evaluate_pairs(model, rows, steered, max_tokens)


@torch.inference_mode()
def evaluate_pairs(
    model: RewardModel, pairs: Sequence[PreferencePair], policy: LanguageModel, max_tokens: int = 512
) -> CheckpointMetrics:
    """Measure a loaded reward model; `policy` is the reference where rewards are relative to that."""
    if not pairs:
        raise DataError("There are no preference pairs to measure on.", hint="Give a file with at least one.")
    readings: list[PairReading] = []
    spreads: dict[str, list[torch.Tensor]] = {}
    steered = model.reference.model(model.backbone, policy)
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
    """Read both answers of a pair under its preference, and with the guided policy at some guidance weights.

    Raises:
        DataError: the pair's preference is none of this reward model's.
        PreferenceError: it has a weight that words cannot carry, for a reward model that reads words.
    """
    preference = _preference(model, pair)
    (first, liked_first, squares), (second, liked_second, more) = (
        _read(model, policy, pair.prompt, answer, preference, guidance_weights, max_tokens)
        for answer in (pair.chosen, pair.rejected)
    )
    both = zip(liked_first, liked_second, strict=True)
    return PairReading((first, second), dict(zip(guidance_weights, both, strict=False)), torch.cat([squares, more]))


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
) -> tuple[float, list[float], torch.Tensor]:
    """Of one answer: its reward, its likelihood at each guidance weight, and the squared spreads of its tokens."""
    backbone, longest = model.backbone, model.backbone.context_length
    context = encode_prompt(backbone.tokenizer, model.prompt(prompt, preference), max_tokens)
    written = encode_answer(backbone.tokenizer, answer, max_tokens)
    context = context[-cut_to_context(longest, len(context), len(written)) :]
    batch = [(tuple(context), tuple(written[: room(longest, len(context))]))]
    hidden = answer_states(backbone, batch, model.adapter)
    plain = model.reference.states(hidden, batch, backbone, policy)
    reference, readable = model.reference.model(backbone, policy), same_vocabulary(policy, backbone)
    steered = plain if reference is policy or not readable else answer_states(policy, batch)
    targets, owners = targets_and_owners(batch, backbone.device)
    shifted = hidden + model.shift(hidden, model.weights([preference])[owners]).to(hidden.dtype)
    reward, likelihoods, squares = 0.0, [0.0 for _ in guidance_weights if readable], []
    for start in range(0, len(targets), _CHUNK):
        part = slice(start, start + _CHUNK)
        before = reference.head(plain[part]).to(backbone.device)
        rewards = rewards_of_all(backbone.head(shifted[part]), before)
        reward += pick(rewards, targets[part]).sum().item()
        if readable:
            own = (before if reference is policy else policy.head(steered[part])).float().to(rewards.device)
            likelihoods = [
                so_far + pick(guided_log_probs(own, rewards, weight * model.calibration), targets[part]).sum().item()
                for so_far, weight in zip(likelihoods, guidance_weights, strict=True)
            ]
        squares.append(spread(model.calibration * rewards, before).cpu())
    return reward, [total / len(targets) for total in likelihoods], torch.cat(squares)


def _wins(scores: Sequence[tuple[float, float]]) -> float:
    return sum((first > second) + 0.5 * (first == second) for first, second in scores) / len(scores)


def _root_mean(squares: Sequence[torch.Tensor]) -> float:
    return strength(torch.cat(list(squares))).item()
