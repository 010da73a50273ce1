"""The reward model's rewards of answers, whichever method wrote them: exact, over the whole vocabulary, not calibrated.

r(p, s_t, y_t) of each token, and R(p, x, y) = sum_t r(p, s_t, y_t), nats; see `equation.py`. `rewarded_texts` gives the
rewards of an answer's tokens with their text: the pieces joined are the answer, and their rewards sum to R.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from pad_cli.equation import answer_sums
from pad_cli.errors import PadError, UsageError
from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.contract import Answer, EvalContext
from pad_cli.models.language_model import LanguageModel, room
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import RewardModel
from pad_cli.models.scoring import TokenSequence, answer_states, in_batches, targets_and_owners, token_log_probs
from pad_cli.preference import Preference
from pad_cli.records import Messages
from pad_cli.system.progress import bar, note
from pad_cli.system.runs import ResultLog, fingerprint

RewardedText = list[tuple[str, float]]
"""The pieces of a text in order, each with its reward; the last one, empty, is its end of sequence."""

_BATCH = 64  # answers that are rewarded before they are written to the log
_DIGITS = 3  # of a reward in the log


class AnswerToReward(NamedTuple):
    """A prompt, a preference, and an answer's tokens in the backbone's vocabulary."""

    prompt: Messages
    preference: Preference
    tokens: tuple[int, ...]


def answer_tokens(model: RewardModel, text: str, *, ended: bool = True) -> tuple[int, ...]:
    """An answer's tokens in the backbone's vocabulary, with an end of sequence if it has ended."""
    tokens = encode_answer(model.backbone.tokenizer, text)
    return tuple(tokens if ended else tokens[:-1])


def sequence_rewards(model: RewardModel, policy: LanguageModel, answers: Sequence[AnswerToReward]) -> torch.Tensor:
    """Summed rewards of N answers: (N,) nats, float32, on the CPU; 0 for one without tokens.

    Raises:
        UsageError: rewards are relative to the policy, whose vocabulary is not the backbone's.
    """
    rewards = token_rewards(model, policy, answers)
    owners = torch.tensor([row for row, answer in enumerate(answers) for _ in answer.tokens], dtype=torch.long)
    return answer_sums(torch.cat([torch.zeros(0), *rewards]), owners, len(answers))


@torch.no_grad()
def token_rewards(model: RewardModel, policy: LanguageModel, answers: Sequence[AnswerToReward]) -> list[torch.Tensor]:
    """Rewards of the tokens of N answers: for each of T tokens (T,) nats, float32, on the CPU; raises as above."""
    model.reference.check(model.backbone, policy)
    result = [torch.zeros(0)] * len(answers)
    rows = [row for row, answer in enumerate(answers) if answer.tokens]

    def reward(batch: Sequence[TokenSequence], numbers: list[int]) -> Sequence[torch.Tensor]:
        rewards = _rewards(model, policy, batch, [answers[rows[number]].preference for number in numbers])
        parts: Sequence[torch.Tensor] = rewards.split([len(answer) for _, answer in batch])
        return parts

    sequences = [_sequence(model, answers[row]) for row in rows]
    for numbers, parts in in_batches(sequences, reward, model.backbone.device):
        for number, part in zip(numbers, parts, strict=True):
            result[rows[number]] = part
    return result


def _sequence(model: RewardModel, answer: AnswerToReward) -> TokenSequence:
    """Prompt and answer in the backbone's tokens; the prompt loses its beginning if the two are too long."""
    prompt = encode_prompt(model.backbone.tokenizer, model.prompt(answer.prompt, answer.preference))
    left = room(model.backbone.context_length, len(answer.tokens))
    return tuple(prompt if left is None else prompt[-max(1, left) :]), answer.tokens


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


