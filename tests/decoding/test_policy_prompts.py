"""The policy reads other prompts than the reward model: guided as the equations have it, on every path."""

from __future__ import annotations

import pytest
import torch

from pad_cli.decoding.engine import PadEngine
from pad_cli.equation import candidate_rewards, guided_scores, select_candidates, withhold_repeats
from pad_cli.errors import UsageError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages
from tests.decoding.adapters import train_lora, with_adapter
from tests.decoding.conftest import PROMPTS
from tests.decoding.slow import last_state
from tests.tiny import make_language_model, make_reward_model, make_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
READS = [f"{prompt} Write in this style: {'odd ' * (5 - number)}" for number, prompt in enumerate(PROMPTS)]
SPECS = (["humorous"], ["formal, concise=0.5"], ["not humorous"], ["concise=2"], ["humorous", "formal"], ["not formal"])
WEIGHTS = [1.0, 0.5, 2.0, 3.0, 0.0, -1.0]


def settings(**changed: object) -> DecodingSettings:
    return DecodingSettings.model_validate({"max_new_tokens": 16, "batch_size": 4, **changed})


def preferences(model: PersonalizedRewardModel) -> list[Preference]:
    return [model.preference(specs) for specs in SPECS]


def tokens(engine: PadEngine, how: DecodingSettings, reads: list[str] | None = None) -> list[tuple[int, ...]]:
    assert isinstance(engine.reward_model, PersonalizedRewardModel)
    wanted = preferences(engine.reward_model)
    answers = engine.generate(PROMPTS, wanted, how, WEIGHTS, policy_prompts=reads)
    return [answer.token_ids for answer in answers]


@torch.inference_mode()
def slow(policy: LanguageModel, model: PersonalizedRewardModel, row: int, how: DecodingSettings) -> tuple[int, ...]:
    """One answer without a cache; each side reads its own prompt."""
    theirs, plain = (encode_prompt(policy.tokenizer, as_messages(text)) for text in (READS[row], PROMPTS[row]))
    backbone, weights, answer = model.backbone, model.weights([preferences(model)[row]]), list[int]()
    while len(answer) < how.max_new_tokens:
        candidates, log_probs = select_candidates(policy.head(last_state(policy, [*theirs, *answer])), how.candidates)
        hidden = last_state(backbone, [*plain, *answer])
        reference = None
        if model.adapter is not None:
            reference = backbone.head.at(hidden, candidates)
            with model.adapter.on_rows_from(0):
                hidden = last_state(backbone, [*plain, *answer])
        rewards = candidate_rewards(backbone.head, hidden, model.shift(hidden, weights), candidates, reference)
        history = torch.tensor([answer], dtype=torch.long)
        rewards = withhold_repeats(rewards, log_probs, candidates, history, how.reward_ngram)
        best = guided_scores(log_probs, rewards, torch.tensor([WEIGHTS[row]])).argmax(-1)
        answer.append(int(candidates[0, best]))
        if answer[-1] in policy.end_tokens:
            break
    return tuple(answer)


@pytest.mark.parametrize("form", ["heads", "adapter", "another backbone"])
def test_each_side_reads_its_own_prompt(
    form: str,
    stopping_policy: LanguageModel,
    other_policy: LanguageModel,
    stopping_reward_model: PersonalizedRewardModel,
) -> None:
    model = stopping_reward_model
    if form == "adapter":
        model = with_adapter(model, train_lora(stopping_policy))
    elif form == "another backbone":
        model = make_reward_model(other_policy, seed=2)
    answers = tokens(PadEngine(stopping_policy, model), settings(), READS)
    assert answers == [slow(stopping_policy, model, row, settings()) for row in range(len(PROMPTS))]
    assert answers != tokens(PadEngine(stopping_policy, model), settings())


def test_paired_equals_separate(stopping_policy: LanguageModel, stopping_reward_model: PersonalizedRewardModel) -> None:
    engine = PadEngine(stopping_policy, stopping_reward_model)
    paired, separate = (tokens(engine, settings(path=path), READS) for path in ("paired", "separate"))
    assert paired == separate


@pytest.mark.parametrize("same", ["vocabulary", "nothing"])
def test_weight_0_is_plain_decoding_of_what_the_policy_reads(
    same: str, stopping_policy: LanguageModel, stopping_reward_model: PersonalizedRewardModel
) -> None:
    policy = stopping_policy
    if same == "nothing":
        policy = make_language_model(make_tokenizer(extra=("<extra>",)), seed=3)
    engine = PadEngine(policy, stopping_reward_model)
    zero = engine.generate(
        PROMPTS, preferences(stopping_reward_model), settings(), [0.0] * len(PROMPTS), policy_prompts=READS
    )
    assert zero == PadEngine(policy).generate(READS, None, settings())
    guided = engine.generate(PROMPTS, preferences(stopping_reward_model), settings(), policy_prompts=READS)
    assert guided != zero
    assert PadEngine(policy).generate(PROMPTS, None, settings(), policy_prompts=READS) == zero


def test_the_same_prompts_change_nothing(
    stopping_policy: LanguageModel, stopping_reward_model: PersonalizedRewardModel
) -> None:
    engine = PadEngine(stopping_policy, stopping_reward_model)
    assert tokens(engine, settings(path="fused"), list(PROMPTS)) == tokens(engine, settings(path="fused"))


def test_one_forward_for_both_is_refused_where_they_read_different_prompts(
    stopping_policy: LanguageModel, stopping_reward_model: PersonalizedRewardModel
) -> None:
    with pytest.raises(UsageError, match="fused"):
        tokens(PadEngine(stopping_policy, stopping_reward_model), settings(path="fused"), READS)
    adapted = with_adapter(stopping_reward_model, train_lora(stopping_policy))
    with pytest.raises(UsageError, match="paired"):
        tokens(PadEngine(stopping_policy, adapted), settings(path="paired"), READS)


def test_policy_prompts_must_be_as_many_as_prompts(policy: LanguageModel) -> None:
    with pytest.raises(UsageError, match="6 prompts"):
        PadEngine(policy).generate(PROMPTS, None, settings(), policy_prompts=READS[:1])
