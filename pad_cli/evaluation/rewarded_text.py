"""What the reward model thinks of an answer, token by token, whichever method wrote it.

The answer's text is read in the tokens of the reward model's backbone, under its item's preference. Each token's reward
r(p, s_t, y_t) stands with the text that the token is: nats, over the whole vocabulary, not calibrated. The last piece,
without text, is the end of sequence; it is rewarded whether the answer ended or was cut, as the scorer `reward` does.
Tokens that share a character stand together and their rewards add: the texts joined are the answer, and the rewards
summed what that scorer gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pad_cli.errors import PadError, UsageError
from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.contract import EvalContext, Sample
from pad_cli.evaluation.sequence_rewards import AnswerToReward, check_reference, token_rewards
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.system.progress import bar, note
from pad_cli.system.runs import ResultLog, fingerprint

RewardedText = list[tuple[str, float]]
"""The pieces of a text in order, each with its reward; the last one, empty, is its end."""

_BATCH = 64  # answers that are rewarded before they are written down
_DIGITS = 3  # of a reward

_Span = tuple[int, int]
"""Where a token begins and ends in a text."""


def rewarded_texts(subject: EvalContext, samples: Sequence[Sample], log: ResultLog) -> list[RewardedText | None]:
    """The answers in pieces, with their rewards.

    Args:
        subject: whose answers they are.
        samples: the answers.
        log: what was rewarded before; takes in what is new.

    Returns:
        One for each sample; None where the reward model cannot read the preference or the answer, or its rewards are
        relative to a policy of another vocabulary. Why is said on stderr.
    """
    keys = [_key(subject, sample) for sample in samples]
    readable: dict[str, tuple[str, AnswerToReward, list[_Span]]] = {}
    problems: dict[str, str] = {}
    for key, sample in zip(keys, samples, strict=True):
        if key not in log.done:
            try:
                readable[key] = (sample.text, *_read(subject, sample))
            except PadError as error:
                problems[key] = error.message
    if problems:
        left_out = sum(key in problems for key in keys)
        note(f"No token rewards for {left_out} of {len(keys)} answers shown: {next(iter(problems.values()))}")
    rows = list(readable.items())
    with bar(f"Token rewards on {subject.name}", total=len(rows)) as progress:
        for start in range(0, len(rows), _BATCH):
            batch = rows[start : start + _BATCH]
            rewards = token_rewards(subject.reward_model, subject.policy, [each for _, (_, each, _) in batch])
            log.append(
                {
                    key: {"tokens": _pieces(text, spans, found.tolist())}
                    for (key, (text, _, spans)), found in zip(batch, rewards, strict=True)
                    if torch.isfinite(found).all()
                }
            )
            progress.advance(len(batch))
    return [[(text, reward) for text, reward in log.done[key]["tokens"]] if key in log.done else None for key in keys]


def _key(subject: EvalContext, sample: Sample) -> str:
    model = subject.reward_model
    relative_to = subject.policy.fingerprint if model.reference == "policy" else None
    return fingerprint(
        [model.fingerprint, relative_to, prompt_key(sample.item), sample.item.preference, sample.text, _DIGITS]
    )


def _read(subject: EvalContext, sample: Sample) -> tuple[AnswerToReward, list[_Span]]:
    """An answer's tokens, and where each stands in the text.

    Raises:
        PadError: it cannot be rewarded.
    """
    model = subject.reward_model
    check_reference(model, subject.policy)
    tokenizer = model.backbone.tokenizer
    preference = model.preference(sample.item.preference)
    prompt = encode_prompt(tokenizer, model.prompt(sample.item.prompt, preference))
    tokens, spans = encode_answer(tokenizer, sample.text), _spans(tokenizer, sample.text)
    longest = model.backbone.context_length
    if longest is not None and len(prompt) + len(tokens) > longest:
        raise UsageError(f"The reward model reads no more than {longest} tokens.", "Ask for shorter answers.")
    return AnswerToReward(sample.item.prompt, preference, tuple(tokens)), spans


def _spans(tokenizer: Any, text: str) -> list[_Span]:
    """Where the tokens of `encode_answer` stand in a text, but for the end of sequence."""
    if not tokenizer.is_fast:
        raise UsageError("The backbone's tokenizer does not say where its tokens stand.", "Use its fast form.")
    read, shift = (text, 0) if tokenizer.chat_template else (f" {text.lstrip()}", len(text) - len(text.lstrip()) - 1)
    found = tokenizer(read, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [(max(0, start + shift), max(0, end + shift)) for start, end in found]


def _pieces(text: str, spans: Sequence[_Span], rewards: Sequence[float]) -> RewardedText:
    """A text cut where tokens meet, and its end; what no token covers belongs to the next one, if there is one.

    Args:
        text: the answer.
        spans: where each token stands.
        rewards: of each token, and of the end of sequence.
    """
    *parts, last = rewards
    if not text:
        return [("", _rounded(sum(rewards)))]
    ends: list[int] = []
    sums: list[float] = []
    for (start, end), reward in zip(spans, parts, strict=True):
        before, reached = [0, 0, *ends][-2:]
        if ends and (start < reached or before == reached):  # in the last one's character, or the last has no text yet
            ends[-1] = max(reached, end)
            sums[-1] += reward
        else:
            ends.append(max(reached, end))
            sums.append(reward)
    starts = [0, *ends[:-1]]
    while len(starts) > 1 and starts[-1] == len(text):  # the last ones have no text
        starts.pop()
        sums[-2:] = [sums[-2] + sums[-1]]
    cuts = zip(starts, [*starts[1:], len(text)], sums, strict=True)
    return [*((text[start:end], _rounded(reward)) for start, end, reward in cuts), ("", _rounded(last))]


def _rounded(reward: float) -> float:
    return round(reward, _DIGITS) + 0.0  # no minus in front of 0
