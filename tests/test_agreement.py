"""Answers that part are let through at a near tie and nowhere else."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from pad_cli.decoding.decode import Sampler, decode_steps
from pad_cli.decoding.engine import PadEngine
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import decode_answer
from pad_cli.recipe import DecodingSettings
from tests.agreement import BOUND, alone, assert_agree, assert_same_scores, choices, each_row, row_of, step_after
from tests.tiny import make_language_model, make_reward_model
from tests.token_prompts import generate_ids, token_items

PROMPTS = [[5, 40, 77, 90, 31], [60]]
PLACE = 3
"""The token of the first answer that has a twin."""
HOW = DecodingSettings(max_new_tokens=8, guidance_weight=2.0, reward_ngram=0)


@pytest.fixture
def plain(byte_tokenizer: Any) -> PadEngine:
    policy = make_language_model(byte_tokenizer, seed=0)
    return PadEngine(policy, make_reward_model(policy))


def answers(engine: PadEngine, how: DecodingSettings = HOW) -> list[list[int]]:
    return generate_ids(engine, PROMPTS, "humorous", how)


def twin_of(policy: LanguageModel, token: int, twin: int, nats: float) -> LanguageModel:
    """The policy, with the logit of the twin that of the token less some nats."""
    weight, bias = policy.head.weight.clone(), torch.zeros(policy.vocabulary_size)
    weight[twin], bias[twin] = weight[token], -nats
    return replace(policy, head=replace(policy.head, weight=weight, bias=bias))


def with_twin(engine: PadEngine, nats: float) -> tuple[PadEngine, list[int], list[int]]:
    """An engine in which a token of the first answer has a twin, that answer, and another that parts at the twin."""
    answer = answers(engine)[0]
    policy = twin_of(engine.policy, answer[PLACE], twin := 70, nats)
    return PadEngine(policy, make_reward_model(policy)), answer, [*answer[:PLACE], twin, *[9] * (7 - PLACE)]


def test_the_same_answers_agree(plain: PadEngine) -> None:
    found = answers(plain)
    assert_agree(found, found, alone(plain, PROMPTS, "humorous", HOW))


@pytest.mark.parametrize("nats", [0.0, 1.5 * BOUND, -1.5 * BOUND])
def test_at_a_near_tie_either_token_may_be_written_and_what_follows_is_not_compared(
    plain: PadEngine, nats: float
) -> None:
    engine, answer, other = with_twin(plain, nats)
    assert_agree([answer], [other], alone(engine, PROMPTS[:1], "humorous", HOW))
    assert_agree([other], [answer], alone(engine, PROMPTS[:1], "humorous", HOW))


def test_a_token_that_is_worse_by_more_than_rounding_is_a_difference(plain: PadEngine) -> None:
    engine, answer, other = with_twin(plain, 5 * BOUND)
    with pytest.raises(AssertionError, match="answer 1 differs"):
        assert_agree([answer], [other], alone(engine, PROMPTS[:1], "humorous", HOW))


def test_near_a_tie_a_third_token_is_a_difference(plain: PadEngine) -> None:
    engine, answer, other = with_twin(plain, 0.0)
    other[PLACE] = 71
    with pytest.raises(AssertionError, match="answer 1 differs"):
        assert_agree([answer], [other], alone(engine, PROMPTS[:1], "humorous", HOW))


def test_an_answer_that_is_shorter_or_missing_is_a_difference(plain: PadEngine) -> None:
    found, requests = answers(plain), alone(plain, PROMPTS, "humorous", HOW)
    with pytest.raises(AssertionError):
        assert_agree(found, [found[0][:-1], found[1]], requests)
    with pytest.raises(ValueError, match="shorter"):
        assert_agree(found, found[:1], requests)


def test_a_text_may_part_where_a_near_tie_is_and_nowhere_else(plain: PadEngine) -> None:
    engine, answer, other = with_twin(plain, 0.0)
    requests = alone(engine, PROMPTS[:1], "humorous", HOW)
    same, allowed, wrong = (
        decode_answer(engine.policy.tokenizer, tokens) for tokens in (answer, other, [answer[0], 71, *answer[2:]])
    )
    assert len({same, allowed, wrong}) == 3
    assert_agree([answer], [same], requests)
    assert_agree([answer], [allowed], requests)
    with pytest.raises(AssertionError):
        assert_agree([answer], [wrong], requests)


@pytest.mark.parametrize(("candidates", "near"), [(1, True), (2, False)])
def test_two_tokens_may_change_places_at_the_edge_of_the_candidate_set_whatever_their_rewards(
    plain: PadEngine, candidates: int, near: bool
) -> None:
    """The policy's two best are equal, and the reward model, another's, tells them apart."""
    how = HOW.model_copy(update={"candidates": candidates})
    first = generate_ids(PadEngine(plain.policy), PROMPTS[:1], None, how)[0][0]
    policy = twin_of(plain.policy, first, twin := 70, nats=0.0)
    request = alone(PadEngine(policy, plain.reward_model), PROMPTS[:1], "humorous", how)[0]
    assert (choices(request, []) == {first, twin}) is near
    assert len(choices(request, [])) == (2 if near else 1)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_draw_near_the_border_of_two_tokens_may_fall_on_either(plain: PadEngine, share: float) -> None:
    """Draws in the middle of the second token's share, and where it ends."""
    how = HOW.model_copy(update={"temperature": 1.0, "candidates": 4})
    request = alone(plain, PROMPTS[:1], "humorous", how)[0]
    step = step_after(request, [])
    tokens, order = step.candidates[0].sort()
    shares = step.scores[0, order].softmax(-1)

    class Draws(random.Random):
        def random(self) -> float:
            return float(shares[0] + share * shares[1])

    found = choices(replace(request, sampler=Sampler(how, [Draws()])), [])
    assert found == set(tokens[1:2].tolist() if share < 1 else tokens[1:3].tolist())


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_what_is_computed_anew_is_what_the_answer_was_chosen_by(plain: PadEngine, temperature: float) -> None:
    """With withheld repeats and repetition controls, which see the beginning of the answer; in rows of a batch."""
    how = DecodingSettings(max_new_tokens=12, temperature=temperature, repetition_penalty=1.4, no_repeat_ngram_size=3)
    preferences = [plain.preference(["humorous"])] * len(PROMPTS)
    batch = plain._request(token_items(plain, PROMPTS, preferences, how), how)
    steps = list(decode_steps(batch))
    for row, request in enumerate(each_row(batch)):
        written: list[int] = []
        for step in steps:
            assert_same_scores(step_after(request, written), row_of(step, row))
            assert choices(request, written) == {int(step.tokens[row])}
            written.append(int(step.tokens[row]))


def test_scores_that_differ_by_more_than_rounding_are_not_the_same(plain: PadEngine) -> None:
    step = step_after(alone(plain, PROMPTS[:1], "humorous", HOW)[0], [])
    with pytest.raises(AssertionError):
        assert_same_scores(step, replace(step, scores=step.scores + 0.01))
    with pytest.raises(AssertionError):
        assert_same_scores(step, replace(step, candidates=step.candidates + 1))
