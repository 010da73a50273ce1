"""`PreferenceLogitsProcessor` inside transformers' own `generate`."""

from __future__ import annotations

import pytest
import torch
from transformers import LogitsProcessorList

from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.processor import PreferenceLogitsProcessor
from pad_cli.errors import UsageError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages
from tests.decoding.conftest import PROMPTS

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


@pytest.mark.parametrize("which", ["policy", "other_policy"])
def test_the_processor_inside_generate_equals_the_engine(
    which: str, prompts: list[list[int]], reward_model: PersonalizedRewardModel, request: pytest.FixtureRequest
) -> None:
    steered = request.getfixturevalue(which)
    names = ["humorous", "formal", "concise=0.5", "not formal"]
    preferences = [reward_model.preference([name]) for name in names]
    processor = PreferenceLogitsProcessor(reward_model, preferences, guidance_weight=HOW.guidance_weight)
    expected = PadEngine(steered, reward_model).generate_ids(prompts, preferences, HOW)
    assert _generate(steered, prompts, processor) == expected
    plain = PadEngine(steered).generate_ids(prompts, None, HOW)
    assert expected != plain


def test_the_processor_can_be_used_again_without_reset(
    policy: LanguageModel, prompts: list[list[int]], reward_model: PersonalizedRewardModel
) -> None:
    processor = PreferenceLogitsProcessor(reward_model, [reward_model.preference(["humorous"])], guidance_weight=2)
    first = _generate(policy, prompts, processor)
    assert _generate(policy, prompts[:1], processor) == first[:1]
    assert _generate(policy, prompts, processor) == first
    processor.reset()
    assert _generate(policy, prompts, processor) == first


def test_beams_that_are_reordered_are_read_again(
    policy: LanguageModel, prompts: list[list[int]], reward_model: PersonalizedRewardModel
) -> None:
    """One candidate leaves the policy's own greedy path, whatever the beams do in between."""
    processor = PreferenceLogitsProcessor(reward_model, [reward_model.preference(["humorous"])], candidates=1)
    greedy = PadEngine(policy).generate_ids(prompts[:1], None, HOW)
    assert _generate(policy, prompts[:1], processor, num_beams=2) == greedy


def test_preferences_must_be_one_or_as_many_as_rows(
    policy: LanguageModel, prompts: list[list[int]], reward_model: PersonalizedRewardModel
) -> None:
    processor = PreferenceLogitsProcessor(reward_model, [reward_model.preference(["humorous"])] * 3)
    with pytest.raises(UsageError, match="3 preferences for 4 rows"):
        _generate(policy, prompts, processor)
