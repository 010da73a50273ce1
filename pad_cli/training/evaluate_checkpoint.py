"""A finished reward model on any preference pairs: exact rewards, whatever its form.

Training measures from cached states and, on a large vocabulary, over some of its tokens. Here the model reads every
answer as it does when decoding, with its adapter and its prompt, and normalises over all tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pad_cli.equation import guided_log_probs, pick, rewards_of_all
from pad_cli.errors import DataError, UsageError
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.language_model import LanguageModel, cut_to_context, load_language_model, room, same_vocabulary
from pad_cli.models.prompts import check_prompts, encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel, Reference, RewardModel
from pad_cli.models.scoring import answer_states, targets_and_owners
from pad_cli.pairs import load_pairs
from pad_cli.preference import Preference
from pad_cli.recipe import DataSettings, ModelSettings
from pad_cli.records import PreferencePair
from pad_cli.system.progress import bar
from pad_cli.training.metrics import summarise

_CHUNK = 256  # tokens whose logits are held at once


@dataclass(frozen=True)
class CheckpointMetrics:
    """What a reward model is worth on some pairs; figures as in `metrics`."""

    pairs: int
    pair_accuracy: float
    margin: float
    policy_accuracy: float


@dataclass(frozen=True)
class PairReading:
    """What a reward model says of a pair's two answers, chosen before rejected."""

    rewards: tuple[float, float]  # summed, nats
    # Guidance weight to log-likelihoods under the guided policy, nats a token; empty where the policy has another
    # vocabulary than the reward model.
    likelihoods: dict[float, tuple[float, float]]


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


def evaluate_pairs(
    model: RewardModel, pairs: Sequence[PreferencePair], policy: LanguageModel, max_tokens: int = 512
) -> CheckpointMetrics:
    """Measure a loaded reward model; `policy` is the reference where rewards are relative to that."""
    if not pairs:
        raise DataError("There are no preference pairs to measure on.", hint="Give a file with at least one.")
    rewards, likelihoods = [], []
    steered = model.reference.model(model.backbone, policy)
    with bar("Measuring pairs", total=len(pairs)) as progress:
        for pair in pairs:
            reading = read_pair(model, pair, steered, [1.0], max_tokens)
            rewards.append(reading.rewards)
            likelihoods.append(reading.likelihoods[1.0])
            progress.advance()
    chosen, rejected = torch.tensor([[*each] for each in zip(rewards, likelihoods, strict=True)]).double().unbind(2)
    margins, guided_margins = (chosen - rejected).T
    return CheckpointMetrics(**summarise(margins, guided_margins))


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
    preference, backbone, longest = _preference(model, pair), model.backbone, model.backbone.context_length
    reference, readable = model.reference.model(backbone, policy), same_vocabulary(policy, backbone)
    weights = guidance_weights if readable else ()
    prompt = encode_prompt(backbone.tokenizer, model.prompt(pair.prompt, preference), max_tokens)
    totals, likelihoods = [], []
    for text in (pair.chosen, pair.rejected):
        answer = encode_answer(backbone.tokenizer, text, max_tokens)
        context = prompt[-cut_to_context(longest, len(prompt), len(answer)) :]
        batch = [(tuple(context), tuple(answer[: room(longest, len(context))]))]
        hidden = answer_states(backbone, batch, model.adapter)
        plain = model.reference.states(hidden, batch, backbone, policy)
        steered = plain if reference is policy or not readable else answer_states(policy, batch)
        targets, owners = targets_and_owners(batch, backbone.device)
        shifted = hidden + model.shift(hidden, model.weights([preference])[owners]).to(hidden.dtype)
        total, liked = 0.0, [0.0] * len(weights)
        for start in range(0, len(targets), _CHUNK):
            part = slice(start, start + _CHUNK)
            before = reference.head(plain[part]).to(backbone.device)
            rewards = rewards_of_all(backbone.head(shifted[part]), before)
            total += pick(rewards, targets[part]).sum().item()
            if readable:
                own = (before if reference is policy else policy.head(steered[part])).float().to(rewards.device)
                for number, weight in enumerate(weights):
                    guided = guided_log_probs(own, rewards, weight * model.calibration)
                    liked[number] += pick(guided, targets[part]).sum().item()
        totals.append(total)
        likelihoods.append([each / len(targets) for each in liked])
    both = {weight: (first, second) for weight, first, second in zip(weights, *likelihoods, strict=True)}
    return PairReading((totals[0], totals[1]), both)


def _preference(model: RewardModel, pair: PreferencePair) -> Preference:
    """A pair's preference, if this reward model can take it."""
    unknown = sorted(set(pair.preference) - set(model.principles))
    if pair.texts and isinstance(model, PersonalizedRewardModel) and model.encoder is None:
        unknown += sorted(pair.texts)  # it reads no free text
    if unknown:
        raise DataError(
            f"This reward model has no principle {', '.join(unknown)}.",
            hint=f"It has {', '.join(model.principles) or 'none'}; drop the other rows.",
        )
    return Preference(dict(pair.preference), dict(pair.texts))
