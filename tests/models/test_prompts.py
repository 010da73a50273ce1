"""Conversations to tokens: with a chat template and without, and where an answer ends."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import processors
from transformers import AddedToken

from pad_cli.errors import DataError
from pad_cli.models.prompts import decode_answer, encode_answer, encode_prompt, encode_text, end_of_turn
from pad_cli.records import Messages, as_messages
from tests.tiny import make_tokenizer

CONVERSATION = as_messages(
    [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Why?"},
    ]
)


@pytest.fixture(scope="module")
def plain() -> Any:
    return make_tokenizer(chat=False)


def chatml(*, named: bool) -> Any:
    """A tokenizer with ChatML's template: text follows the token that ends a turn, and that is not the end of text.

    Args:
        named: whether the special tokens are listed as additional special tokens, or only flagged as special.
    """
    tokenizer = make_tokenizer(chat=False)
    if named:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    else:
        tokenizer.add_tokens([AddedToken(text, special=True) for text in ("<|im_start|>", "<|im_end|>")])
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    return tokenizer


def test_a_chat_template_words_the_prompt(byte_tokenizer: Any) -> None:
    tokens = encode_prompt(byte_tokenizer, as_messages("Hi"))
    assert byte_tokenizer.decode(tokens) == "<user>Hi<assistant>"
    assert len(tokens) == 4, "roles are single special tokens"


def test_a_chat_template_words_a_conversation(byte_tokenizer: Any) -> None:
    text = byte_tokenizer.decode(encode_prompt(byte_tokenizer, CONVERSATION))
    assert text == "<system>Be kind.<user>Hi<assistant>Hello.<end><user>Why?<assistant>"


def test_without_a_chat_template_an_instruction_has_the_plain_form(plain: Any) -> None:
    tokens = encode_prompt(plain, as_messages("  Explain bread. \n"))
    assert plain.decode(tokens) == "Instruction: Explain bread.\nResponse:"


def test_without_a_chat_template_a_conversation_has_one_role_a_line(plain: Any) -> None:
    text = plain.decode(encode_prompt(plain, CONVERSATION))
    assert text == "System: Be kind.\nUser: Hi\nAssistant: Hello.\nUser: Why?\nAssistant:"


@pytest.mark.parametrize("chat", [True, False])
def test_a_long_prompt_keeps_its_end(chat: bool) -> None:
    tokenizer = make_tokenizer(chat=chat)
    whole = encode_prompt(tokenizer, as_messages("one two three"))
    assert encode_prompt(tokenizer, as_messages("one two three"), 7) == whole[-7:]
    assert encode_prompt(tokenizer, as_messages("one two three"), len(whole)) == whole
    assert encode_prompt(tokenizer, as_messages("one two three"), 10_000) == whole


@pytest.mark.parametrize("messages", [(), as_messages(""), as_messages(" \n\t"), (*CONVERSATION[:3], *as_messages(""))])
def test_an_empty_prompt_is_refused(byte_tokenizer, messages: Messages) -> None:
    with pytest.raises(DataError, match="empty") as caught:
        encode_prompt(byte_tokenizer, messages)
    assert caught.value.hint


@pytest.mark.parametrize("chat", [True, False])
def test_an_answer_ends_with_the_end_token_unless_it_is_cut(chat: bool) -> None:
    tokenizer = make_tokenizer(chat=chat)
    whole = encode_answer(tokenizer, "Yes.")
    assert whole[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in whole[:-1]
    assert encode_answer(tokenizer, "Yes.", len(whole)) == whole
    cut = encode_answer(tokenizer, "Yes.", len(whole) - 1)
    assert cut == whole[:-1]


def test_prompt_and_answer_together_are_the_templates_own_conversation(byte_tokenizer: Any) -> None:
    turn = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    whole = byte_tokenizer.apply_chat_template(turn, tokenize=False)
    tokens = encode_prompt(byte_tokenizer, as_messages("Hi")) + encode_answer(byte_tokenizer, "Hello.")
    assert tokens == byte_tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_without_a_chat_template_one_space_separates_prompt_and_answer(plain: Any) -> None:
    for answer in ("Hello.", " Hello."):
        tokens = encode_prompt(plain, as_messages("Hi")) + encode_answer(plain, answer)
        assert plain.decode(tokens) == "Instruction: Hi\nResponse: Hello.<end>"


@pytest.mark.parametrize("named", [True, False])
def test_an_answer_ends_with_the_end_of_the_turn_though_text_follows_it(named: bool) -> None:
    tokenizer = chatml(named=named)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert encode_answer(tokenizer, "Yes.")[-1] == end != tokenizer.eos_token_id
    assert tokenizer.decode(encode_prompt(tokenizer, as_messages("Hi"))).endswith("<|im_start|>assistant\n")


def test_a_template_that_puts_nothing_after_an_answer_ends_with_the_end_of_sequence() -> None:
    tokenizer = make_tokenizer(chat=False)
    tokenizer.chat_template = "{% for m in messages %}{{ '<user>' + m['content'] }}{% endfor %}"
    assert encode_answer(tokenizer, "Yes.")[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("after", ["<turn_end>", "<turn_end>\n", " \n<turn_end>", "<turn_end><user>"])
@pytest.mark.parametrize("special", [True, False])
def test_the_end_of_a_turn_is_found_whatever_its_flags(after: str, special: bool) -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("<turn_end>", special=special)])
    tokenizer.chat_template = tokenizer.chat_template.replace("'<end>'", repr(after))
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<turn_end>")


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ '\n' + m['role'] + ': ' + m['content'] + '\nEnd' }}<user>{% endfor %}",
        "{{ raise_exception('Only one turn is allowed') }}",
        "{{ messages[0]['content'] }}",
        None,
    ],
)
def test_where_no_token_follows_an_answer_the_end_of_sequence_ends_it(template: str | None) -> None:
    tokenizer = make_tokenizer(chat=False)
    tokenizer.chat_template = template
    assert end_of_turn(tokenizer) == tokenizer.eos_token_id


def test_a_template_that_reads_parts_ends_its_turns_too() -> None:
    tokenizer = make_tokenizer(chat=False)
    tokenizer.chat_template = (
        "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}<assistant>{% endfor %}"
    )
    assert end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<assistant>")


def framed(template: str) -> Any:
    """A tokenizer that puts special tokens around every text."""
    tokenizer = make_tokenizer()
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in ("<user>", "<assistant>", "<end>")}
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=list(ids.items())
    )
    return tokenizer


@pytest.mark.parametrize("end", ["", " <end>"])
@pytest.mark.parametrize("beginning", ["", "<user>", "<user> <assistant>"])
def test_a_text_that_spells_its_beginning_out_gets_no_second_one(beginning: str, end: str) -> None:
    tokenizer = framed(f"{beginning} $A{end}".strip())
    spelled = beginning.replace(" ", "")
    plain = tokenizer("Explain", add_special_tokens=False)["input_ids"]
    expected = [*tokenizer.convert_tokens_to_ids(beginning.split()), *plain]
    assert encode_text(tokenizer, "Explain") == expected
    assert encode_text(tokenizer, f"{spelled}Explain") == expected
    if spelled:
        assert (
            encode_text(tokenizer, f"{spelled}{spelled}Explain")[: len(expected) - len(plain)]
            == expected[: -len(plain)]
        )
        assert len(encode_text(tokenizer, f"{spelled}{spelled}Explain")) == 2 * len(expected) - len(plain)
    assert encode_text(tokenizer, "Explain<end>") == [*expected, tokenizer.eos_token_id], "what a text spells stays"


@pytest.mark.parametrize("text", ["Hello.", "Grüße, 世界 🎉", "two\nlines"])
def test_decoding_an_encoded_answer_gives_it_back(byte_tokenizer, text: str) -> None:
    assert decode_answer(byte_tokenizer, encode_answer(byte_tokenizer, text)) == text
