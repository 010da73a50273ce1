"""Every path of the package gives the rewards of the equation, written out here from the models' own logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pad_cli.decoding.bridged import BridgedStrategy
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.processor import PreferenceLogitsProcessor
from pad_cli.decoding.strategies import Guidance
from pad_cli.evaluation.sequence_rewards import sequence_rewards
from pad_cli.learning.choices import Comparison
from pad_cli.learning.user_weights import choice_features
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel, PromptRewardModel, RewardModel
from pad_cli.recipe import DecodingSettings
from pad_cli.records import PreferencePair, as_messages
from pad_cli.training.evaluate_checkpoint import read_pair
from tests.decoding.adapters import train_lora, with_adapter
from tests.models.test_prompt_reward_model import make_head
from tests.tiny import PRINCIPLES, make_reward_model
from tests.token_prompts import score_candidates
from tests.training.conftest import make_rewards
from tests.uncached import score_uncached

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PROMPT, ANSWER = "Why do tides rise?", "The moon pulls."
SPECS = ["humorous", "not formal=0.5"]
FORMS = ("heads", "adapter", "prompt")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    """heads: relative to the state; adapter: to the plain backbone; prompt: to the policy (the released form)."""
    return str(request.param)


def make_model(form: str, policy: LanguageModel, other: LanguageModel) -> RewardModel:
    if form == "prompt":
        return PromptRewardModel(other, make_head(other.hidden_size))
    model = make_reward_model(policy)
    return with_adapter(model, train_lora(policy)) if form == "adapter" else model


def specs(form: str) -> list[str]:
    return ["text:plain words"] if form == "prompt" else SPECS


def all_rewards(form: str, model: RewardModel, policy: LanguageModel) -> tuple[list[int], torch.Tensor]:
    """The answer's T tokens, and r(p, s, a) of every token of the vocabulary before each of them: (T, V)."""
    preference = model.preference(specs(form))
    tokenizer = model.backbone.tokenizer
    context = encode_prompt(tokenizer, model.prompt(as_messages(PROMPT), preference))
    target = encode_answer(tokenizer, ANSWER)
    row = torch.tensor([[*context, *target[:-1]]])

    def read(language_model: LanguageModel) -> tuple[torch.Tensor, torch.Tensor]:
        output = language_model.model(input_ids=row, output_hidden_states=True)
        return output.hidden_states[-1][0, len(context) - 1 :], output.logits[0, len(context) - 1 :]

    hidden, plain = read(model.backbone)
    reference = read(policy)[1] if form == "prompt" else plain
    if model.adapter is not None:
        with model.adapter.on_rows_from(0):
            hidden, _ = read(model.backbone)
    if isinstance(model, PromptRewardModel):
        shifted = model.head(hidden)
    else:
        assert isinstance(model, PersonalizedRewardModel)
        (weights,) = model.weights([preference])
        shifted = hidden.clone()
        for k in range(len(PRINCIPLES)):
            shifted += weights[k] * hidden @ model.heads.down[k].T @ model.heads.up[k].T
    personalised = shifted @ model.backbone.model.lm_head.weight.T
    return target, personalised.log_softmax(-1) - reference.log_softmax(-1)


def realised(form: str, model: RewardModel, policy: LanguageModel) -> torch.Tensor:
    target, rewards = all_rewards(form, model, policy)
    return rewards[torch.arange(len(target)), torch.tensor(target)]


def close(ours: torch.Tensor, theirs: torch.Tensor, atol: float = 1e-4) -> None:
    torch.testing.assert_close(ours, theirs, atol=atol, rtol=1e-4)


def centred(values: torch.Tensor) -> torch.Tensor:
    """Up to a constant of the state."""
    return values - values.mean(-1, keepdim=True)


@pytest.mark.usefixtures("form")
def test_the_rewards_are_not_all_the_same(form: str, policy: LanguageModel, other_policy: LanguageModel) -> None:
    """Guards the other tests here against comparing zeros."""
    assert realised(form, make_model(form, policy, other_policy), policy).std() > 0.1


def test_scorers_give_the_equations_rewards(form: str, policy: LanguageModel, other_policy: LanguageModel) -> None:
    model = make_model(form, policy, other_policy)
    expected = realised(form, model, policy)
    preferences, answer = [model.preference(specs(form))] * 2, tuple(encode_answer(policy.tokenizer, ANSWER))
    rewards = sequence_rewards(model, policy, [as_messages(PROMPT)] * 2, preferences, [answer] * 2)
    close(rewards, expected.sum().repeat(2), atol=1e-3)
    if isinstance(model, PersonalizedRewardModel):
        close(model.token_rewards(as_messages(PROMPT), ANSWER, model.preference(SPECS)), expected)


