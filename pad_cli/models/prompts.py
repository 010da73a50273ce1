"""Conversations to token ids: the tokenizer's chat template when it has one, a plain template when not.

The plain template of a single instruction is "Instruction: ...\\nResponse:"; of a conversation one "Role: ..." a line.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from pad_cli.errors import DataError
from pad_cli.models.chat_template import moves_system, render
from pad_cli.records import Messages
from pad_cli.system.progress import note

_PLAIN_NAMES = {"user": "User", "assistant": "Assistant", "system": "System"}
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what decoding shows of a character whose last bytes are missing
_LONGEST_REST = 4  # tokens after the last whole character: three bytes, and an end of sequence
_WINDOW = 16  # tokens at the end of a prompt that are decoded with what follows
_PROBE = "Fine weather today"  # an answer that no template contains


def encode_prompt(
    tokenizer: Any,
    messages: Messages,
    max_tokens: int | None = None,
    *,
    template_options: Mapping[str, Any] | None = None,
    place: str = "",
) -> list[int]:
    """Token ids of a prompt, ready for an answer; a long one loses its beginning.

    Args:
        tokenizer: with or without a chat template.
        messages: the conversation.
        max_tokens: longest prompt.
        template_options: variables of the chat template (`enable_thinking`); the plain template has none.
        place: where it was read, for messages.

    Raises:
        DataError: the prompt is empty, or the chat template refuses it.
    """
    text = _render(tokenizer, messages, place, template_options or {})
    if tokenizer.chat_template:
        tokens = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    else:
        tokens = encode_text(tokenizer, text)
    return tokens if max_tokens is None else tokens[-max_tokens:]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that a model is to continue.

    The tokenizer puts its beginning of text in front, unless the text spells it out; an end that it appends is dropped.
    """
    tokens = list(tokenizer(text)["input_ids"])
    plain = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    added = len(tokens) - len(plain)
    if added > 0 and tokens[-1] == tokenizer.eos_token_id and tokens[added - 1 : -1] == plain:
        tokens, added = tokens[:-1], added - 1
    spelled = added > 0 and tokens[added:] == plain and plain[:added] == tokens[:added]
    return plain if spelled else tokens


def check_prompts(tokenizer: Any, prompts: Sequence[tuple[str, Messages]]) -> None:
    """Render prompts before any is answered, and say how many of them have their system text in a user turn.

    Args:
        tokenizer: of the model that will read them.
        prompts: where each was read, and its conversation.

    Raises:
        DataError: one is empty, or the chat template refuses it; says which.
    """
    for place, messages in prompts:
        _render(tokenizer, messages, place, {})
    if moved := sum(moves_system(tokenizer, messages) for _, messages in prompts):
        note(f"{moved:,} of {len(prompts):,} prompts have their system text in a user turn.")


def encode_answer(tokenizer: Any, answer: str, max_tokens: int | None = None) -> list[int]:
    """Token ids of an answer with its end of turn; a long one loses its end, and then has no end of turn."""
    text = answer if tokenizer.chat_template else f" {answer.lstrip()}"
    tokens = [*tokenizer(text, add_special_tokens=False)["input_ids"], end_of_turn(tokenizer)]
    return tokens if max_tokens is None else tokens[:max_tokens]


def decode_answer(tokenizer: Any, tokens: Sequence[int], ends: Collection[int] = ()) -> str:
    """The text of an answer, without white space around it.

    Args:
        tokenizer: of the model that wrote it.
        tokens: with or without an end of turn.
        ends: tokens that end an answer; they are never text, even those that the tokenizer does not flag as special.
    """
    return str(tokenizer.decode([t for t in tokens if t not in ends], skip_special_tokens=True)).strip()


class Continuation:
    """Text that goes on from a prompt: what the prompt's text grows by, with its white space.

    Decoders drop the blank of a first token that begins a word, so new tokens are decoded after the prompt's last ones.

    Args:
        tokenizer: of the model that writes.
        prompt: tokens that it goes on from.
    """

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        size = _WINDOW
        while size < len(prompt) and _UNFINISHED in self._decode(prompt[-size:]):
            size *= 2  # it may begin inside a character
        self._before = list(prompt[-size:])
        self._known = len(whole_characters(self._decode, self._before))

    def text(self, tokens: Sequence[int], ends: Collection[int] = ()) -> str:
        """The text of new tokens, of which `ends` are no part."""
        return self._decode([*self._before, *(t for t in tokens if t not in ends)])[self._known :]

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def whole_characters(decode: Callable[[Sequence[int]], str], tokens: Sequence[int]) -> str:
    """The decoded text up to its last whole character: tokens may end inside one."""
    text = decode(tokens)
    if not text.endswith(_UNFINISHED):
        return text
    # a decoder of byte fallback shows no character of a row of bytes until all are whole
    shorter = [decode(tokens[:-rest]) for rest in range(1, _LONGEST_REST + 1)]
    return max((each.rstrip(_UNFINISHED) for each in (text, *shorter)), key=len)


def _render(tokenizer: Any, messages: Messages, place: str, template_options: Mapping[str, Any]) -> str:
    try:
        if not messages or not messages[-1]["content"].strip():
            raise DataError("The prompt is empty.", hint="Say what to answer.")
        if not tokenizer.chat_template:
            return _plain(messages)
        return render(tokenizer, messages, prompt=True, template_options=template_options)
    except DataError as error:
        raise DataError(error.message, path=place, hint=error.hint) from error


def _plain(messages: Messages) -> str:
    if len(messages) == 1:
        return f"Instruction: {messages[0]['content'].strip()}\nResponse:"
    lines = [f"{_PLAIN_NAMES.get(m['role'], m['role'].title())}: {m['content'].strip()}" for m in messages]
    return "\n".join([*lines, "Assistant:"])


def end_of_turn(tokenizer: Any) -> int:
    """The token that the chat template puts after an answer (`<end_of_turn>`, `<|im_end|>`), else the end of sequence.

    White space may stand before it. A template that goes on with ordinary text, or with nothing, has no such token.
    """
    added = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for token in tokenizer(_after_answer(tokenizer), add_special_tokens=False)["input_ids"]:
        if tokenizer.decode([token]).strip():
            return int(token if token in added else tokenizer.eos_token_id)
    return int(tokenizer.eos_token_id)


def _after_answer(tokenizer: Any) -> str:
    """What the chat template puts after the last answer of a conversation."""
    if not tokenizer.chat_template:
        return ""
    with contextlib.suppress(DataError):  # what reads real prompts says what is wrong with the template
        turn = ({"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE})
        _, found, rest = render(tokenizer, turn, prompt=False).rpartition(_PROBE)
        return rest if found else ""
    return ""