def rewarded_texts(context: EvalContext, answers: Sequence[Answer], log: ResultLog) -> list[RewardedText | None]:
    """Answers in pieces with their rewards, under their items' preferences; the log keeps them.

    None if the reward model cannot read the preference or the answer, or its rewards are relative to a policy of
    another vocabulary. The reason is printed on stderr.
    """
    keys = [
        fingerprint([*context.rewarded_by, prompt_key(item), item.preference, text, _DIGITS])
        for item, text, *_ in answers
    ]
    readable: dict[str, tuple[str, AnswerToReward]] = {}
    problems: list[str] = []
    for key, answer in zip(keys, answers, strict=True):
        if key not in log.done:
            try:
                readable[key] = answer.text, _readable(context, answer)
            except PadError as error:
                problems.append(error.message)
    if problems:
        note(f"No token rewards for {len(problems)} of {len(keys)} answers shown: {problems[0]}")
    rows = list(readable.items())
    tokenizer = context.reward_model.backbone.tokenizer
    with bar(f"Token rewards on {context.name}", total=len(rows)) as progress:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            rewards = token_rewards(context.reward_model, context.policy, [answer for _, (_, answer) in batch])
            log.append(
                {
                    key: {"tokens": _pieces(text, _spans(tokenizer, text), new.tolist())}
                    for (key, (text, _)), new in zip(batch, rewards, strict=True)
                    if torch.isfinite(new).all()
                }
            )
            progress.advance(len(batch))
    return [[(text, reward) for text, reward in log.done[key]["tokens"]] if key in log.done else None for key in keys]


def _readable(context: EvalContext, answer: Answer) -> AnswerToReward:
    """An answer for the reward model; raises PadError if it cannot be rewarded token by token."""
    model = context.reward_model
    model.reference.check(model.backbone, context.policy)
    if not model.backbone.tokenizer.is_fast:
        raise UsageError("The backbone's tokenizer does not say where its tokens are in a text.", "Use its fast form.")
    preference = model.preference(answer.item.preference)
    prompt = encode_prompt(model.backbone.tokenizer, model.prompt(answer.item.prompt, preference))
    tokens = answer_tokens(model, answer.text)
    longest = model.backbone.context_length
    if longest is not None and len(prompt) + len(tokens) > longest:
        raise UsageError(f"The reward model reads no more than {longest} tokens.", "Ask for shorter answers.")
    return AnswerToReward(answer.item.prompt, preference, tokens)


def _spans(tokenizer: Any, text: str) -> list[tuple[int, int]]:
    """Start and end in a text of each of its tokens in `encode_answer`, without the end of sequence."""
    read, shift = (text, 0) if tokenizer.chat_template else (f" {text.lstrip()}", len(text) - len(text.lstrip()) - 1)
    spans = tokenizer(read, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [(max(0, start + shift), max(0, end + shift)) for start, end in spans]


def _pieces(text: str, spans: Sequence[tuple[int, int]], rewards: Sequence[float]) -> RewardedText:
    """A text cut where tokens meet, and its end of sequence, which has the last reward.

    Tokens that share a character form one piece; text that no token covers belongs to the next piece, if there is one.
    """
    if not text:
        return [("", _rounded(sum(rewards)))]
    *parts, last = rewards
    pieces: list[list[Any]] = []  # text and reward
    reached, without_text = 0, 0.0
    for (start, end), reward in zip(spans, parts, strict=True):
        if pieces and start < reached:  # shares a character with the last piece
            pieces[-1][0] += text[reached:end]
            pieces[-1][1] += reward
        elif end > reached:
            pieces.append([text[reached:end], without_text + reward])
            without_text = 0.0
        else:
            without_text += reward
        reached = max(reached, end)
    pieces = pieces or [["", 0.0]]
    pieces[-1][0] += text[reached:]
    pieces[-1][1] += without_text
    return [*((piece, _rounded(reward)) for piece, reward in pieces), ("", _rounded(last))]


def _rounded(reward: float) -> float:
    return round(reward, _DIGITS) + 0.0  # no minus sign before 0
