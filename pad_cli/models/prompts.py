"""Conversations to token ids: the tokenizer's chat template when it has one, a plain template when not.

The plain template of a single instruction is "Instruction: ...\\nResponse:"; of a conversation one "Role: ..." a line.
"""

from __future__ import annotations

from typing import Any

from pad_cli.errors import DataError
from pad_cli.records import Messages

_PLAIN_NAMES = {"user": "User", "assistant": "Assistant", "system": "System"}


def encode_prompt(tokenizer: Any, messages: Messages, max_tokens: int | None = None) -> list[int]:
    """Token ids of a prompt, ready for an answer; a long one loses its beginning.

    Raises:
        DataError: the prompt is empty.
    """
    if not messages or not messages[-1]["content"].strip():
        raise DataError("The prompt is empty.", hint="Say what to answer.")
    if tokenizer.chat_template:
        text = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        tokens = tokenizer(_plain(messages))["input_ids"]
        if tokens and tokens[-1] == tokenizer.eos_token_id:
            tokens = tokens[:-1]
    return list(tokens if max_tokens is None else tokens[-max_tokens:])


def encode_answer(tokenizer: Any, answer: str, max_tokens: int | None = None) -> list[int]:
    """Token ids of an answer with its end of sequence; a long one loses its end, and then has no end of sequence."""
    text = answer if tokenizer.chat_template else f" {answer.lstrip()}"
    tokens = [*tokenizer(text, add_special_tokens=False)["input_ids"], _end_of_turn(tokenizer)]
    return tokens if max_tokens is None else tokens[:max_tokens]


def decode_answer(tokenizer: Any, tokens: list[int]) -> str:
    return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def _plain(messages: Messages) -> str:
    if len(messages) == 1:
        return f"Instruction: {messages[0]['content'].strip()}\nResponse:"
    lines = [f"{_PLAIN_NAMES.get(m['role'], m['role'].title())}: {m['content'].strip()}" for m in messages]
    return "\n".join([*lines, "Assistant:"])


def _end_of_turn(tokenizer: Any) -> int:
    """The token a chat template puts after an answer (`<end_of_turn>`, `<|im_end|>`), else the end of sequence."""
    end = tokenizer.eos_token_id
    if tokenizer.chat_template:
        turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        text = tokenizer.apply_chat_template(turn, tokenize=False)
        flagged = (number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
        special = {*tokenizer.all_special_ids, *flagged}
        for token in reversed(tokenizer(text, add_special_tokens=False)["input_ids"]):
            if token in special:
                end = token
            elif tokenizer.decode([token]).strip():
                break  # the answer itself
    return int(end)