def test_a_checkpoint_measured_again_gives_the_equations_rewards(
    form: str, policy: LanguageModel, other_policy: LanguageModel
) -> None:
    model = make_model(form, policy, other_policy)
    preference = {} if form == "prompt" else {"humorous": 1.0, "formal": -0.5}
    texts = {"plain words": 1.0} if form == "prompt" else {}
    pair = PreferencePair(as_messages(PROMPT), preference, ANSWER, ANSWER, texts=texts)
    reading = read_pair(model, pair, policy, [1.0])
    target, rewards = all_rewards(form, model, policy)
    assert reading.rewards[0] == pytest.approx(realised(form, model, policy).sum().item(), abs=1e-3)
    row = torch.tensor(
        [
            [
                *encode_prompt(policy.tokenizer, model.prompt(as_messages(PROMPT), model.preference(specs(form)))),
                *target[:-1],
            ]
        ]
    )
    plain = policy.model(input_ids=row).logits[0, -len(target) :].log_softmax(-1)
    guided = (plain + rewards).log_softmax(-1)[torch.arange(len(target)), torch.tensor(target)].mean()
    assert reading.likelihoods[1.0][0] == pytest.approx(guided.item(), abs=1e-4)


@pytest.mark.parametrize("form", ["heads", "adapter"])
def test_cached_states_give_the_equations_rewards(form: str, policy: LanguageModel, tmp_path: Path) -> None:
    model = make_model(form, policy, policy)
    assert isinstance(model, PersonalizedRewardModel)
    sequence = (
        tuple(encode_prompt(policy.tokenizer, as_messages(PROMPT))),
        tuple(encode_answer(policy.tokenizer, ANSWER)),
    )
    table = make_rewards(policy, [sequence], tmp_path, None, model.adapter)
    count = len(sequence[1])
    weights = model.weights([model.preference(SPECS)]).expand(count, -1)
    close(table.rewards(model.heads, torch.arange(count), weights), realised(form, model, policy))


@pytest.mark.parametrize(
    ("form", "path"),
    [
        *[("heads", path) for path in ("fused", "paired", "separate", "bridged", "processor", "uncached")],
        *[("adapter", path) for path in ("paired", "separate", "processor", "uncached")],
    ],
)
def test_decoding_scores_candidates_by_the_equation(form: str, path: str, policy: LanguageModel) -> None:
    """score = log pi + guidance weight * calibration * r, up to a constant of the state, before each token."""
    model = make_model(form, policy, policy)
    assert isinstance(model, PersonalizedRewardModel)
    model.calibration = 1.5
    engine = PadEngine(policy, model)
    target, rewards = all_rewards(form, model, policy)
    context = encode_prompt(policy.tokenizer, as_messages(PROMPT))
    preference = model.preference(SPECS)
    settings = DecodingSettings(candidates=12, guidance_weight=2.0, reward_ngram=0)
    guidance = Guidance(model, "bridged", [context], model.weights([preference]), torch.tensor([3.0]))
    bridged = BridgedStrategy(policy, [context], guidance)
    for number in range(len(target)):
        read = [*context, *target[:number]]
        plain = policy.model(input_ids=torch.tensor([read])).logits[0, -1].log_softmax(-1)
        if path == "processor":
            processor = PreferenceLogitsProcessor(model, [preference], guidance_weight=2.0, candidates=12)
            scores = processor(torch.tensor([read]), plain[None])[0]
            candidates = scores.isfinite().nonzero()[:, 0]
            scores = scores[candidates]
        elif path == "uncached":
            found, rows = score_uncached(policy, guidance, context, target[:number], count=12, reward_ngram=0)
            candidates, scores = found[0], rows[0]
        elif path == "bridged":
            candidates = torch.tensor([*range(4, 15), target[number]])  # letters: rewards are those of text
            log_probs = plain[candidates]
            found = bridged.rewards(candidates[None], log_probs[None])
            scores = log_probs + 3.0 * found[0]
            close(found[0], rewards[number, candidates], atol=1e-3)  # normalisers included
            bridged.push(candidates[-1:])
        else:
            step = score_candidates(engine, [read], preference, settings.model_copy(update={"path": path}))
            candidates, scores = step.candidates[0], step.scores[0]
        expected = plain[candidates] + 2.0 * 1.5 * rewards[number, candidates]
        assert len(candidates) == 12
        close(centred(scores), centred(expected), atol=1e-3)


@pytest.mark.parametrize("form", ["heads", "adapter"])
def test_a_choice_is_the_equations_reward_to_first_order(form: str, policy: LanguageModel) -> None:
    """Small weights change a choice's margin by slopes . w, and without weights it is the offset."""
    model = make_model(form, policy, policy)
    assert isinstance(model, PersonalizedRewardModel)
    features: Any = choice_features(model, [Comparison(as_messages(PROMPT), ANSWER, "No.")])
    none, small = model.preference([]), model.preference(["humorous=0.01", "formal=-0.02"])

    def margin(preference: Any) -> float:
        first, second = (model.token_rewards(as_messages(PROMPT), text, preference).sum() for text in (ANSWER, "No."))
        return float(first - second)

    assert margin(none) == pytest.approx(features.offsets[0], abs=1e-4)
    predicted = features.slopes[0] @ [0.01, -0.02, 0.0]
    assert margin(small) - margin(none) == pytest.approx(predicted, abs=0.02)
    assert abs(predicted) > 0.02
