"""`best-of-n`: the best of what the policy itself draws, by exact rewards."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pad_cli.errors import RecipeError
from pad_cli.evaluation.contract import EvalContext, load_method
from pad_cli.evaluation.untrained_methods import BestOfN
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.recipe import DecodingSettings, MethodSettings
from pad_cli.records import BenchmarkItem, Generation
from tests.evaluation.methods.subjects import make_items, make_stopping_policy, make_subject
from tests.tiny import make_reward_model, make_tokenizer

HOW = DecodingSettings(max_new_tokens=10, batch_size=3, temperature=1.3)


@pytest.fixture
def subject(byte_tokenizer: Any) -> EvalContext:
    policy = make_stopping_policy(byte_tokenizer)
    return make_subject(policy, make_reward_model(policy, seed=2))


def drawn(subject: EvalContext, item: BenchmarkItem, n: int, how: DecodingSettings = HOW) -> list[Generation]:
    streams = [item.id, *(f"{item.id}/{number}" for number in range(1, n))]
    return subject.engine.generate([item.prompt] * n, None, how, streams=streams)


@torch.inference_mode()
def reward(model: Any, item: BenchmarkItem, answer: list[int]) -> float:
    """The summed reward of one answer, read on its own."""
    backbone = model.backbone
    context = encode_prompt(backbone.tokenizer, item.prompt)
    tokens = torch.tensor([[*context, *answer]])
    hidden = backbone.hidden_states(tokens, torch.ones_like(tokens))[0, len(context) - 1 : -1]
    weights = model.weights([model.preference(item.preference)]).expand(len(answer), -1)
    shifted = backbone.head(hidden + model.shift(hidden, weights))
    change = shifted.log_softmax(-1) - backbone.head(hidden).log_softmax(-1)
    return float(change[range(len(answer)), answer].sum())


def test_the_answer_is_the_drawn_one_with_the_highest_reward(subject: EvalContext) -> None:
    items = make_items()
    best = BestOfN(n=6).answer(subject, items, HOW, 0.0)
    ranks = []
    for item, answer in zip(items, best, strict=True):
        choices = drawn(subject, item, 6)
        rewards = [reward(subject.reward_model, item, list(choice.token_ids)) for choice in choices]
        ranks.append(rewards.index(max(rewards)))
        assert answer == choices[ranks[-1]]
    assert len(set(ranks)) > 1, "not always the same draw"
    reasons = {choice.finish_reason for item in items for choice in drawn(subject, item, 6)}
    assert reasons == {"stop", "length"}


def test_the_best_of_one_is_the_policys_own_draw(subject: EvalContext) -> None:
    items = make_items()
    plain = subject.engine.generate([item.prompt for item in items], None, HOW, streams=[item.id for item in items])
    assert BestOfN(n=1).answer(subject, items, HOW, 0.0) == plain


def test_a_greedy_recipe_samples_at_the_methods_own_temperature(subject: EvalContext) -> None:
    items, greedy = make_items(), HOW.model_copy(update={"temperature": 0.0})
    assert BestOfN(n=3, temperature=1.3).answer(subject, items, greedy, 0.0) == BestOfN(n=3, temperature=0.1).answer(
        subject, items, HOW, 0.0
    )
    assert BestOfN(n=3, temperature=1.3).answer(subject, items, greedy, 0.0) != BestOfN(n=3, temperature=0.1).answer(
        subject, items, greedy, 0.0
    )


def test_batch_equals_single(subject: EvalContext) -> None:
    items = make_items()
    together = BestOfN(n=4).answer(subject, items, HOW, 0.0)
    assert together == [BestOfN(n=4).answer(subject, [item], HOW, 0.0)[0] for item in items]


def test_a_reward_model_of_another_vocabulary_reads_the_text(policy: LanguageModel) -> None:
    """What stopped is read with an end of sequence, and what was cut off without: here that decides which is best."""
    model, items = make_reward_model(policy, seed=7, scale=1.0), make_items()
    subject = make_subject(make_stopping_policy(make_tokenizer(extra=("<extra>", "the", "and"))), model)
    best = BestOfN(n=8).answer(subject, items, HOW, 0.0)
    ended_best = []
    for item, answer in zip(items, best, strict=True):
        choices = drawn(subject, item, 8)
        ended = [encode_answer(policy.tokenizer, choice.text) for choice in choices]
        read = [
            tokens if choice.finish_reason == "stop" else tokens[:-1]
            for choice, tokens in zip(choices, ended, strict=True)
        ]
        rewards, ended_rewards = ([reward(model, item, tokens) for tokens in each] for each in (read, ended))
        assert answer == choices[rewards.index(max(rewards))]
        ended_best.append(choices[ended_rewards.index(max(ended_rewards))])
    assert best != ended_best


def test_the_key_changes_with_whatever_decides_answers(subject: EvalContext) -> None:
    other = make_subject(subject.policy, make_reward_model(subject.policy, seed=9))
    keys = [BestOfN().key(subject), BestOfN(n=3).key(subject), BestOfN(temperature=0.5).key(subject)]
    assert len(set(map(str, [*keys, BestOfN().key(other)]))) == 4


@pytest.mark.parametrize("options", [{"n": 0}, {"temperature": 0.0}, {"m": 3}])
def test_wrong_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        load_method(MethodSettings(method="best-of-n", options=options))
