"""Decoding from several experts: against the sum written plainly, and where it must be plain decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.mixture import Expert, _request, generate_mixture
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from pad_cli.models.prompts import encode_prompt
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages
from tests.agreement import assert_agree
from tests.architectures import make_architecture
from tests.decoding.adapters import train_lora, with_adapter
from tests.decoding.conftest import PROMPTS
from tests.decoding.slow import last_state
from tests.tiny import make_language_model, make_reward_model

NAMES = [f"item {number}" for number in range(len(PROMPTS))]
OTHERS = [f"{prompt} Write in this style: {'odd ' * number}" for number, prompt in enumerate(PROMPTS)]
FIRST = [1.0, 2.5, 1.4, 0.0, 1.0, 0.3]
SECOND = [0.0, -1.5, 0.6, 1.0, 2.0, -0.3]


def settings(**changed: object) -> DecodingSettings:
    return DecodingSettings.model_validate({"max_new_tokens": 16, **changed})


def expert(model: LanguageModel, prompts: Sequence[str], weights: float | Sequence[float] = 1.0, **more: Any) -> Expert:
    tokens = [encode_prompt(model.tokenizer, as_messages(prompt)) for prompt in prompts]
    return Expert(model, tokens, [weights] * len(tokens) if isinstance(weights, float) else list(weights), **more)


def agree(first: list[list[int]], second: list[list[int]], experts: Sequence[Expert], how: DecodingSettings) -> None:
    """The mixture's answers to all prompts are the same but for near ties."""
    parts = [[each.part(row, row + 1) for each in experts] for row in range(len(NAMES))]
    assert_agree(first, second, [_request(part, how, [name]) for part, name in zip(parts, NAMES, strict=True)])


def plain(policy: LanguageModel, prompts: Sequence[str], how: DecodingSettings) -> list[list[int]]:
    return [list(answer.token_ids) for answer in PadEngine(policy).generate(prompts, None, how, streams=NAMES)]


@torch.inference_mode()
def slow(experts: Sequence[Expert], how: DecodingSettings) -> list[list[int]]:
    """The greedy answer of each row on its own: no cache, everything read again for every token."""
    answers = []
    for row in range(len(experts[0].prompts)):
        answer: list[int] = []
        while len(answer) < how.max_new_tokens:
            logs = [each.model.head(last_state(each.model, [*each.prompts[row], *answer])) for each in experts]
            logs = [found[0].log_softmax(-1) for found in logs]
            candidates = logs[0].topk(how.candidates).indices
            parts = [each.weights[row] * log[candidates] for each, log in zip(experts, logs, strict=True)]
            answer.append(int(candidates[torch.stack(parts).sum(0).argmax()]))
            if answer[-1] in experts[0].model.end_tokens:
                break
        answers.append(answer)
    return answers


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"temperature": 1.2, "top_p": 0.9},
        {"candidates": 3, "batch_size": 4},
        {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    ],
    ids=["greedy", "sampled", "three candidates", "repetition controls"],
)
def test_one_expert_of_weight_1_is_plain_decoding(stopping_policy: LanguageModel, changed: dict[str, Any]) -> None:
    how, experts = settings(**changed), [expert(stopping_policy, PROMPTS)]
    agree(generate_mixture(experts, how, NAMES), plain(stopping_policy, PROMPTS, how), experts, how)


def test_cached_equals_uncached_with_several_models_and_weights_a_row(
    stopping_policy: LanguageModel, other_policy: LanguageModel
) -> None:
    experts = [
        expert(stopping_policy, PROMPTS, FIRST),
        expert(other_policy, OTHERS, SECOND),
        expert(other_policy, PROMPTS),
    ]
    answers = generate_mixture(experts, settings(), NAMES)
    agree(answers, slow(experts, settings()), experts, settings())
    assert len({len(answer) for answer in answers}) > 2, "rows should end at different steps"


