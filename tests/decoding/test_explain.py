"""Explanations: what competed for each token, as records and as a page."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

import pytest

from pad_cli.decoding.detokenize import Candidate, TokenChoice
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.heat_map import heat_map
from pad_cli.errors import DataError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import DecodingSettings
from tests.agreement import alone, assert_agree
from tests.decoding.conftest import PROMPTS
from tests.token_prompts import generate_all, generate_ids

HOW = DecodingSettings(max_new_tokens=12, guidance_weight=2)


@pytest.fixture
def engine(policy: LanguageModel, reward_model: PersonalizedRewardModel) -> PadEngine:
    return PadEngine(policy, reward_model)


def test_the_chosen_token_is_the_best_candidate_when_greedy(engine: PadEngine) -> None:
    choices = engine.explain(PROMPTS[0], engine.preference(["humorous"]), HOW)
    assert len(choices) == HOW.max_new_tokens
    assert all(choice.candidates[0].text == choice.text for choice in choices)
    assert any(choice.steered for choice in choices)


def test_pushes_average_to_nothing_under_the_policy(engine: PadEngine) -> None:
    for choice in engine.explain(PROMPTS[0], engine.preference(["humorous"]), HOW):
        mass = sum(candidate.probability for candidate in choice.candidates)
        average = sum(candidate.probability * candidate.push for candidate in choice.candidates) / mass
        assert average == pytest.approx(0, abs=1e-4)
        assert 0 < mass <= 1 + 1e-5


def test_without_guidance_nothing_is_pushed(engine: PadEngine) -> None:
    for choice in engine.explain(PROMPTS[0], None, HOW):
        assert not choice.steered
        assert [candidate.push for candidate in choice.candidates] == [0] * len(choice.candidates)


def test_a_page_shows_the_answer_and_escapes_everything() -> None:
    rival = Candidate("<b>", 0.5, -1.0)
    choice = TokenChoice(0, "<script>x</script>", "&", 2.0, (Candidate("<script>x</script>", 0.5, 1.0), rival))
    page = heat_map("<i>why?</i>", "humorous & <u>", [choice])
    seen: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: seen.append(tag)
    parser.feed(page)
    assert set(seen) <= {"html", "meta", "title", "style", "h1", "p", "span"}
    assert not re.search("https?:", page)
    assert html.escape("<script>x</script>") in page


def test_generating_ids_can_go_on_after_an_end_of_sequence(engine: PadEngine) -> None:
    how = DecodingSettings(max_new_tokens=40, temperature=2.0, candidates=200)
    prompts = [[5, 6, 7]] * 16
    stopped, requests = generate_ids(engine, prompts, None, how), alone(engine, prompts, None, how)
    endless = generate_all(engine, prompts, None, how)
    assert min(map(len, stopped)) < 40
    assert {len(tokens) for tokens in endless} == {40}
    assert_agree(stopped, [long[: len(short)] for short, long in zip(stopped, endless, strict=True)], requests)


def test_a_prompt_without_tokens_is_refused(engine: PadEngine) -> None:
    with pytest.raises(DataError, match="empty"):
        engine.generate([[1], []])
