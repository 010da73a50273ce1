"""Sampling: a draw belongs to its row's own stream, and its limits are greedy."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from pad_cli.decoding.decode import Sampler
from pad_cli.decoding.engine import PadEngine
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import DecodingSettings
from pad_cli.records import Generation
from tests.agreement import alone, assert_agree
from tests.decoding.conftest import PROMPTS
from tests.token_prompts import generate_ids

NAMES = [f"item-{number}" for number in range(len(PROMPTS))]


@pytest.fixture
def engine(stopping_policy: LanguageModel, stopping_reward_model: PersonalizedRewardModel) -> PadEngine:
    return PadEngine(stopping_policy, stopping_reward_model)


def sample(engine: PadEngine, streams: list[str] | None = None, **changed: object) -> list[Generation]:
    settings = DecodingSettings.model_validate({"max_new_tokens": 16, "temperature": 1.5, **changed})
    preferences = [engine.preference(["humorous"])] * len(PROMPTS)
    return engine.generate(PROMPTS, preferences, settings, streams=streams)


def test_the_same_seed_gives_the_same_text(engine: PadEngine) -> None:
    assert sample(engine, seed=3) == sample(engine, seed=3)


def test_different_seeds_give_different_texts(engine: PadEngine) -> None:
    texts = [sample(engine, seed=seed) for seed in range(3)]
    assert all(first != second for first, second in itertools.pairwise(texts))


def test_batch_equals_single_when_streams_have_the_same_names(engine: PadEngine) -> None:
    settings = DecodingSettings(max_new_tokens=16, temperature=1.5)
    preference = engine.preference(["humorous"])
    apart = [
        engine.generate([prompt], [preference], settings, streams=[name])[0]
        for prompt, name in zip(PROMPTS, NAMES, strict=True)
    ]
    requests = alone(engine, PROMPTS, [preference] * len(PROMPTS), settings, streams=NAMES)
    assert_agree(sample(engine, NAMES), apart, requests)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_batch_size_changes_no_draw(engine: PadEngine, batch_size: int) -> None:
    settings = DecodingSettings(max_new_tokens=16, temperature=1.5)
    requests = alone(engine, PROMPTS, [engine.preference(["humorous"])] * len(PROMPTS), settings)
    assert_agree(sample(engine, batch_size=batch_size), sample(engine), requests)


def test_each_row_of_a_batch_draws_for_itself(engine: PadEngine) -> None:
    settings = DecodingSettings(max_new_tokens=16, temperature=1.5)
    answers = engine.generate(["Hi"] * 4, [engine.preference(["humorous"])] * 4, settings)
    assert len({answer.token_ids for answer in answers}) > 1


def test_rows_that_share_a_stream_name_draw_the_same(engine: PadEngine) -> None:
    settings = DecodingSettings(max_new_tokens=16, temperature=1.5)
    first, second = engine.generate(["Hi"] * 2, [engine.preference(["formal"])] * 2, settings, streams=["a", "a"])
    assert first == second


@pytest.mark.parametrize("changed", [{"temperature": 1e-4}, {"top_p": 1e-6}], ids=["temperature near 0", "tiny top_p"])
def test_temperature_near_0_and_a_tiny_top_p_are_greedy(engine: PadEngine, changed: dict[str, float]) -> None:
    greedy = sample(engine, temperature=0.0)
    assert sample(engine, **changed) == greedy
    assert sample(engine) != greedy


def test_fused_equals_separate_when_sampling(engine: PadEngine) -> None:
    assert sample(engine, path="fused") == sample(engine, path="separate")


def ids(scores: torch.Tensor) -> torch.Tensor:
    """Candidates whose token ids are their places."""
    return torch.arange(scores.shape[1]).expand(scores.shape)


def test_draws_follow_the_softmax_of_the_scores() -> None:
    """Scores ln 6, ln 3, ln 1: shares 0.6, 0.3, 0.1; of 4000 draws each share is within 0.03 (four deviations)."""
    scores = torch.tensor([[6.0, 3.0, 1.0]]).log().expand(4000, -1)
    streams = [random.Random(f"row {row}") for row in range(4000)]
    drawn = Sampler(DecodingSettings(temperature=1), streams).choose(ids(scores), scores, range(4000), [0] * 4000)
    shares = drawn.bincount(minlength=3) / 4000
    assert shares.tolist() == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_a_temperature_divides_the_scores_before_drawing() -> None:
    """At temperature 0.5 shares 0.6, 0.3, 0.1 are squared: 36, 9, 1 of 46."""
    scores = torch.tensor([[6.0, 3.0, 1.0]]).log().expand(4000, -1)
    streams = [random.Random(f"row {row}") for row in range(4000)]
    sampler = Sampler(DecodingSettings(temperature=0.5), streams)
    shares = sampler.choose(ids(scores), scores, range(4000), [0] * 4000).bincount(minlength=3) / 4000
    assert shares.tolist() == pytest.approx([36 / 46, 9 / 46, 1 / 46], abs=0.03)


def test_top_p_never_draws_outside_its_mass() -> None:
    """Shares 0.6, 0.3, 0.1 at top_p 0.8: the first two hold it, the third is never drawn."""
    scores = torch.tensor([[1.0, 6.0, 3.0]]).log().expand(2000, -1)
    streams = [random.Random(row) for row in range(2000)]
    sampler = Sampler(DecodingSettings(temperature=1, top_p=0.8), streams)
    counts = sampler.choose(ids(scores), scores, range(2000), [0] * 2000).bincount(minlength=3)
    assert counts[0] == 0
    assert counts[1] > counts[2] > 0


def test_a_draw_of_almost_1_takes_the_last_possible_candidate() -> None:
    class Almost(random.Random):
        def random(self) -> float:
            return 1.0 - 2**-53

    scores = torch.tensor([[0.0, 0.0, 0.0, -torch.inf]])
    assert Sampler(DecodingSettings(temperature=1), [Almost()]).choose(ids(scores), scores, [0], [0]).tolist() == [2]


@pytest.mark.parametrize("limit", [{"top_k": 1}, {"min_p": 1.0}])
def test_a_limit_of_one_candidate_is_greedy(engine: PadEngine, limit: dict[str, float]) -> None:
    assert sample(engine, temperature=1.0, **limit) == sample(engine, temperature=0.0)


@pytest.mark.parametrize("limit", [{"top_k": 2}, {"min_p": 0.5}, {"top_p": 0.4}])
def test_a_limit_never_draws_outside_it(limit: dict[str, float]) -> None:
    """Probabilities .5, .3, .2: each limit leaves at most the first two."""
    scores = torch.tensor([0.5, 0.3, 0.2]).log().expand(500, 3)
    sampler = Sampler(DecodingSettings(temperature=1, **limit), [random.Random(i) for i in range(500)])
    counts = sampler.choose(ids(scores), scores, range(500), [0] * 500).bincount(minlength=3)
    assert counts[0] > 0
    assert counts[2] == 0


@pytest.mark.parametrize("control", [{"repetition_penalty": 1.7}, {"no_repeat_ngram_size": 1}])
def test_repetition_controls_are_those_of_transformers(policy: LanguageModel, control: dict[str, float]) -> None:
    prompt, length = [[60, 61, 62, 60, 61, 63, 64]], 24
    expected = policy.model.generate(
        input_ids=torch.tensor(prompt),
        attention_mask=torch.ones(1, 7),
        max_new_tokens=length,
        do_sample=False,
        **control,
    )[:, 7:].tolist()
    engine, settings = PadEngine(policy), DecodingSettings(max_new_tokens=length, **control)
    assert_agree(generate_ids(engine, prompt, None, settings), expected, alone(engine, prompt, None, settings))
    assert generate_ids(engine, prompt, None, DecodingSettings(max_new_tokens=length)) != expected


def test_repetition_controls_see_each_row_alone(engine: PadEngine) -> None:
    settings = DecodingSettings(max_new_tokens=16, no_repeat_ngram_size=2, repetition_penalty=1.3)
    preference = engine.preference(["humorous"])
    preferences = [preference] * len(PROMPTS)
    together = engine.generate(PROMPTS, preferences, settings)
    apart = [engine.generate([prompt], [preference], settings)[0] for prompt in PROMPTS]
    assert_agree(together, apart, alone(engine, PROMPTS, preferences, settings))
