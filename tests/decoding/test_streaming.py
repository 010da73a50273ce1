"""Streaming: the pieces are the answer, and never half a character."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from pad_cli.decoding.detokenize import IncrementalDetokenizer
from pad_cli.decoding.engine import PadEngine
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import decode_answer
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import DecodingSettings
from tests.decoding.conftest import PROMPTS
from tests.tiny import make_tokenizer

TOKENIZER = make_tokenizer()


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
