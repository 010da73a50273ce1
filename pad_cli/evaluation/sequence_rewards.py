"""The reward model's rewards of whole answers, whichever method wrote them: exact, over the whole vocabulary.

R(p, x, y) = sum_t r(p, s_t, y_t), nats, not calibrated; see `equation.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pad_cli.equation import answer_sums
from pad_cli.models.language_model import LanguageModel, room
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import RewardModel
from pad_cli.models.scoring import TokenSequence, answer_states, in_batches, targets_and_owners, token_log_probs
from pad_cli.preference import Preference
from pad_cli.records import Messages


def answer_tokens(model: RewardModel, text: str, *, ended: bool = True) -> tuple[int, ...]:
    """An answer's tokens in the backbone's vocabulary, with an end of sequence if it has ended."""
    tokens = encode_answer(model.backbone.tokenizer, text)
    return tuple(tokens if ended else tokens[:-1])


@torch.no_grad()
def sequence_rewards(
    model: RewardModel,
    policy: LanguageModel,
    prompts: Sequence[Messages],
    preferences: Sequence[Preference],
    answers: Sequence[tuple[int, ...]],
) -> torch.Tensor:
    """Summed rewards of N answers, in the backbone's tokens: (N,) nats, float32, on the CPU; 0 for one without tokens.

    A prompt loses its beginning if the backbone cannot read both.

    Raises:
        UsageError: rewards are relative to the policy, whose vocabulary is not the backbone's.
    """
    backbone = model.backbone
    model.reference.check(backbone, policy)
    rows = [row for row, answer in enumerate(answers) if answer]
    sequences: list[TokenSequence] = []
    for row in rows:
        prompt = encode_prompt(backbone.tokenizer, model.prompt(prompts[row], preferences[row]))
        left = room(backbone.context_length, len(answers[row]))
        sequences.append((tuple(prompt if left is None else prompt[-max(1, left) :]), answers[row]))

    def read(batch: Sequence[TokenSequence], numbers: list[int]) -> torch.Tensor:
        targets, owners = targets_and_owners(batch, backbone.device)
        hidden = answer_states(backbone, batch, model.adapter)
        weights = model.weights([preferences[rows[number]] for number in numbers])
        shift = model.shift(hidden, weights[owners]).to(hidden.dtype)
        personalised = token_log_probs(hidden + shift, targets, backbone.head)
        reference = model.reference.log_probs(hidden, batch, backbone, policy)
        return answer_sums(personalised.cpu() - reference.cpu(), owners.cpu(), len(batch))

    result = torch.zeros(len(answers))
    for numbers, rewards in in_batches(sequences, read, backbone.device):
        result[[rows[number] for number in numbers]] = rewards
    return result