@pytest.mark.parametrize("name", ["gemma2", "mistral", "gpt2", "opt"])
def test_cached_equals_uncached_in_other_architectures(name: str, byte_tokenizer: Any) -> None:
    """One model under two prompts."""
    model = make_architecture(name, byte_tokenizer)
    model.model.generation_config.eos_token_id = list(range(1, model.vocabulary_size, 20))
    experts = [expert(model, OTHERS, FIRST), expert(model, PROMPTS, SECOND)]
    agree(generate_mixture(experts, settings(), NAMES), slow(experts, settings()), experts, settings())


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_batch_equals_single(stopping_policy: LanguageModel, other_policy: LanguageModel, temperature: float) -> None:
    how = settings(temperature=temperature)
    experts = [
        expert(stopping_policy, OTHERS, FIRST),
        expert(other_policy, PROMPTS),
        expert(stopping_policy, PROMPTS, SECOND),
    ]
    together = generate_mixture(experts, how, NAMES)
    for size in (1, 2):
        apart = generate_mixture(experts, settings(temperature=temperature, batch_size=size), NAMES)
        agree(together, apart, experts, how)


def test_weights_that_cancel_out_are_plain_decoding(
    stopping_policy: LanguageModel, other_policy: LanguageModel
) -> None:
    expected = plain(stopping_policy, PROMPTS, settings())
    first = expert(stopping_policy, PROMPTS)
    cancelling = [expert(other_policy, OTHERS, 0.7), expert(other_policy, OTHERS, -0.7)]
    agree(generate_mixture([first, *cancelling], settings(), NAMES), expected, [first], settings())
    itself = [expert(stopping_policy, PROMPTS, 2.5), expert(stopping_policy, PROMPTS, -1.5)]
    agree(generate_mixture(itself, settings(), NAMES), expected, [first], settings())


def test_a_expert_of_weight_0_says_nothing(stopping_policy: LanguageModel, other_policy: LanguageModel) -> None:
    experts = [expert(stopping_policy, PROMPTS), expert(other_policy, OTHERS, 0.0)]
    expected = plain(stopping_policy, PROMPTS, settings())
    agree(generate_mixture(experts, settings(), NAMES), expected, experts, settings())
    assert generate_mixture([experts[0], expert(other_policy, OTHERS, 2.0)], settings(), NAMES) != expected


def test_repetition_controls_act_once_whatever_the_first_experts_weight(stopping_policy: LanguageModel) -> None:
    """What n-grams forbid is minus infinity, which no negative weight may turn round."""
    how = settings(repetition_penalty=1.4, no_repeat_ngram_size=1)
    itself = [expert(stopping_policy, PROMPTS, 3.0), expert(stopping_policy, PROMPTS, -2.0)]
    answers = generate_mixture(itself, how, NAMES)
    agree(answers, plain(stopping_policy, PROMPTS, how), itself, how)
    assert answers != plain(stopping_policy, PROMPTS, settings())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_expert_with_an_adapter_is_the_model_with_those_weights_merged(stopping_policy: LanguageModel) -> None:
    trained = train_lora(stopping_policy)
    adapter = with_adapter(make_reward_model(stopping_policy), trained).adapter
    merged = wrap_language_model("merged", trained.merge_and_unload(), stopping_policy.tokenizer)
    plainly = expert(stopping_policy, PROMPTS, FIRST)
    experts = [plainly, expert(stopping_policy, OTHERS, SECOND, adapter=adapter)]
    hooked = generate_mixture(experts, settings(), NAMES)
    agree(hooked, generate_mixture([plainly, expert(merged, OTHERS, SECOND)], settings(), NAMES), experts, settings())
    assert hooked != generate_mixture([plainly, expert(stopping_policy, OTHERS, SECOND)], settings(), NAMES)


def test_unembeddings_padded_to_different_sizes_share_the_tokens_that_both_have(byte_tokenizer: Any) -> None:
    """The larger one has rows that would win every step."""
    small, large = (make_language_model(byte_tokenizer, seed=seed) for seed in (3, 4))
    size = large.vocabulary_size
    large.model.resize_token_embeddings(size + 8, mean_resizing=False)
    large.model.lm_head.weight[size:] = 40 * torch.randn(8, large.hidden_size, generator=torch.manual_seed(0))
    padded = wrap_language_model("padded", large.model, byte_tokenizer)
    assert any(max(answer) >= size for answer in generate_mixture([expert(padded, PROMPTS)], settings(), NAMES))
    answers = generate_mixture([expert(padded, PROMPTS), expert(small, PROMPTS)], settings(), NAMES)
    assert all(max(answer) < size for answer in answers)
