"""The reward model: token rewards from the formula, and weights from preferences."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from pad_cli.equation import candidate_rewards
from pad_cli.errors import PreferenceError
from pad_cli.models.heads import PreferenceEncoder, text_states
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference, instruction
from pad_cli.records import as_messages
from tests.architectures import make_architecture
from tests.tiny import PRINCIPLES, make_reward_model

PROMPT = as_messages("How do I bake bread?")
ANSWER = "Mix flour and water."


@pytest.fixture
def with_encoder(reward_model: PersonalizedRewardModel) -> PersonalizedRewardModel:
    torch.manual_seed(7)
    encoder = PreferenceEncoder(reward_model.backbone.hidden_size, 5, len(PRINCIPLES)).eval().requires_grad_(False)
    return replace(reward_model, encoder=encoder)


@pytest.mark.parametrize("name", ["llama", "gemma2", "cohere", "phi"])
def test_token_rewards_equal_naive_code_from_the_formula(name: str, byte_tokenizer: Any) -> None:
    """r = log softmax(head(h + sum_k w_k B_k A_k h))[a] - log softmax(head(h))[a], a token at a time."""
    backbone = make_architecture(name, byte_tokenizer)
    model = make_reward_model(backbone)
    rewards = model.token_rewards(PROMPT, ANSWER, Preference({"humorous": 2.0, "concise": -1.0}, {}))
    context = byte_tokenizer(f"<user>{PROMPT[0]['content']}<assistant>")["input_ids"]
    answer = byte_tokenizer(f"{ANSWER}<end>")["input_ids"]
    expected = []
    for place, token in enumerate(answer):
        text = torch.tensor([[*context, *answer[:place]]])
        h = backbone.model.get_decoder()(input_ids=text).last_hidden_state[0, -1]
        shift = sum(w * model.heads.up[k] @ model.heads.down[k] @ h for k, w in ((0, 2.0), (2, -1.0)))
        personalised, reference = (backbone.head(state[None])[0].log_softmax(-1) for state in (h + shift, h))
        expected.append((personalised - reference)[token])
    torch.testing.assert_close(rewards, torch.stack(expected), atol=1e-4, rtol=1e-4)
    assert rewards.abs().max() > 0.01


def test_no_preference_gives_reward_0(reward_model: PersonalizedRewardModel) -> None:
    assert not reward_model.token_rewards(PROMPT, ANSWER, Preference({}, {})).any()


@pytest.mark.parametrize("normalised", [False, True])
def test_differences_between_candidates_are_linear_in_the_weights(policy: LanguageModel, normalised: bool) -> None:
    """With or without the normaliser: it is a constant of the state and leaves every difference alone."""
    model, torch_weights = make_reward_model(policy), torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [3.0, -0.5, 0]])
    state = torch.tensor([encode_prompt(policy.tokenizer, PROMPT)])
    hidden = policy.hidden_states(state, torch.ones_like(state))[:, -1].expand(3, -1)
    candidates = policy.head(hidden).topk(6, dim=-1).indices
    if normalised:
        changed = policy.head(hidden + model.shift(hidden, torch_weights)).log_softmax(-1)
        rewards = (changed - policy.head(hidden).log_softmax(-1)).gather(1, candidates)
    else:
        rewards = candidate_rewards(policy.head, hidden, model.shift(hidden, torch_weights), candidates)
    first, second, mixed = rewards - rewards[:, :1]
    torch.testing.assert_close(mixed, 3 * first - 0.5 * second, atol=1e-4, rtol=1e-4)


def test_weights_are_those_of_named_principles(reward_model: PersonalizedRewardModel) -> None:
    specs = (["humorous"], ["concise=0.5, not formal"], [])
    weights = reward_model.weights([reward_model.preference(spec) for spec in specs])
    assert reward_model.principles == ("humorous", "formal", "concise")
    assert weights.tolist() == [[1.0, 0.0, 0.0], [0.0, -1.0, 0.5], [0.0, 0.0, 0.0]]


def test_weights_of_names_and_texts_add(with_encoder: PersonalizedRewardModel) -> None:
    text, other = Preference({}, {"short and dry": 1.0}), Preference({}, {"a joke": 1.0})
    both = Preference({"formal": 2.0}, {"short and dry": -0.5, "a joke": 3.0})
    first, second, sum_of_all = with_encoder.weights([text, other, both])
    expected = torch.tensor([0.0, 2.0, 0.0]) - 0.5 * first + 3 * second
    torch.testing.assert_close(sum_of_all, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(first, second)


def test_the_weights_of_a_text_are_the_encoders_of_its_state(with_encoder: PersonalizedRewardModel) -> None:
    """The backbone reads the text as an instruction; the state after the last token is encoded."""
    assert with_encoder.encoder is not None
    backbone = with_encoder.backbone
    tokens = torch.tensor([encode_prompt(backbone.tokenizer, as_messages(instruction("a joke")))])
    state = backbone.hidden_states(tokens, torch.ones_like(tokens))[:, -1]
    weights = with_encoder.weights([Preference({}, {"a joke": 1.0})])
    torch.testing.assert_close(weights, with_encoder.encoder(state), atol=1e-5, rtol=1e-5)


def test_states_of_texts_do_not_depend_on_their_batch(policy: LanguageModel) -> None:
    texts = ["short", "a much longer wording of what is wanted", "b"]
    together = text_states(policy, texts)
    torch.testing.assert_close(text_states(policy, texts, batch_size=1), together, atol=1e-4, rtol=1e-4)


def test_a_preference_is_read_with_the_models_names(reward_model: PersonalizedRewardModel) -> None:
    assert reward_model.preference(["Humorous", "not formal=2"]) == Preference({"humorous": 1.0, "formal": -2.0}, {})


def test_free_text_needs_an_encoder(
    reward_model: PersonalizedRewardModel, with_encoder: PersonalizedRewardModel
) -> None:
    assert with_encoder.preference(["make me laugh"]) == Preference({}, {"make me laugh": 1.0})
    with pytest.raises(PreferenceError, match="no preference encoder"):
        reward_model.preference(["make me laugh"])


def test_the_encoder_standardises_its_input() -> None:
    """States (1, 10) and (3, 30): mean (2, 20); both are one deviation away, in opposite directions."""
    encoder = PreferenceEncoder(2, 4, 3).eval().requires_grad_(False)
    states = torch.tensor([[1.0, 10.0], [3.0, 30.0]])
    encoder.remember(states, torch.tensor([0, 1]))
    expected = encoder.network(torch.tensor([[-1.0] * 2, [1.0] * 2]))
    torch.testing.assert_close(encoder(states), expected)


def memory() -> PreferenceEncoder:
    """Knows two texts along the first axis (principle 2), and one along the second that words no principle."""
    torch.manual_seed(3)
    encoder = PreferenceEncoder(2, 4, 3, texts=3).eval().requires_grad_(False)
    encoder.known = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    encoder.owners = torch.tensor([2, 2, -1])
    encoder.trusted = torch.tensor(0.95)
    return encoder


@pytest.mark.parametrize(("state", "nearest"), [([5.0, 0.1], None), ([1.0, -0.5], 2), ([-0.5, 1.0], -1)])
def test_a_text_far_from_all_known_ones_is_not_guessed_at(state: list[float], nearest: int | None) -> None:
    """Cosines .9998, .89 and .89 to the nearest known text, .95 is trusted."""
    encoder, states = memory(), torch.tensor([state])
    read, far = encoder.read(states)
    assert far == ({} if nearest is None else {0: nearest})
    assert read.tolist() == ([[0.0, 0.0, 0.0]] if far else encoder(states).tolist())


def test_without_a_memory_every_text_is_read() -> None:
    encoder = PreferenceEncoder(2, 4, 3).eval().requires_grad_(False)
    states = torch.randn(5, 2)
    weights, far = encoder.read(states)
    assert far == {}
    torch.testing.assert_close(weights, encoder(states))


def test_training_texts_themselves_are_known() -> None:
    torch.manual_seed(0)
    encoder = PreferenceEncoder(8, 4, 3, texts=40).eval().requires_grad_(False)
    states = torch.randn(40, 8)
    encoder.remember(states, torch.arange(40) % 3)
    assert encoder.read(states)[1] == {}
    assert 0 < encoder.trusted < 1


def test_texts_that_are_not_understood_are_named_once(
    policy: LanguageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = PreferenceEncoder(policy.hidden_size, 4, 3, texts=2).eval().requires_grad_(False)
    encoder.trusted = torch.tensor(2.0)
    model = replace(make_reward_model(policy), encoder=encoder)
    odd = Preference({}, {"the price of bananas": 1.0})
    assert model.weights([odd, odd]).tolist() == [[0.0] * 3] * 2
    model.weights([odd])
    told = capsys.readouterr().err
    assert told.count("'the price of bananas' is unlike") == 1
