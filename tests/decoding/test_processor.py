"""`PreferenceLogitsProcessor` inside transformers' own `generate`."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList

from pad_cli.decoding.engine import NO_PREFERENCE, PadEngine
from pad_cli.decoding.processor import PreferenceLogitsProcessor
from pad_cli.errors import UsageError
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel, PromptRewardModel
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages
from tests.agreement import alone, assert_agree
from tests.architectures import make_architecture
from tests.decoding.adapters import train_lora, with_adapter
from tests.decoding.conftest import PROMPTS
from tests.tiny import make_reward_model
from tests.token_prompts import generate_ids

HOW = DecodingSettings(max_new_tokens=16, guidance_weight=2)


def _generate(
    policy: LanguageModel, prompts: list[list[int]], processor: PreferenceLogitsProcessor, **how: object
) -> list[list[int]]:
    """New tokens of transformers' `generate`, end of sequence included, padding left out."""
    longest = max(map(len, prompts))
    tokens = torch.tensor([[policy.tokenizer.pad_token_id] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    how = {"max_new_tokens": HOW.max_new_tokens, "do_sample": False, **how}
    chain = LogitsProcessorList([processor])
    new = policy.model.generate(input_ids=tokens, attention_mask=mask, logits_processor=chain, **how)[:, longest:]
    answers = []
    for row in new.tolist():
        end = next((i for i, token in enumerate(row) if token in policy.end_tokens), len(row) - 1)
        answers.append(row[: end + 1])
    return answers


@pytest.fixture
def prompts(policy: LanguageModel) -> list[list[int]]:
    return [encode_prompt(policy.tokenizer, as_messages(prompt)) for prompt in PROMPTS[:4]]


@pytest.mark.parametrize("plausibility", [0.0, 0.5])
@pytest.mark.parametrize("which", ["policy", "other_policy"])
def test_the_processor_inside_generate_equals_the_engine(
    which: str,
    plausibility: float,
    prompts: list[list[int]],
    reward_model: PersonalizedRewardModel,
    request: pytest.FixtureRequest,
) -> None:
    steered = request.getfixturevalue(which)
    names = ["humorous", "formal", "concise=0.5", "not formal"]
    preferences = [reward_model.preference([name]) for name in names]
    processor = PreferenceLogitsProcessor(
        reward_model, preferences, guidance_weight=HOW.guidance_weight, plausibility=plausibility
    )
    engine, how = PadEngine(steered, reward_model), HOW.model_copy(update={"plausibility": plausibility})
    expected = generate_ids(engine, prompts, preferences, how)
    assert_agree(_generate(steered, prompts, processor), expected, alone(engine, prompts, preferences, how))
    plain = generate_ids(PadEngine(steered), prompts, None, HOW)
    assert expected != plain


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("which", ["its own backbone", "another policy"])
def test_with_an_adapter_too_the_processor_equals_the_engine(
    which: str, policy: LanguageModel, other_policy: LanguageModel, prompts: list[list[int]]
) -> None:
    backbone = wrap_language_model("own", copy.deepcopy(policy.model), policy.tokenizer)
    model = with_adapter(make_reward_model(backbone), train_lora(backbone))
    steered = backbone if which == "its own backbone" else other_policy
    preferences = [model.preference([name]) for name in ("humorous", "formal", "concise=0.5")] + [NO_PREFERENCE]
    processor = PreferenceLogitsProcessor(model, preferences, guidance_weight=HOW.guidance_weight)
    engine = PadEngine(steered, model)
    assert engine.path(HOW) == ("paired" if steered is backbone else "separate")
    expected = generate_ids(engine, prompts, preferences, HOW)
    assert_agree(_generate(steered, prompts, processor), expected, alone(engine, prompts, preferences, HOW))
    heads_alone = generate_ids(PadEngine(steered, replace(model, adapter=None)), prompts, preferences, HOW)
    plain = generate_ids(PadEngine(steered), prompts, None, HOW)
    assert expected != heads_alone != plain
    assert_agree(expected[3:], plain[3:], alone(engine, prompts[3:], None, HOW))


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_a_prompt_of_nothing_but_the_pad_token_is_a_prompt(
    name: str, others: int, prompts: list[list[int]], byte_tokenizer: Any
) -> None:
    """Where the end of sequence is the padding, too, it can be one."""
    policy = make_architecture(name, byte_tokenizer)
    model = make_reward_model(policy, scale=1.0)
    texts = [[policy.tokenizer.pad_token_id], *prompts[:others]]
    humorous = model.preference(["humorous"])
    processor = PreferenceLogitsProcessor(model, [humorous], guidance_weight=HOW.guidance_weight)
    engine = PadEngine(policy, model)
    expected = generate_ids(engine, texts, [humorous] * len(texts), HOW)
    assert_agree(_generate(policy, texts, processor), expected, alone(engine, texts, humorous, HOW))
    assert expected[0] != generate_ids(PadEngine(policy), texts, None, HOW)[0]


def test_a_prompt_of_the_pad_token_is_still_there_when_beams_are_reordered(byte_tokenizer: Any) -> None:
    model = make_reward_model(make_architecture("llama", byte_tokenizer), scale=1.0)
    pad, logits = byte_tokenizer.pad_token_id, torch.randn(1, len(byte_tokenizer))
    preferences = [model.preference(["humorous"])]
    in_order, reordered = (PreferenceLogitsProcessor(model, preferences) for _ in range(2))
    for written in ([], [6], [6, 7]):
        expected = in_order(torch.tensor([[pad, *written]]), logits)
    for written in ([], [5], [6, 7]):
        scores = reordered(torch.tensor([[pad, *written]]), logits)
    torch.testing.assert_close(scores, expected)


def test_the_processor_can_be_used_again(
    policy: LanguageModel, prompts: list[list[int]], reward_model: PersonalizedRewardModel
) -> None:
    processor = PreferenceLogitsProcessor(reward_model, [reward_model.preference(["humorous"])], guidance_weight=2)
    first = _generate(policy, prompts, processor)
    request = alone(PadEngine(policy, reward_model), prompts[:1], reward_model.preference(["humorous"]), HOW)
    assert_agree(_generate(policy, prompts[:1], processor), first[:1], request)
    assert _generate(policy, prompts, processor) == first


def test_beams_that_are_reordered_are_read_again(
    policy: LanguageModel, prompts: list[list[int]], reward_model: PersonalizedRewardModel
) -> None:
    """One candidate leaves the policy's own greedy path, whatever the beams do in between."""
    processor = PreferenceLogitsProcessor(reward_model, [reward_model.preference(["humorous"])], candidates=1)
    engine = PadEngine(policy)
    greedy = generate_ids(engine, prompts[:1], None, HOW)
    assert_agree(_generate(policy, prompts[:1], processor, num_beams=2), greedy, alone(engine, prompts[:1], None, HOW))


def test_preferences_must_be_one_or_as_many_as_rows(
    policy: LanguageModel, prompts: list[list[int]], reward_model: PersonalizedRewardModel
) -> None:
    processor = PreferenceLogitsProcessor(reward_model, [reward_model.preference(["humorous"])] * 3)
    with pytest.raises(UsageError, match="3 preferences for 4 rows"):
        _generate(policy, prompts, processor)


def test_a_reward_model_that_reads_the_preference_in_its_prompt_is_refused(policy: LanguageModel) -> None:
    model = PromptRewardModel(policy, torch.nn.Linear(policy.hidden_size, policy.hidden_size).requires_grad_(False))
    with pytest.raises(UsageError, match="in its prompt"):
        PreferenceLogitsProcessor(model, [model.preference(["humorous"])])
