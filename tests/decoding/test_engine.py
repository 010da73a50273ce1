"""The engine's promises, in float32: however it decodes, the answer is the same (but for near ties)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from tokenizers import normalizers
from transformers import MambaConfig, MambaForCausalLM

from pad_cli.decoding.engine import NO_PREFERENCE, PadEngine
from pad_cli.errors import DataError, RecipeError, UsageError, VocabularyError
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings, read_recipe
from pad_cli.records import as_messages
from tests.agreement import alone, assert_agree
from tests.architectures import make_architecture
from tests.decoding.adapters import train_lora, with_adapter
from tests.decoding.conftest import PROMPTS
from tests.decoding.slow import slow_greedy
from tests.tiny import make_language_model, make_reward_model, make_tokenizer
from tests.token_prompts import generate_ids

SPECS = (["humorous"], ["formal, concise=0.5"], ["not humorous"], ["concise=2"], ["humorous", "formal"], ["not formal"])
WEIGHTS = (1.0, 0.5, 2.0, 3.0, 0.0, -1.0)


def settings(**changed: object) -> DecodingSettings:
    return DecodingSettings.model_validate({"max_new_tokens": 24, **changed})


def read(model: PersonalizedRewardModel) -> list[Preference]:
    return [model.preference(specs) for specs in SPECS]


def plain_greedy(policy: LanguageModel, prompt: str, length: int = 24) -> tuple[int, ...]:
    """The answer of transformers' own greedy search."""
    tokens = torch.tensor([encode_prompt(policy.tokenizer, as_messages(prompt))])
    new = policy.model.generate(
        input_ids=tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        max_new_tokens=length,
        eos_token_id=sorted(policy.end_tokens),
        pad_token_id=policy.tokenizer.pad_token_id,
    )
    return tuple(new[0, tokens.shape[1] :].tolist())


@pytest.fixture(params=["runs to the limit", "stops early"])
def engine(request: pytest.FixtureRequest) -> PadEngine:
    if request.param == "stops early":
        names = ("stopping_policy", "stopping_reward_model")
    else:
        names = ("policy", "reward_model")
    return PadEngine(*(request.getfixturevalue(name) for name in names))


def test_a_recipe_of_another_kind_makes_no_engine() -> None:
    with pytest.raises(RecipeError, match="kind 'eval'"):
        PadEngine.from_recipe(read_recipe("embedded-eval"))


def test_without_a_reward_model_decoding_is_plain_greedy(stopping_policy: LanguageModel) -> None:
    engine = PadEngine(stopping_policy)
    answers = engine.generate(PROMPTS, settings=settings())
    assert_agree(answers, [plain_greedy(stopping_policy, p) for p in PROMPTS], alone(engine, PROMPTS, None, settings()))


@pytest.mark.parametrize("path", ["fused", "separate"])
@pytest.mark.parametrize(
    ("changed", "preferred"),
    [
        ({"guidance_weight": 0.0}, True),
        ({"candidates": 1, "guidance_weight": 5.0}, True),
        ({"plausibility": 1.0, "guidance_weight": 5.0}, True),
        ({}, False),
    ],
    ids=["weight 0", "one candidate", "one plausible candidate", "no preference"],
)
def test_weight_0_and_one_candidate_and_no_preference_are_plain_greedy(
    engine: PadEngine, path: str, changed: dict[str, float], preferred: bool
) -> None:
    assert engine.reward_model is not None
    preferences = read(engine.reward_model) if preferred else None
    answers = engine.generate(PROMPTS, preferences, settings(path=path, **changed))
    expected = [plain_greedy(engine.policy, p) for p in PROMPTS]
    assert_agree(answers, expected, alone(engine, PROMPTS, None, settings()))


def test_rows_of_weight_0_or_without_preference_are_plain_greedy_beside_guided_rows(engine: PadEngine) -> None:
    assert engine.reward_model is not None
    humorous = engine.preference(["humorous"])
    prompts, preferences = PROMPTS[:3], [humorous, humorous, NO_PREFERENCE]
    answers = engine.generate(prompts, preferences, settings(), [4.0, 0.0, 4.0])
    plain, requests = [plain_greedy(engine.policy, p) for p in prompts], alone(engine, prompts, None, settings())
    assert answers[0].token_ids != plain[0]
    assert_agree(answers[1:], plain[1:], requests[1:])


@pytest.mark.parametrize("reward_ngram", [0, 1, 2])
def test_cached_equals_uncached(engine: PadEngine, reward_ngram: int) -> None:
    assert engine.reward_model is not None
    model, how = engine.reward_model, settings(guidance_weight=2.0, reward_ngram=reward_ngram)
    preferences = read(model)
    answers = engine.generate(PROMPTS, preferences, how)
    slow = [slow_greedy(engine.policy, model, *row, how) for row in zip(PROMPTS, preferences, strict=True)]
    assert_agree(answers, slow, alone(engine, PROMPTS, preferences, how))


