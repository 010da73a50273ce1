"""One answer under way: the decoding thread pushes tokens in, events go out to whoever asked."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from pad_cli.decoding.detokenize import IncrementalDetokenizer
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.items import Item
from pad_cli.recipe import DecodingSettings
from pad_cli.server.api_error import ApiError, interrupted, timed_out
from pad_cli.server.stop_strings import StopStrings

Reason = Literal["stop", "length"]


@dataclass(frozen=True)
class Piece:
    """More text of an answer; `index` is the number of the choice."""

    index: int
    text: str


@dataclass(frozen=True)
class Finished:
    """An answer is whole: all its text, why it ends, and how many tokens were decoded for it."""

    index: int
    text: str
    reason: Reason
    tokens: int


@dataclass(frozen=True)
class Failed:
    """There will be no (more) answer."""

    index: int
    error: ApiError


Event = Piece | Finished | Failed


class Answer:
    """One row of a batch.

    Args:
        engine: decodes.
        item: what to answer.
        index: number of the choice in its request.
        settings: how to decode; answers with equal settings are decoded together.
        limit: longest answer (tokens).
        stop: strings that end it.
        continues: whether the text goes on from the prompt's, with its white space.
        pieces: whether text is wanted as it is decided.
        timeout: seconds from now until it is given up.
        emit: takes the events, on the decoding thread.

    Attributes:
        over: nothing more is wanted or possible.
    """

    def __init__(
        self,
        engine: PadEngine,
        item: Item,
        *,
        index: int,
        settings: DecodingSettings,
        limit: int,
        stop: Sequence[str],
        continues: bool,
        pieces: bool,
        timeout: float,
        emit: Callable[[Event], None],
    ) -> None:
        self.item, self.settings, self.limit, self.over = item, settings, limit, False
        self.asked = time.monotonic()
        self._engine, self._index, self._emit = engine, index, emit
        self._pieces, self._timeout, self._deadline = pieces, timeout, self.asked + timeout
        self._tokens: list[int] = []
        self._known: deque[int] = deque()
        self._ends = engine.policy.end_tokens
        before = item.prompt if continues else None
        self._text = (
            IncrementalDetokenizer(engine.policy.tokenizer, self._ends, before) if pieces or stop or continues else None
        )
        self._stop, self._given = StopStrings(stop), ""

    def push(self, token: int) -> None:
        """Take the next token; one that ends the answer, too."""
        if self._known:
            if token != self._known.popleft():
                self.fail(interrupted())
            return
        self._tokens.append(token)
        ended = token in self._ends
        if ended or (self._text is not None and self._give(self._text.push(token))):
            self._finish("stop")
        elif len(self._tokens) >= self.limit:
            self._finish("length")
        elif self.late():
            self.expire()

    def start_again(self) -> None:
        """Its tokens will come once more from the first one; those it has are compared, and not given out again.

        They are the same in every batch but at near ties, which are rare in float32. Where one differs the answer
        fails: its beginning, which a client may have read, would not fit its end.
        """
        self._known = deque(self._tokens)

    def late(self) -> bool:
        return time.monotonic() > self._deadline

    def expire(self) -> None:
        """It has waited too long."""
        self.fail(timed_out(self._timeout))

    def fail(self, error: ApiError) -> None:
        if not self.over:
            self.over = True
            self._emit(Failed(self._index, error))

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.over = True

    def _give(self, text: str) -> bool:
        """Pass text on up to a stop string; was there one?"""
        self._pass_on(self._stop.push(text))
        return self._stop.met

    def _pass_on(self, text: str) -> None:
        self._given += text
        if text and self._pieces:
            self._emit(Piece(self._index, text))

    def _finish(self, reason: Reason) -> None:
        self.over = True
        if self._text is None:
            self._given = self._engine.read_answer(self._tokens).text
        elif not self._stop.met:
            reason = "stop" if self._give(self._text.finish()) else reason
            self._pass_on(self._stop.finish())
        self._emit(Finished(self._index, self._given, reason, len(self._tokens)))
