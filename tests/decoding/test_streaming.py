"""Streaming: the pieces are the answer, and never half a character."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pad_cli.decoding.detokenize import IncrementalDetokenizer
from pad_cli.decoding.engine import PadEngine
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import Continuation, decode_answer
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import DecodingSettings
from tests.decoding.conftest import PROMPTS
from tests.decoding.slow_bridge import SEA, make_kinds
from tests.tiny import make_tokenizer

TOKENIZER = make_tokenizer()
KINDS = make_kinds(chat=False)  # byte pairs, and those that mark the beginning of a word or fall back on bytes


def test_streaming_equals_generate(policy: LanguageModel, reward_model: PersonalizedRewardModel) -> None:
    engine = PadEngine(policy, reward_model)
    preference = engine.preference(["humorous, not formal"])
    for temperature in (0.0, 1.0):
        how = DecodingSettings(max_new_tokens=24, guidance_weight=2, temperature=temperature)
        for prompt in PROMPTS[:3]:
            whole = engine.generate([prompt], [preference], how)[0].text
            assert "".join(engine.stream(prompt, preference, how)) == whole


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=20))
def test_pieces_of_any_text_join_to_the_text_and_are_whole_characters(text: str) -> None:
    tokens = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    stream = IncrementalDetokenizer(TOKENIZER)
    pieces = [stream.push(token) for token in tokens] + [stream.finish()]
    assert "".join(pieces) == decode_answer(TOKENIZER, tokens)
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_a_character_of_several_tokens_appears_at_once() -> None:
    stream = IncrementalDetokenizer(TOKENIZER)
    tokens = TOKENIZER("é", add_special_tokens=False)["input_ids"]
    assert len(tokens) == 2
    assert [stream.push(token) for token in tokens] == ["", "é"]


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(sorted(KINDS)),
    text=st.text("ab é日🦜\n.", min_size=1, max_size=60) | st.just(SEA),
    cut=st.integers(1, 60),
)
def test_a_continuation_is_what_the_prompts_text_grows_by(kind: str, text: str, cut: int) -> None:
    tokenizer = KINDS[kind]
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt, new = tokens[:cut], tokens[cut:]
    whole, before = (tokenizer.decode(each, skip_special_tokens=True) for each in (tokens, prompt))
    growth = Continuation(tokenizer, prompt).text(new)
    assert whole.endswith(growth)
    if "\N{REPLACEMENT CHARACTER}" not in before:
        assert before + growth == whole
    else:  # the prompt ends inside a character, and the growth begins with the whole of it
        assert "\N{REPLACEMENT CHARACTER}" not in growth
        assert len(whole) - len(growth) <= len(before)
    stream = IncrementalDetokenizer(tokenizer, continues=prompt)
    assert "".join([stream.push(token) for token in new] + [stream.finish()]) == growth


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_continuation_keeps_the_blank_between_it_and_its_prompt(kind: str) -> None:
    tokenizer = KINDS[kind]
    prompt, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the sea", "the sea and sky"))
    assert whole[: len(prompt)] == prompt
    assert Continuation(tokenizer, prompt).text(whole[len(prompt) :]) == " and sky"
    assert Continuation(tokenizer, prompt).text([*whole[len(prompt) :], 7], ends={7}) == " and sky"
