"""Rewards of whole answers in batches, and the scorer that reports them: the model's own token rewards, summed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pad_cli.errors import UsageError
from pad_cli.evaluation.contract import Answer, EvalContext, load_scorer
from pad_cli.evaluation.scorers.likelihood import reward as reward_scorer
from pad_cli.evaluation.sequence_rewards import answer_tokens, sequence_rewards
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel, PromptRewardModel
from pad_cli.recipe import ScorerSettings
from pad_cli.records import BenchmarkItem, as_messages
from tests.decoding.adapters import train_lora, with_adapter
from tests.evaluation.methods.subjects import make_items, make_subject
from tests.models.test_prompt_reward_model import make_head
from tests.tiny import make_language_model, make_reward_model, make_tokenizer

ANSWERS = ("Begin with the king.", "", "Buy a camera, then wait for the light and wait again.", "No.")


def samples() -> list[Answer]:
    return [Answer(item, text) for item, text in zip(make_items(), ANSWERS, strict=True)]


def exact(subject: EvalContext) -> list[float]:
    """What the reward model itself says, one answer at a time."""
    model = subject.reward_model
    assert isinstance(model, PersonalizedRewardModel)
    return [
        model.token_rewards(item.prompt, text, model.preference(item.preference)).sum().item()
        for item, text, *_ in samples()
    ]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("has_adapter", [False, True])
def test_the_score_is_the_sum_of_the_models_own_token_rewards(
    policy: LanguageModel, reward_model: PersonalizedRewardModel, has_adapter: bool
) -> None:
    model = with_adapter(reward_model, train_lora(policy)) if has_adapter else reward_model
    subject = make_subject(policy, replace(model, calibration=3.0))
    expected = exact(subject)
    scores = reward_scorer().score(samples(), subject)
    assert [score.value for score in scores] == pytest.approx(expected, abs=1e-3)
    assert not any(score.truncated for score in scores)
    assert len({round(value, 2) for value in expected}) == len(expected)
    lengths = [len(answer_tokens(model, text)) for text in ANSWERS]
    per_token = reward_scorer(per_token=True).score(samples(), subject)
    assert [score.value for score in per_token] == pytest.approx(
        [value / length for value, length in zip(expected, lengths, strict=True)], abs=1e-4
    )


def test_rewards_relative_to_the_policy_read_the_preference_in_the_prompt(
    policy: LanguageModel, other_policy: LanguageModel
) -> None:
    model = PromptRewardModel(other_policy, make_head(other_policy.hidden_size))
    item = BenchmarkItem("a", "single", "kind", as_messages("Why?"), ("text:kind",))
    context = encode_prompt(policy.tokenizer, model.prompt(item.prompt, model.preference(item.preference)))
    target = encode_answer(policy.tokenizer, ANSWERS[0])
    tokens = torch.tensor([[*context, *target]])
    theirs, ours = (
        each.hidden_states(tokens, torch.ones_like(tokens))[0, len(context) - 1 : -1] for each in (other_policy, policy)
    )
    change = other_policy.head(model.head(theirs)).log_softmax(-1) - policy.head(ours).log_softmax(-1)
    expected = change[range(len(target)), target].sum().item()
    (score,) = reward_scorer().score([Answer(item, ANSWERS[0])], make_subject(policy, model))
    assert score.value == pytest.approx(expected, abs=1e-3)
    key = reward_scorer().key(make_subject(policy, model))
    assert key != reward_scorer().key(make_subject(make_language_model(policy.tokenizer, seed=5), model))
    foreign = make_language_model(make_tokenizer(extra=("<extra>",)), seed=0)
    with pytest.raises(UsageError, match="another vocabulary"):
        reward_scorer().score([Answer(item, ANSWERS[0])], make_subject(foreign, model))


def test_batches_change_no_reward(
    reward_model: PersonalizedRewardModel, policy: LanguageModel, monkeypatch: Any
) -> None:
    asked = [(item, text, ended) for item, text, *_ in samples() for ended in (True, False)]
    prompts = [item.prompt for item, _, _ in asked]
    preferences = [reward_model.preference(item.preference) for item, _, _ in asked]
    answers = [answer_tokens(reward_model, text, ended=ended) for _, text, ended in asked]
    together = sequence_rewards(reward_model, policy, prompts, preferences, answers)
    monkeypatch.setattr("pad_cli.models.scoring._BATCH_TOKENS", 100)
    assert torch.allclose(sequence_rewards(reward_model, policy, prompts, preferences, answers), together, atol=1e-4)
    assert together[3] == 0.0, "an answer without any token"


def test_the_key_changes_with_what_decides_the_score(
    policy: LanguageModel, other_policy: LanguageModel, reward_model: PersonalizedRewardModel
) -> None:
    subject = make_subject(policy, reward_model)
    keys = [
        reward_scorer().key(subject),
        reward_scorer(per_token=True).key(subject),
        reward_scorer().key(make_subject(policy, make_reward_model(policy, seed=8))),
    ]
    assert len(set(map(str, keys))) == 3
    assert reward_scorer().key(make_subject(other_policy, reward_model)) == keys[0], "of any policy's answers the same"


def test_a_recipe_names_it() -> None:
    scorer = load_scorer(ScorerSettings(scorer="reward", options={"per_token": True}))
    assert (scorer.dimension, scorer.unit, scorer.higher_is_better) == ("reward", "nats per token", True)
