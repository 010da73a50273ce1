"""Token rewards over the cache: exact ones equal the reward model's, truncated ones a softmax over fewer tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pad_cli.equation import LogitHead
from pad_cli.models.adapter import Adapter
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.records import as_messages
from pad_cli.training.hidden_cache import HiddenCache
from pad_cli.training.token_rewards import TokenRewards
from tests.architectures import make_architecture
from tests.decoding.adapters import train_lora, with_adapter
from tests.tiny import make_reward_model
from tests.training.conftest import make_rewards

PAIRS = (("Hi", "Hello there."), ("How do I bake?", "Mix flour, then wait."), ("Why?", "So."))
WEIGHTS = torch.tensor([1.0, -0.5, 2.0])


@pytest.fixture(scope="module", params=["llama", "gemma2", "cohere", "phi"])
def model(request: pytest.FixtureRequest, byte_tokenizer: Any) -> PersonalizedRewardModel:
    return make_reward_model(make_architecture(request.param, byte_tokenizer))


def make_table(
    backbone: LanguageModel, directory: Path, count: int | None = None, adapter: Adapter | None = None
) -> TokenRewards:
    sequences = [
        (tuple(encode_prompt(backbone.tokenizer, as_messages(prompt))), tuple(encode_answer(backbone.tokenizer, text)))
        for prompt, text in PAIRS
    ]
    return make_rewards(backbone, sequences, directory, count, adapter)


def hidden_of(cache: HiddenCache) -> torch.Tensor:
    return cache.gather("hidden", torch.arange(len(cache)))


def in_order(table: TokenRewards, rewards: torch.Tensor) -> list[torch.Tensor]:
    """Rewards of all positions, an answer at a time in the order of `PAIRS`."""
    return [rewards[table.cache.positions(torch.tensor([answer]))[0]] for answer in range(len(PAIRS))]


def rewards_of(table: TokenRewards, heads: torch.nn.Module) -> torch.Tensor:
    count = len(table.cache.targets)
    return table.rewards(heads, torch.arange(count), WEIGHTS.expand(count, -1))


def restricted_rewards(head: LogitHead, cache: HiddenCache, heads: PreferenceHeads, count: int) -> torch.Tensor:
    """Naively: softmax over the union of the realised token and the reference's likeliest corpus tokens."""
    corpus = sorted(set(cache.targets.tolist()))
    rewards = []
    for hidden, target in zip(hidden_of(cache), cache.targets.tolist(), strict=True):
        reference = head(hidden[None])[0]
        personalised = head(hidden[None] + heads(hidden[None], WEIGHTS[None]))[0]
        raw = head.raw(hidden[None])[0]
        likeliest = sorted(corpus, key=lambda token: -raw[token].item())[:count]
        among = torch.tensor(sorted({target, *likeliest}))
        ratio = personalised[target] - personalised[among].logsumexp(0)
        rewards.append(ratio - (reference[target] - reference[among].logsumexp(0)))
    return torch.stack(rewards)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_exact_rewards_equal_those_of_the_reward_model(model: PersonalizedRewardModel, tmp_path: Path) -> None:
    table = make_table(model.backbone, tmp_path)
    preference = model.preference(["humorous", "not formal=0.5", "concise=2"])
    expected = [model.token_rewards(as_messages(prompt), answer, preference) for prompt, answer in PAIRS]
    for ours, theirs in zip(in_order(table, rewards_of(table, model.heads)), expected, strict=True):
        close(ours, theirs)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_rewards_through_an_adapter_equal_those_of_the_reward_model(policy: LanguageModel, tmp_path: Path) -> None:
    """Exactly; and as many candidates as the corpus has give the ratio over the corpus."""
    model = with_adapter(make_reward_model(policy), train_lora(policy))
    assert model.adapter is not None
    preference = model.preference(["humorous", "not formal=0.5", "concise=2"])
    expected = [model.token_rewards(as_messages(prompt), answer, preference) for prompt, answer in PAIRS]
    table = make_table(policy, tmp_path, adapter=model.adapter)
    for ours, theirs in zip(in_order(table, rewards_of(table, model.heads)), expected, strict=True):
        close(ours, theirs)
    adapted, plain = (table.cache.gather(name, torch.arange(len(table.cache))) for name in ("hidden", "plain"))
    assert not torch.allclose(adapted, plain, atol=1e-3)
    head = policy.head.rows(table.cache.targets.unique())
    shifted = adapted + model.heads(adapted, WEIGHTS.expand(len(adapted), -1))
    ratio = head(shifted).log_softmax(-1) - head(plain).log_softmax(-1)
    places = table.cache.targets.unique(return_inverse=True)[1]
    truncated = make_table(policy, tmp_path, 10_000, model.adapter)
    close(rewards_of(truncated, model.heads), ratio.gather(1, places[:, None])[:, 0])