def test_cached_equals_uncached_on_another_backbone(
    stopping_policy: LanguageModel, other_policy: LanguageModel
) -> None:
    model, how = make_reward_model(other_policy), settings(guidance_weight=2.0)
    preferences = read(model)
    engine = PadEngine(stopping_policy, model)
    answers = engine.generate(PROMPTS, preferences, how)
    slow = [slow_greedy(stopping_policy, model, *row, how) for row in zip(PROMPTS, preferences, strict=True)]
    assert_agree(answers, slow, alone(engine, PROMPTS, preferences, how))
    assert len({len(tokens) for tokens in slow}) > 2, "rows should end at different steps"


@pytest.mark.parametrize("name", ["gemma2", "mistral", "gpt2", "opt", "cohere"])
def test_cached_equals_uncached_in_other_architectures(name: str, byte_tokenizer: Any) -> None:
    """Gemma 2 and Mistral with a window of 8 tokens, shorter than every prompt but one."""
    policy = make_architecture(name, byte_tokenizer)
    policy.model.generation_config.eos_token_id = list(range(1, policy.vocabulary_size, 20))
    model, how = make_reward_model(policy), settings(guidance_weight=2.0)
    preferences = read(model)
    engine = PadEngine(policy, model)
    answers = engine.generate(PROMPTS, preferences, how)
    slow = [slow_greedy(policy, model, *row, how) for row in zip(PROMPTS, preferences, strict=True)]
    assert_agree(answers, slow, alone(engine, PROMPTS, preferences, how))


@pytest.mark.parametrize("path", ["fused", "separate"])
def test_batch_equals_single_with_a_preference_and_a_weight_for_each_row(engine: PadEngine, path: str) -> None:
    assert engine.reward_model is not None
    preferences, how = read(engine.reward_model), settings(path=path)
    together = engine.generate(PROMPTS, preferences, how, WEIGHTS)
    apart = [
        engine.generate([prompt], [preference], how, [weight])[0]
        for prompt, preference, weight in zip(PROMPTS, preferences, WEIGHTS, strict=True)
    ]
    assert_agree(together, apart, alone(engine, PROMPTS, preferences, how, WEIGHTS))
    assert len({answer.token_ids for answer in together}) == len(PROMPTS)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_the_batch_size_changes_no_answer(engine: PadEngine, batch_size: int) -> None:
    assert engine.reward_model is not None
    preferences, finished = read(engine.reward_model), []
    whole = engine.generate(PROMPTS, preferences, settings(), WEIGHTS)
    parts = engine.generate(PROMPTS, preferences, settings(batch_size=batch_size), WEIGHTS, on_batch=finished.append)
    assert_agree(parts, whole, alone(engine, PROMPTS, preferences, settings(), WEIGHTS))
    assert sum(finished) == len(PROMPTS)
    assert max(finished) == batch_size


def test_padded_equals_unpadded(engine: PadEngine) -> None:
    preference = engine.preference(["humorous, formal"])
    unpadded = engine.generate(["Hi"], [preference], settings())
    padded = engine.generate(["Hi", "long " * 30], [preference, preference], settings())
    assert_agree(padded[:1], unpadded, alone(engine, ["Hi"], [preference], settings()))


def test_fused_equals_separate(engine: PadEngine) -> None:
    assert engine.reward_model is not None
    preferences = read(engine.reward_model)
    fused = engine.generate(PROMPTS, preferences, settings(path="fused"), WEIGHTS)
    separate = engine.generate(PROMPTS, preferences, settings(path="separate"), WEIGHTS)
    assert_agree(fused, separate, alone(engine, PROMPTS, preferences, settings(), WEIGHTS))


def test_auto_is_fused_on_the_backbone_itself_and_separate_elsewhere(
    policy: LanguageModel, other_policy: LanguageModel
) -> None:
    assert PadEngine(policy, make_reward_model(policy)).path(settings()) == "fused"
    assert PadEngine(policy, make_reward_model(other_policy)).path(settings()) == "separate"


def test_rows_that_finish_early_do_not_change_other_rows(
    stopping_policy: LanguageModel, stopping_reward_model: PersonalizedRewardModel
) -> None:
    engine, how = PadEngine(stopping_policy, stopping_reward_model), settings(max_new_tokens=40)
    preferences = read(stopping_reward_model)
    together = engine.generate(PROMPTS, preferences, how)
    lengths = sorted(len(answer.token_ids) for answer in together)
    assert lengths[0] < lengths[-1] / 2, "some rows should leave the batch long before others"
    longest = max(range(len(PROMPTS)), key=lambda row: len(together[row].token_ids))
    row = slice(longest, longest + 1)
    apart = engine.generate(PROMPTS[row], preferences[row], how)
    assert_agree(together[row], apart, alone(engine, PROMPTS[row], preferences[row], how))


def test_an_answer_stops_at_its_first_end_token_and_says_why(
    stopping_policy: LanguageModel, stopping_reward_model: PersonalizedRewardModel
) -> None:
    engine = PadEngine(stopping_policy, stopping_reward_model)
    answers = engine.generate(PROMPTS, read(stopping_reward_model), settings(max_new_tokens=12))
    for answer in answers:
        ends = [token in stopping_policy.end_tokens for token in answer.token_ids]
        assert not any(ends[:-1])
        assert answer.finish_reason == ("stop" if ends[-1] else "length")
        assert ends[-1] or len(answer.token_ids) == 12
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}


