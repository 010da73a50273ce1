"""Tokens to text as they are decided: never half a character, and in the end exactly the whole answer."""

from __future__ import annotations

from typing import Any

from pad_cli.models.prompts import decode_answer

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Turns a growing list of tokens into pieces of text.

    A piece is held back while the text ends inside a character or in white space, so that the pieces together are the
    text that `decode_answer` gives for all tokens.

    Args:
        tokenizer: of the policy.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Take one more token and return the text that is certain now; may be empty."""
        self._tokens.append(token)
        text = decode_answer(self._tokenizer, self._tokens)
        return "" if text.endswith(_UNFINISHED) else self._rest(text)

    def finish(self) -> str:
        """What was held back."""
        return self._rest(decode_answer(self._tokenizer, self._tokens))

    def _rest(self, text: str) -> str:
        new, self._shown = text[self._shown :], max(self._shown, len(text))
        return new