def test_dropout_changes_what_heads_see_and_not_the_reference(policy: LanguageModel, tmp_path: Path) -> None:
    table, heads = make_table(policy, tmp_path), make_reward_model(policy).heads
    positions, weights = torch.arange(len(table.cache)), WEIGHTS.expand(len(table.cache), -1)
    torch.manual_seed(0)
    dropped = table.rewards(heads, positions, weights, dropout=0.5)
    assert (dropped - table.rewards(heads, positions, weights)).abs().max() > 0.01
    zero = PreferenceHeads(("a", "b", "c"), policy.hidden_size, 2)
    assert table.rewards(zero, positions, weights, dropout=0.5).abs().max().item() < 1e-5


@pytest.mark.parametrize("count", [1, 3, 8])
def test_truncated_rewards_normalise_over_the_realised_and_the_likeliest_corpus_tokens(
    model: PersonalizedRewardModel, tmp_path: Path, count: int
) -> None:
    """The naive version keeps its tokens in a set, so a realised token among the likeliest is counted once."""
    table = make_table(model.backbone, tmp_path, count)
    close(rewards_of(table, model.heads), restricted_rewards(model.backbone.head, table.cache, model.heads, count))


def test_as_many_tokens_as_the_corpus_has_make_the_truncated_rewards_exact_over_the_corpus(
    model: PersonalizedRewardModel, tmp_path: Path
) -> None:
    table = make_table(model.backbone, tmp_path, 10_000)
    hidden = hidden_of(table.cache)
    corpus, places = table.cache.targets.unique(return_inverse=True)
    head = model.backbone.head.rows(corpus)
    shift = model.heads(hidden, WEIGHTS.expand(len(hidden), -1))
    ratio = head(hidden + shift).log_softmax(-1) - head(hidden).log_softmax(-1)
    close(rewards_of(table, model.heads), ratio.gather(1, places[:, None])[:, 0])


def test_the_realised_token_has_probability_at_most_1_and_is_counted_once(
    model: PersonalizedRewardModel, tmp_path: Path
) -> None:
    """The probabilities of the distinct tokens add to 1: a second copy of the realised one has none."""
    table = make_table(model.backbone, tmp_path, 10_000)
    count = len(table.cache)
    reference, personalised, realised = table.logits(model.heads, torch.arange(count), WEIGHTS.expand(count, -1))
    assert realised.tolist() == [0] * count
    assert (torch.isinf(reference).sum(1) == 1).all()
    assert torch.equal(torch.isinf(reference), torch.isinf(personalised))
    assert reference.shape == (count, 1 + len(table.cache.targets.unique()))


@pytest.mark.parametrize("count", [None, 4])
def test_the_gradient_of_a_coordinate_equals_its_numerical_difference(
    policy: LanguageModel, tmp_path: Path, count: int | None
) -> None:
    table = make_table(policy, tmp_path, count)
    heads = make_reward_model(policy).heads.requires_grad_(True)
    rewards_of(table, heads).sum().backward()
    for parameter, place in ((heads.up, (2, 5, 1)), (heads.down, (0, 1, 7))):
        assert parameter.grad is not None
        slope = parameter.grad[place].item()
        sums = []
        for step in (1e-2, -1e-2):
            with torch.no_grad():
                parameter[place] += step
                sums.append(rewards_of(table, heads).double().sum().item())
                parameter[place] -= step
        assert slope == pytest.approx((sums[0] - sums[1]) / 2e-2, rel=0.02, abs=0.02)
        assert abs(slope) > 0.05


@pytest.mark.parametrize("count", [None, 4])
def test_zero_heads_give_reward_0(policy: LanguageModel, tmp_path: Path, count: int | None) -> None:
    table = make_table(policy, tmp_path, count)
    heads = PreferenceHeads(("a", "b", "c"), policy.hidden_size, 2)
    assert rewards_of(table, heads).abs().max().item() < 1e-5
