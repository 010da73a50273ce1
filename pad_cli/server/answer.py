"""One request being decoded: the decoding thread pushes tokens into its answers, which emit events to the server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

from pad_cli.decoding.detokenize import IncrementalDetokenizer
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.items import Item
from pad_cli.server.protocol import ApiError, Event
from pad_cli.server.request_reader import Work


class StopStrings:
    """Passes text on up to the first stop string to be completed; of several completed at once, the longest.

    What may be the beginning of one is held back, so the output does not depend on how the text is cut into pieces.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.met = False

    def push(self, piece: str) -> str:
        """Take more text and return what is certain now; nothing once a stop string was met."""
        if self.met:
            return ""
        self._held += piece
        hits = [(start + len(stop), start) for stop in self._strings if (start := self._held.find(stop)) >= 0]
        if hits:
            self.met = True
            return self._held[: min(hits)[1]]
        certain = len(self._held) - self._open_length()
        out, self._held = self._held[:certain], self._held[certain:]
        return out

    def finish(self) -> str:
        """What was held back."""
        return "" if self.met else self._held

    def _open_length(self) -> int:
        """Length of the longest suffix of the text that a stop string begins with."""
        longest = max((len(stop) - 1 for stop in self._strings), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._strings):
                return length
        return 0


class Answer:
    """One row of a batch. All methods run on the decoding thread, except `cancel`.

    Attributes:
        over: nothing more is wanted or possible.
    """

    def __init__(
        self,
        engine: PadEngine,
        work: Work,
        index: int,
        *,
        streamed: bool,
        timeout: float,
        emit: Callable[[Event], None],
    ) -> None:
        self.item: Item = work.items[index]
        self.settings, self.limit, self.over = work.settings, work.limit, False
        self.submitted = time.monotonic()
        self._engine, self._index, self._emit = engine, index, emit
        self._streamed, self._timeout = streamed, timeout
        self._tokens: list[int] = []
        self._replay: deque[int] = deque()
        self._ends = engine.policy.end_tokens
        self._stop, self._whole = StopStrings(work.stop), ""
        needs_text = streamed or work.stop or work.continues
        before = self.item.prompt if work.continues else None
        self._text = IncrementalDetokenizer(engine.policy.tokenizer, self._ends, before) if needs_text else None

    def push(self, token: int) -> None:
        """Take the next token, which may be the one that ends the answer."""
        if self._replay:
            if token != self._replay.popleft():
                message = "The server ran out of memory at this request. Ask again."
                self.fail(ApiError(503, message, code="out_of_memory"))
            return
        self._tokens.append(token)
        ended = token in self._ends
        if ended or (self._text is not None and self._add(self._text.push(token))):
            self._finish("stop")
        elif len(self._tokens) >= self.limit:
            self._finish("length")
        else:
            self.expire_if_late()

    def restart(self) -> None:
        """Expect all tokens once more from the first one; those known already are compared, and not emitted again.

        They are the same in every batch except at near ties, which are rare in float32. Where one differs the answer
        fails: its beginning, which a client may have read, would not fit its end.
        """
        self._replay = deque(self._tokens)

    def expire_if_late(self) -> None:
        if not self.over and time.monotonic() > self.submitted + self._timeout:
            self.fail(ApiError(504, f"No answer within {self._timeout:g} s.", code="timeout"))

    def fail(self, error: ApiError) -> None:
        if not self.over:
            self.over = True
            self._emit(Event(self._index, error=error))

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.over = True

    def _add(self, text: str) -> bool:
        """Pass text on up to a stop string; was there one?"""
        self._pass_on(self._stop.push(text))
        return self._stop.met

    def _pass_on(self, text: str) -> None:
        if not self._streamed:
            self._whole += text
        elif text:
            self._emit(Event(self._index, text))

    def _finish(self, reason: Literal["stop", "length"]) -> None:
        self.over = True
        if self._text is None:
            self._whole = self._engine.read_answer(self._tokens).text
        elif not self._stop.met:
            reason = "stop" if self._add(self._text.finish()) else reason
            self._pass_on(self._stop.finish())
        self._emit(Event(self._index, self._whole, reason, len(self._tokens)))


class Job:
    """The answers of one request: submitted together, awaited on the event loop, cancelled together."""

    def __init__(self, engine: PadEngine, work: Work, *, streamed: bool, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

        def emit(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        self.answers = [
            Answer(engine, work, index, streamed=streamed, timeout=timeout, emit=emit)
            for index in range(len(work.items))
        ]

    async def events(self) -> AsyncIterator[Event]:
        """Events until all answers are whole.

        Raises:
            ApiError: one has failed.
        """
        left = len(self.answers)
        while left:
            event = await self._events.get()
            if event.error is not None:
                raise event.error
            left -= event.reason is not None
            yield event

    def cancel(self) -> bool:
        """Cancel what is not whole by now; was there any?"""
        cancelled = any(not answer.over for answer in self.answers)
        for answer in self.answers:
            answer.cancel()
        return cancelled