def test_the_text_is_the_tokens_without_special_and_end_tokens(engine: PadEngine) -> None:
    answer = engine.generate(["Hi"], [engine.preference(["formal"])], settings())[0]
    text = [token for token in answer.token_ids if token not in engine.policy.end_tokens]
    assert answer.text == engine.policy.tokenizer.decode(text, skip_special_tokens=True).strip()


def test_a_larger_guidance_weight_earns_a_larger_reward(policy: LanguageModel) -> None:
    """Each first token maximises log pi + weight * r, so its reward cannot fall as the weight grows."""
    engine = PadEngine(policy, make_reward_model(policy))
    model, preference = engine.reward_model, engine.preference(["humorous"])
    assert model is not None
    weights = [-4.0, -1.0, 0.0, 1.0, 4.0, 16.0]
    for prompt in PROMPTS:
        answers = engine.generate([prompt] * 6, [preference] * 6, settings(max_new_tokens=1, reward_ngram=0), weights)
        state = torch.tensor([encode_prompt(policy.tokenizer, as_messages(prompt))])
        hidden = policy.hidden_states(state, torch.ones_like(state))[:, -1]
        change = policy.head(hidden + model.shift(hidden, model.weights([preference]))) - policy.head(hidden)
        rewards = [change[0, answer.token_ids[0]].item() for answer in answers]
        assert rewards == sorted(rewards)
        assert rewards[-1] > rewards[0]


def test_the_calibration_multiplies_the_guidance_weight(engine: PadEngine) -> None:
    assert engine.reward_model is not None
    preferences = read(engine.reward_model)
    doubled = PadEngine(engine.policy, replace(engine.reward_model, calibration=2.0))
    assert doubled.generate(PROMPTS, preferences, settings(guidance_weight=1.0)) == engine.generate(
        PROMPTS, preferences, settings(guidance_weight=2.0)
    )


def adapted_backbone() -> PersonalizedRewardModel:
    backbone = make_language_model(make_tokenizer(), seed=0)
    return with_adapter(make_reward_model(backbone), train_lora(backbone))


def recurrent_backbone() -> PersonalizedRewardModel:
    tokenizer = make_tokenizer()
    config = MambaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=1, state_size=4
    )
    model = MambaForCausalLM(config).eval().requires_grad_(False)
    return make_reward_model(wrap_language_model("recurrent", model, tokenizer))


def lower_case_backbone() -> PersonalizedRewardModel:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    return make_reward_model(make_language_model(tokenizer, seed=0))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("make", [adapted_backbone, recurrent_backbone, lower_case_backbone])
def test_a_reward_model_that_cannot_follow_another_vocabulary_is_refused(
    make: Callable[[], PersonalizedRewardModel],
) -> None:
    foreign = make_language_model(make_tokenizer(extra=("<extra>",)), seed=0)
    with pytest.raises(VocabularyError, match="different vocabularies") as caught:
        PadEngine(foreign, make())
    assert caught.value.hint
    same = make_language_model(make_tokenizer(), seed=1)
    assert PadEngine(same, make()).path(settings()) == "separate"


def test_prompts_as_tokens_are_refused_where_vocabularies_differ(policy: LanguageModel) -> None:
    engine = PadEngine(make_language_model(make_tokenizer(extra=("<extra>",)), seed=0), make_reward_model(policy))
    with pytest.raises(UsageError, match="text"):
        generate_ids(engine, [[5, 6]], [engine.preference(["formal"])], settings())


def test_path_fused_on_another_backbone_is_refused(policy: LanguageModel, other_policy: LanguageModel) -> None:
    engine = PadEngine(policy, make_reward_model(other_policy))
    with pytest.raises(UsageError, match="fused"):
        engine.generate(["Hi"], [engine.preference(["formal"])], settings(path="fused"))


def test_a_preference_without_a_reward_model_is_refused(policy: LanguageModel) -> None:
    with pytest.raises(UsageError, match="reward model"):
        PadEngine(policy).preference(["formal"])


@pytest.mark.parametrize("short", ["preferences", "guidance_weights", "streams"])
def test_preferences_weights_and_streams_must_be_as_many_as_prompts(
    policy: LanguageModel, reward_model: PersonalizedRewardModel, short: str
) -> None:
    """One preference for three prompts would otherwise steer all three or one, depending on the batch."""
    engine = PadEngine(policy, reward_model)
    formal = engine.preference(["formal"])
    arguments = {"preferences": [formal] * 3, "guidance_weights": [1.0] * 3, "streams": ["a", "b", "c"]}
    arguments[short] = arguments[short][:1]
    with pytest.raises(UsageError, match="3 prompts"):
        engine.generate(PROMPTS[:3], settings=settings(), **arguments)


def test_an_empty_prompt_is_refused_and_no_prompts_give_no_answers(policy: LanguageModel) -> None:
    with pytest.raises(DataError, match="empty"):
        PadEngine(policy).generate(["Hi", " "], settings=settings())
    assert PadEngine(policy).generate([]) == []
