"""The decoder's invariants on every architecture we name, over batches of uneven prompts, in float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pad_cli.decoding.engine import NO_PREFERENCE, PadEngine
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import DecodingSettings
from tests.agreement import alone, assert_agree
from tests.architectures import ARCHITECTURES, make_architecture
from tests.decoding.conftest import PROMPTS
from tests.tiny import PRINCIPLES, make_language_model, make_reward_model
from tests.token_prompts import generate_ids

HOW = DecodingSettings(max_new_tokens=14, guidance_weight=2)
SLIDING = ("gemma2", "mistral")


def _engine(name: str, tokenizer: Any) -> PadEngine:
    policy = make_architecture(name, tokenizer)
    return PadEngine(policy, make_reward_model(policy, scale=3.0))


def _wanted(model: PersonalizedRewardModel, count: int) -> tuple[list[Any], list[float]]:
    """Another preference and another guidance weight for each row."""
    names = [PRINCIPLES[i % 3] if i % 2 else f"not {PRINCIPLES[i % 3]}" for i in range(count)]
    return [model.preference([name]) for name in names], [0.5 * (i + 1) for i in range(count)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_fused_equals_paired_equals_separate_and_batch_equals_single(name: str, byte_tokenizer: Any) -> None:
    engine = _engine(name, byte_tokenizer)
    assert engine.reward_model is not None
    preferences, weights = _wanted(engine.reward_model, len(PROMPTS))
    requests = alone(engine, PROMPTS, preferences, HOW, weights)
    fused = engine.generate(PROMPTS, preferences, HOW, weights)
    for changed in ({"path": "paired"}, {"path": "separate"}, {"batch_size": 1}):
        how = HOW.model_copy(update=changed)
        assert_agree(engine.generate(PROMPTS, preferences, how, weights), fused, requests)
    assert [answer.token_ids for answer in engine.generate(PROMPTS, None, HOW)] != [a.token_ids for a in fused]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weight_0_is_transformers_own_greedy(name: str, byte_tokenizer: Any) -> None:
    engine = _engine(name, byte_tokenizer)
    assert engine.reward_model is not None
    preference = engine.reward_model.preference(["humorous"])
    prompt = [5, 40, 77, 90, 31]
    expected = engine.policy.model.generate(
        input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, 5), max_new_tokens=14, do_sample=False
    )[0, 5:].tolist()
    made = generate_ids(engine, [prompt], [preference], HOW, [0.0])
    assert_agree(made, [expected], alone(engine, [prompt], None, HOW))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weight_0_and_one_candidate_and_no_preference_are_plain_on_every_path(name: str, byte_tokenizer: Any) -> None:
    """A weight of 0 and no preference also beside rows that are steered."""
    engine = _engine(name, byte_tokenizer)
    humorous = engine.preference(["humorous"])
    preferences = [humorous] * len(PROMPTS)
    plain, requests = PadEngine(engine.policy).generate(PROMPTS, None, HOW), alone(engine, PROMPTS, None, HOW)
    assert_agree(engine.generate(PROMPTS, None, HOW), plain, requests)
    assert_agree(engine.generate(PROMPTS, preferences, HOW, [0.0] * len(PROMPTS)), plain, requests)
    beside = [humorous, NO_PREFERENCE, *preferences[2:]]
    for path in ({"path": "fused"}, {"path": "paired"}, {"path": "separate"}, {"path": "separate", "draft_tokens": 3}):
        how = HOW.model_copy(update={**path, "batch_size": 1 if name in SLIDING and "draft_tokens" in path else 64})
        one = engine.generate(PROMPTS, preferences, how.model_copy(update={"candidates": 1}))
        assert_agree(one, plain, requests)
        mixed = engine.generate(PROMPTS, beside, how, [3.0, 3.0, 0.0, 3.0, 3.0, 3.0])
        assert_agree(mixed[1:3], plain[1:3], requests[1:3])
        assert mixed[3:] != plain[3:]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompts=st.lists(st.lists(st.integers(4, 200), min_size=1, max_size=20), min_size=1, max_size=5),
    weight=st.floats(-3, 3),
    candidates=st.integers(1, 40),
)
def test_batch_equals_single_for_any_prompts_weights_and_candidate_counts(
    prompts: list[list[int]], weight: float, candidates: int, byte_tokenizer: Any
) -> None:
    policy, backbone = (make_language_model(byte_tokenizer, seed=s, hidden_size=16) for s in (5, 6))
    model = make_reward_model(backbone)
    how = HOW.model_copy(update={"candidates": candidates, "guidance_weight": weight, "max_new_tokens": 8})
    preferences, _ = _wanted(model, len(prompts))
    engine = PadEngine(policy, model)
    together = generate_ids(engine, prompts, preferences, how)
    apart = generate_ids(engine, prompts, preferences, how.model_copy(update={"batch_size": 1}))
    assert_agree(together, apart, alone(engine, prompts, preferences, how))
