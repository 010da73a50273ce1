"""Tokens to text as they are decided: never half a character, and in the end exactly the whole text."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from pad_cli.models.prompts import Continuation, decode_answer

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Turns a growing list of tokens into pieces of text.

    A piece is held back while the text ends inside a character, or an answer in white space, so that the pieces
    together are the text that `decode_answer` or `Continuation` gives for all tokens.

    Args:
        tokenizer: of the policy.
        ends: tokens that end an answer, and are no part of its text.
        continues: the prompt's tokens where the text goes on from the prompt's; None for an answer, which is trimmed.
    """

    def __init__(self, tokenizer: Any, ends: Collection[int] = (), continues: Sequence[int] | None = None) -> None:
        self._tokenizer, self._ends = tokenizer, ends
        self._continuation = None if continues is None else Continuation(tokenizer, continues)
        self._tokens: list[int] = []
        self._shown = 0

    def push(self, token: int) -> str:
        """Take one more token and return the text that is certain now; may be empty."""
        self._tokens.append(token)
        text = self._text()
        return "" if text.endswith(_UNFINISHED) else self._rest(text)

    def finish(self) -> str:
        """What was held back."""
        return self._rest(self._text())

    def _text(self) -> str:
        if self._continuation is not None:
            return self._continuation.text(self._tokens, self._ends)
        return decode_answer(self._tokenizer, self._tokens, self._ends)

    def _rest(self, text: str) -> str:
        new, self._shown = text[self._shown :], max(self._shown, len(text))
        return new
