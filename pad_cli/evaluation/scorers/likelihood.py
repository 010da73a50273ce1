"""Scorers by likelihood: `log_perplexity` and `reward`.

    log_perplexity(answer) = -1/T sum_t log pi(a_t | prompt, a_<t)

over the T tokens of the answer without its end of sequence, which an answer that was cut off lacks. The model is the
policy that answered, without guidance, or another one; the preference is not in the prompt that it reads. Its
exponential is the perplexity of the answer; a mean of those would be dominated by its worst few answers.

`reward` is the reward model's own summed reward of an answer. It measures how far a method reaches what the reward
model wants, not how good that is: a method that maximises the reward is judged by its own yardstick.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pad_cli.evaluation.contract import Answer, EvalContext, Score, Scorer
from pad_cli.evaluation.scorers.classifier import file_state
from pad_cli.evaluation.sequence_rewards import answer_tokens, sequence_rewards
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.scoring import TokenSequence, all_log_probs
from pad_cli.recipe import ModelSettings
from pad_cli.registry import resolve_model


@dataclass(frozen=True, kw_only=True)
class LogPerplexity(Scorer):
    reader: ModelSettings | None

    def key(self, context: EvalContext) -> Any:
        if self.reader is None:
            return ["log_perplexity", context.policy.fingerprint]
        return ["log_perplexity", self.reader.model_dump(), file_state(resolve_model(self.reader.model))]

    def score(self, answers: Sequence[Answer], context: EvalContext) -> list[Score]:
        model = context.policy if self.reader is None else _loaded(self.reader.model_dump_json())
        whole = [_encoded(model, answer) for answer in answers]
        read = [_cut(prompt, tokens, model.context_length or sys.maxsize) for prompt, tokens in whole]
        log_probs = all_log_probs(model, read, shared=True).tolist()
        return [
            Score(-total / len(part[1]), truncated=part != sequence)
            for total, part, sequence in zip(log_probs, read, whole, strict=True)
        ]


def log_perplexity(model: str | ModelSettings | None = None) -> Scorer:
    """The mean negative log-likelihood of an answer's tokens, under the policy or another `model`."""
    named = {"model": model} if isinstance(model, str) else model
    reader = None if named is None else ModelSettings.model_validate(named)
    return LogPerplexity(
        description=f"mean negative log-likelihood of a token under {reader.model if reader else 'the policy'}",
        dimension="fluency",
        higher_is_better=False,
        unit="nats per token",
        reader=reader,
    )


@functools.lru_cache(maxsize=1)
def _loaded(settings: str) -> LanguageModel:
    return load_language_model(ModelSettings.model_validate_json(settings))


def _encoded(model: LanguageModel, answer: Answer) -> TokenSequence:
    """Tokens of the prompt, and of the answer without its end of sequence."""
    if not answer.text.strip():
        raise ValueError("an empty answer has no likelihood")
    prompt = encode_prompt(model.tokenizer, answer.item.prompt)
    return tuple(prompt), tuple(encode_answer(model.tokenizer, answer.text)[:-1])


def _cut(prompt: tuple[int, ...], answer: tuple[int, ...], limit: int) -> TokenSequence:
    """At least one token of the prompt, at most `limit` of both."""
    answer = answer[: limit - 1]
    return prompt[-(limit - len(answer)) :], answer


@dataclass(frozen=True, kw_only=True)
class Reward(Scorer):
    per_token: bool

    def key(self, context: EvalContext) -> Any:
        model = context.reward_model
        return ["reward", model.fingerprint, model.reference.fingerprint(context.policy), self.per_token]

    def score(self, answers: Sequence[Answer], context: EvalContext) -> list[Score]:
        model = context.reward_model
        prompts = [answer.item.prompt for answer in answers]
        preferences = [model.preference(answer.item.preference) for answer in answers]
        tokens = [answer_tokens(model, answer.text) for answer in answers]
        rewards = sequence_rewards(model, context.policy, prompts, preferences, tokens).tolist()
        parts = [len(each) if self.per_token else 1 for each in tokens]
        return [Score(total / part) for total, part in zip(rewards, parts, strict=True)]


def reward(per_token: bool = False) -> Scorer:
    """The summed token rewards of an answer, its end of sequence included; `per_token` divides by their number."""
    return Reward(
        description="the reward model's own reward of the answer under the asked preference",
        dimension="reward",
        unit="nats per token" if per_token else "nats",
        per_token=per_token,
    )
