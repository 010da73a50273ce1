"""Preferences as users type them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.errors import DataError, PreferenceError
from pad_cli.preference import Preference, instruction, parse_preference, prompted
from pad_cli.records import Messages, as_messages

PRINCIPLES = ("humorous", "formal", "concise", "hands-on", "salt and pepper", "clear, plain", "no spoilers", "A=B")


def parse(*specs: str, accepts_text: bool = True) -> Preference:
    return parse_preference(specs, PRINCIPLES, accepts_text=accepts_text)


@pytest.mark.parametrize(
    ("spec", "weights", "texts"),
    [
        ("humorous", {"humorous": 1}, {}),
        ("  Humorous ", {"humorous": 1}, {}),
        ("concise=0.5", {"concise": 0.5}, {}),
        ("concise = -2", {"concise": -2}, {}),
        ("not formal", {"formal": -1}, {}),
        ("No formal", {"formal": -1}, {}),
        ("less formal=0.5", {"formal": -0.5}, {}),
        ("avoid formal", {"formal": -1}, {}),
        ("without formal=-2", {"formal": 2}, {}),
        ("something to laugh", {}, {"something to laugh": 1}),
        ("something to laugh=2", {}, {"something to laugh": 2}),
        ("not too many words", {}, {"too many words": -1}),
        ("humorous, concise", {"humorous": 1, "concise": 1}, {}),
        ("humorous and concise", {"humorous": 1, "concise": 1}, {}),
        ("humorous but not formal", {"humorous": 1, "formal": -1}, {}),
        ("humorous; concise+formal", {"humorous": 1, "concise": 1, "formal": 1}, {}),
        ("humorous, and concise", {"humorous": 1, "concise": 1}, {}),
        ("humorous, something new", {"humorous": 1}, {"something new": 1}),
        ("text:humorous", {}, {"humorous": 1}),
        ("text: humourous", {}, {"humourous": 1}),
        ("TEXT:not formal", {}, {"not formal": 1}),
        ("not text:formal", {}, {"formal": -1}),
        ("hands-on", {"hands-on": 1}, {}),
    ],
)
def test_a_specification_reads_as_documented(spec: str, weights: dict[str, float], texts: dict[str, float]) -> None:
    assert parse(spec) == Preference(weights, texts)


@pytest.mark.parametrize("spec", ["concise=0.5, humorous", "humorous, concise=0.5", "humorous and concise=0.5"])
def test_a_weight_belongs_to_its_own_clause(spec: str) -> None:
    assert parse(spec) == Preference({"concise": 0.5, "humorous": 1.0}, {})


def test_several_weights_may_stand_in_one_specification() -> None:
    assert parse("concise=0.5, not formal=2, humorous=3").weights == {"concise": 0.5, "formal": -2, "humorous": 3}


@pytest.mark.parametrize("name", ["salt and pepper", "clear, plain"])
def test_a_name_with_a_separator_inside_is_taken_whole(name: str) -> None:
    assert parse(name).weights == {name: 1.0}
    assert parse(f"not {name}").weights == {name: -1.0}
    assert parse(f"{name}=0.5").weights == {name: 0.5}


@pytest.mark.parametrize("name", ["no spoilers", "A=B"])
def test_a_clause_that_is_exactly_a_known_name_is_that_principle(name: str) -> None:
    assert parse(name) == Preference({name: 1.0}, {})


def test_specifications_add() -> None:
    assert parse("humorous", "humorous=0.5", "formal").weights == {"humorous": 1.5, "formal": 1.0}


def test_what_cancels_out_is_no_preference() -> None:
    assert not parse("humorous", "not humorous")
    assert not parse("humorous=0")


def test_no_specification_is_no_preference() -> None:
    assert parse() == Preference({}, {})
    assert not parse()
    assert parse("humorous")
    assert parse("something else")


@pytest.mark.parametrize("spec", ["", "  ", "\t\n", "text:", "text:  ", "=1", ",", " ; + "])
def test_an_empty_specification_is_refused(spec: str) -> None:
    with pytest.raises(PreferenceError):
        parse(spec)


@pytest.mark.parametrize("weight", ["much", "", "nan", "inf", "-inf", "1e999", "1.5x", "0x1"])
def test_a_weight_that_is_no_finite_number_is_refused(weight: str) -> None:
    with pytest.raises(PreferenceError, match="is not a weight"):
        parse(f"humorous={weight}")


def test_weights_that_add_up_to_infinity_are_refused() -> None:
    with pytest.raises(PreferenceError):
        parse("humorous=1e308", "humorous=1e308")


def test_half_a_character_is_refused() -> None:
    """Bytes in argv that are no UTF-8 reach Python as lone surrogates, which no tokenizer reads."""
    with pytest.raises(PreferenceError):
        parse("caf\udce9")


@pytest.mark.parametrize("accepts_text", [True, False])
def test_a_misspelt_principle_is_pointed_out(accepts_text: bool) -> None:
    with pytest.raises(PreferenceError, match="Did you mean humorous"):
        parse("humourous", accepts_text=accepts_text)


def test_without_an_encoder_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(PreferenceError, match=r"Unknown preference 'purple'") as caught:
        parse("purple", accepts_text=False)
    assert all(name in caught.value.hint for name in PRINCIPLES)


def test_without_an_encoder_free_text_is_refused() -> None:
    with pytest.raises(PreferenceError, match="no preference encoder"):
        parse("text:something to laugh", accepts_text=False)


def test_the_instruction_holds_the_wording() -> None:
    assert "jokey and short" in instruction("jokey and short")


_weights = st.floats(-1e6, 1e6, allow_nan=False).filter(bool)
_plain = st.sampled_from(("humorous", "formal", "concise", "hands-on"))
_word = st.sampled_from(("more", "jokes", "please", "not", "text:", "=", "1", "less", "a=b", "0.5"))
_words = st.lists(_word, min_size=1).map(" ".join)


@given(st.dictionaries(_plain, _weights))
def test_a_described_preference_reads_back_the_same(weights: dict[str, float]) -> None:
    preference = Preference(weights, {})
    assert parse(*filter(None, [preference.describe()])) == preference


@given(st.dictionaries(_plain, _weights, max_size=1), st.lists(_words, max_size=2))
def test_a_described_free_text_reads_back_the_same(weights: dict[str, float], texts: list[str]) -> None:
    preference = Preference(weights, {})
    for text in texts:
        preference = Preference(weights, {**preference.texts, **parse(f"text:{text}=1").texts})
    assert parse(*filter(None, [preference.describe()])) == preference


@pytest.mark.parametrize("name", ["salt and pepper", "clear, plain"])
def test_a_described_name_with_a_separator_reads_back_beside_others(name: str) -> None:
    preference = Preference({"humorous": 1.0, name: -0.5}, {})
    assert parse(preference.describe()) == preference


@given(st.lists(st.text() | _words, max_size=3), st.booleans())
def test_any_text_is_a_preference_or_a_preference_error(specs: list[str], accepts_text: bool) -> None:
    try:
        preference = parse(*specs, accepts_text=accepts_text)
    except PreferenceError as error:
        assert error.hint  # noqa: PT017
    else:
        assert all([*preference.weights.values(), *preference.texts.values()])
        assert set(preference.weights) <= set(PRINCIPLES)
        assert accepts_text or not preference.texts


@given(st.sampled_from(("humorous", "hands-on")) | st.text("abcdefgh", min_size=1))
def test_text_after_the_escape_is_never_a_principle(text: str) -> None:
    assert parse(f"text:{text}") == Preference({}, {text: 1.0})


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        (["humorous"], "humorous"),
        (["not formal"], "not formal"),
        (["humorous", "formal=-1", "concise=0.5"], "humorous, not formal, concise (slightly)"),
        (["formal=-0.2", "humorous=2"], "not formal (slightly), humorous (strongly)"),
        (["concise=1.5, concise"], "concise (strongly)"),
        (["humorous, text:a bit odd, not too many words"], "humorous, a bit odd, not too many words"),
    ],
)
def test_a_preference_in_words_says_signs_and_strengths(specs: list[str], words: str) -> None:
    assert parse(*specs).phrase() == words


def test_the_last_question_asks_for_the_preference_and_the_rest_stays() -> None:
    before = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    turn = {"role": "assistant", "content": "Hello."}
    conversation = prompted((*before, turn, {"role": "user", "content": "Why?"}), parse("not formal"))
    assert conversation[:3] == (*before, turn)
    assert conversation[3]["content"] == f"Why? {instruction('not formal')}"


def test_a_question_that_does_not_end_gets_the_preference_on_a_line_of_its_own() -> None:
    (message,) = prompted(as_messages("Explain tides "), parse("formal"))
    assert message["content"] == f"Explain tides\n{instruction('formal')}"


def test_without_a_preference_a_prompt_stays_as_it_is() -> None:
    assert prompted(as_messages("Why?"), parse()) == as_messages("Why?")


@pytest.mark.parametrize("conversation", [(), ({"role": "system", "content": "Hi"},), as_messages(" ")])
def test_a_prompt_without_a_question_cannot_ask_for_a_preference(conversation: Messages) -> None:
    with pytest.raises(DataError, match="no user message"):
        prompted(conversation, parse("formal"))
