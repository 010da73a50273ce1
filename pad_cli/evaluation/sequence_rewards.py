"""The reward model's rewards of answers: exact, over the whole vocabulary, in batches, whatever its form.

r(p, s_t, y_t) of each token, and R(p, x, y) = sum_t r(p, s_t, y_t)        nats, not calibrated
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from pad_cli.equation import answer_sums
from pad_cli.models.language_model import LanguageModel, room
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import RewardModel
from pad_cli.models.scoring import TokenSequence, answer_states, in_batches, targets_and_owners, token_log_probs
from pad_cli.preference import Preference
from pad_cli.records import Messages


class AnswerToReward(NamedTuple):
    """An answer to a prompt under a preference.

    Attributes:
        prompt: the conversation.
        preference: what this user wants.
        answer: its tokens in the backbone's vocabulary.
    """

    prompt: Messages
    preference: Preference
    answer: tuple[int, ...]


def answer_tokens(model: RewardModel, text: str, *, ended: bool = True) -> tuple[int, ...]:
    """An answer's tokens in the backbone's vocabulary, with an end of sequence if it has ended."""
    tokens = encode_answer(model.backbone.tokenizer, text)
    return tuple(tokens if ended else tokens[:-1])


def sequence_rewards(model: RewardModel, policy: LanguageModel, answers: Sequence[AnswerToReward]) -> torch.Tensor:
    """Summed rewards of answers.

    Args:
        model: the reward model.
        policy: the reference, where that is the policy; else not read.
        answers: N answers; one without tokens has reward 0.

    Returns:
        (N,) nats, float32, on the CPU.

    Raises:
        UsageError: rewards are relative to the policy, whose vocabulary is not the backbone's.
    """
    rewards = token_rewards(model, policy, answers)
    owners = torch.tensor([row for row, each in enumerate(answers) for _ in each.answer], dtype=torch.long)
    return answer_sums(torch.cat([torch.zeros(0), *rewards]), owners, len(answers))


@torch.no_grad()
def token_rewards(model: RewardModel, policy: LanguageModel, answers: Sequence[AnswerToReward]) -> list[torch.Tensor]:
    """Rewards of answers' tokens.

    Args:
        model: the reward model.
        policy: the reference, where that is the policy; else not read.
        answers: N answers.

    Returns:
        For each answer (T,) nats, float32, on the CPU, T its tokens.

    Raises:
        UsageError: rewards are relative to the policy, whose vocabulary is not the backbone's.
    """
    check_reference(model, policy)
    sequences = [_sequence(model, each) for each in answers]
    result = [torch.zeros(0)] * len(answers)
    read = [number for number, (_, answer) in enumerate(sequences) if answer]

    def reward(batch: Sequence[TokenSequence], places: list[int]) -> Sequence[torch.Tensor]:
        rewards = _rewards(model, policy, batch, [answers[read[place]].preference for place in places])
        parts: Sequence[torch.Tensor] = rewards.split([len(answer) for _, answer in batch])
        return parts

    for places, parts in in_batches([sequences[number] for number in read], reward, model.backbone.device):
        for place, part in zip(places, parts, strict=True):
            result[read[place]] = part
    return result


def check_reference(model: RewardModel, policy: LanguageModel) -> None:
    """Make sure that the reward model has rewards on this policy.

    Raises:
        UsageError: they are relative to the policy, whose vocabulary is not the backbone's.
    """
    model.reference.check(model.backbone, policy)


def _sequence(model: RewardModel, each: AnswerToReward) -> TokenSequence:
    """Prompt and answer in the backbone's tokens; a prompt loses its beginning where the two are too long for it."""
    prompt = encode_prompt(model.backbone.tokenizer, model.prompt(each.prompt, each.preference))
    left = room(model.backbone.context_length, len(each.answer))
    return tuple(prompt if left is None else prompt[-max(1, left) :]), each.answer


def _rewards(
    model: RewardModel, policy: LanguageModel, sequences: Sequence[TokenSequence], preferences: Sequence[Preference]
) -> torch.Tensor:
    """(N,) rewards of a batch's tokens, answer after answer, on the CPU."""
    backbone = model.backbone
    targets, owners = targets_and_owners(sequences, backbone.device)
    hidden = answer_states(backbone, sequences, model.adapter)
    shift = model.shift(hidden, model.weights(preferences)[owners])
    personalised = token_log_probs(hidden + shift.to(hidden.dtype), targets, backbone.head)
    reference = model.reference.log_probs(hidden, sequences, backbone, policy)
    return personalised.cpu() - reference.cpu()
