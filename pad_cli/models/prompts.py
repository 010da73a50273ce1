"""Conversations to token ids: the tokenizer's chat template when it has one, a plain template when not.

The plain template of a single instruction is "Instruction: ...\\nResponse:"; of a conversation one "Role: ..." a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pad_cli.errors import DataError
from pad_cli.models.chat_template import moves_system, render
from pad_cli.progress import note
from pad_cli.records import Messages

_PLAIN_NAMES = {"user": "User", "assistant": "Assistant", "system": "System"}


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
        tokenizer: of the model that reads it.
        messages: the conversation.
        max_tokens: how much of its end to keep.
        template_options: variables of the chat template (`enable_thinking`); the plain template has none.
        place: where it was read, for messages.

    Raises:
        DataError: the prompt is empty, or the chat template refuses it.
    """
    text = _render(tokenizer, messages, place, template_options or {})
    if tokenizer.chat_template:
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        tokens = tokenizer(text)["input_ids"]
        if tokens and tokens[-1] == tokenizer.eos_token_id:
            tokens = tokens[:-1]
    return list(tokens if max_tokens is None else tokens[-max_tokens:])


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
    """Token ids of an answer with its end of sequence; a long one loses its end, and then has no end of sequence."""
    text = answer if tokenizer.chat_template else f" {answer.lstrip()}"
    tokens = [*tokenizer(text, add_special_tokens=False)["input_ids"], _end_of_turn(tokenizer)]
    return tokens if max_tokens is None else tokens[:max_tokens]


def decode_answer(tokenizer: Any, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()


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


def _end_of_turn(tokenizer: Any) -> int:
    """The token a chat template puts after an answer (`<end_of_turn>`, `<|im_end|>`), else the end of sequence."""
    end = tokenizer.eos_token_id
    if tokenizer.chat_template:
        turn = ({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"})
        text = render(tokenizer, turn, prompt=False)
        flagged = (number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
        special = {*tokenizer.all_special_ids, *flagged}
        for token in reversed(tokenizer(text, add_special_tokens=False)["input_ids"]):
            if token in special:
                end = token
            elif tokenizer.decode([token]).strip():
                break  # the answer itself
    return int(end)
