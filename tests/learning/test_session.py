"""A session of questions: nothing answered is lost, and another sitting goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import UsageError
from pad_cli.learning.choices import Comparison, read_choices
from pad_cli.learning.question_session import Pool, Session, make_pool
from pad_cli.learning.user_weights import Features, learn_user
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages

PROMPTS = [as_messages(text) for text in ("Hi", "How do I bake bread?", "Why?", "A word on trees")]
SETTINGS = DecodingSettings(max_new_tokens=8)


@pytest.fixture
def pool(policy: LanguageModel, reward_model: PersonalizedRewardModel) -> Pool:
    return make_pool(PadEngine(policy, reward_model), PROMPTS, SETTINGS, answers=4)


def answered(session: Session, *answers: bool | None) -> Session:
    for answer in answers:
        place = session.next()
        assert place is not None
        session.answer(place, answer)
    return session


def test_a_pool_pairs_different_answers_to_one_prompt(
    policy: LanguageModel, reward_model: PersonalizedRewardModel, pool: Pool
) -> None:
    assert len(pool.comparisons) == len(pool.features.slopes) <= len(PROMPTS) * 6
    assert all(each.first != each.second and each.prompt in PROMPTS for each in pool.comparisons)
    again = make_pool(PadEngine(policy, reward_model), PROMPTS, SETTINGS, answers=4)
    assert again.comparisons == pool.comparisons
    assert {each.first for each in make_pool(PadEngine(policy, reward_model), PROMPTS, SETTINGS, 4, 1).comparisons} != {
        each.first for each in pool.comparisons
    }


def test_the_same_answer_in_every_way_is_said(policy: LanguageModel, reward_model: PersonalizedRewardModel) -> None:
    with pytest.raises(UsageError, match="answers to each prompt are identical"):
        make_pool(PadEngine(policy, reward_model), PROMPTS, SETTINGS, answers=1)


def test_no_comparison_is_asked_twice(reward_model: PersonalizedRewardModel, pool: Pool, tmp_path: Path) -> None:
    session = Session(reward_model, pool, tmp_path / "log.jsonl")
    places = []
    while (place := session.next()) is not None:
        places.append(place)
        session.answer(place, first=None)
    assert places
    assert len(set(places)) == len(places)


def test_another_sitting_goes_on_where_the_first_one_stopped(
    reward_model: PersonalizedRewardModel, pool: Pool, tmp_path: Path
) -> None:
    whole, parts = (Session(reward_model, pool, tmp_path / name) for name in ("whole.jsonl", "parts.jsonl"))
    answers = [True, False, None, True, True]
    for number, answer in enumerate(answers):
        if number == 3:
            parts = Session(reward_model, pool, tmp_path / "parts.jsonl")
        for session in (whole, parts):
            assert len(session.replies) == number
            answered(session, answer)
    assert (tmp_path / "parts.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert parts.learned().weights == pytest.approx(whole.learned().weights, abs=1e-4)


def test_an_answer_cut_short_by_a_crash_is_asked_again(
    reward_model: PersonalizedRewardModel, pool: Pool, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    session = Session(reward_model, pool, log)
    answered(session, True, True)
    place = session.next()
    answered(session, True)
    log.write_bytes(log.read_bytes()[:-20])
    again = Session(reward_model, pool, log)
    assert (len(again.replies), again.next()) == (2, place)


def test_what_was_answered_can_be_learned_from_as_a_file(
    reward_model: PersonalizedRewardModel, pool: Pool, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    session = Session(reward_model, pool, log)
    assert not session.can_learn
    answered(session, True, None, False, True)
    assert session.can_learn
    learned, of_the_file = session.learned(), learn_user(reward_model, read_choices(log))
    assert (learned.choices, learned.ties) == (3, 1)
    assert (of_the_file.choices, of_the_file.ties) == (3, 1)


def test_answers_the_other_way_round_are_the_same_comparisons(
    reward_model: PersonalizedRewardModel, pool: Pool, tmp_path: Path
) -> None:
    first = answered(Session(reward_model, pool, tmp_path / "log.jsonl"), True, False, None, True)
    turned = Pool(
        tuple(Comparison(each.prompt, each.second, each.first) for each in pool.comparisons),
        Features(-pool.features.slopes, -pool.features.offsets),
    )
    again = Session(reward_model, turned, tmp_path / "log.jsonl")
    assert again.learned().weights == pytest.approx(first.learned().weights, abs=1e-3)
    assert again.next() == first.next()


def test_comparisons_that_are_not_in_this_pool_are_read_again(
    policy: LanguageModel, reward_model: PersonalizedRewardModel, pool: Pool, tmp_path: Path
) -> None:
    moments = (np.diag([4.0, 9.0, 1.0]) + 0.5).tolist()
    model = replace(reward_model, details={"pair_moments": moments})
    first = answered(Session(model, pool, tmp_path / "log.jsonl"), True, False, None, True)
    other = make_pool(PadEngine(policy, reward_model), [as_messages("Else?")], SETTINGS, answers=4)
    again = Session(model, other, tmp_path / "log.jsonl")
    assert any(first.learned().weights.values())
    assert again.learned().weights == pytest.approx(first.learned().weights, abs=1e-3)
    assert (again.learned().choices, again.learned().ties) == (3, 1)
