"""Answers that arrive together are decoded together: a bounded queue, and one thread that decodes batch after batch.

A batch takes the answer that has waited longest and those behind it that are decoded the same way (`decoding`
settings; preference, guidance weight, seed and length may differ). A row leaves it when its answer ends. The next batch
begins when all have left: rows do not join. For that there are serving engines, see docs/serving.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Literal

from pad_cli.decoding.detokenize import IncrementalDetokenizer
from pad_cli.decoding.engine import PadEngine
from pad_cli.models.forward import is_out_of_memory
from pad_cli.server.protocol import ApiError, Event, internal_error
from pad_cli.server.request_reader import Limits, Work

_log = logging.getLogger(__name__)


class StopStrings:
    """Passes text on up to the first stop string to be completed; of several completed at once, the longest.

    As many characters as one may begin with are held back, so the output does not depend on how the text is cut.
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
        certain = max(len(self._held) - max((len(stop) - 1 for stop in self._strings), default=0), 0)
        out, self._held = self._held[:certain], self._held[certain:]
        return out

    def finish(self) -> str:
        """What was held back."""
        return "" if self.met else self._held


class Answer:
    """One row of a batch, which emits events to the server. Its methods run on the decoding thread.

    Attributes:
        over: nothing more is wanted or possible; the server sets it when the client leaves.
    """

    def __init__(
        self, engine: PadEngine, work: Work, index: int, streamed: bool, timeout: float, emit: Callable[[Event], None]
    ) -> None:
        self.item, self.settings, self.limit, self.over = work.items[index], work.settings, work.limit, False
        self._submitted = time.monotonic()
        self._engine, self._index, self._emit = engine, index, emit
        self._streamed, self._timeout = streamed, timeout
        self._tokens: list[int] = []
        self._ends = engine.policy.end_tokens
        self._stop, self._whole = StopStrings(work.stop), ""
        needs_text = streamed or work.stop
        self._text = IncrementalDetokenizer(engine.policy.tokenizer, self._ends) if needs_text else None

    def push(self, token: int) -> None:
        """Take the next token, which may be the one that ends the answer."""
        self._tokens.append(token)
        if self._text is not None:
            self._pass_on(self._stop.push(self._text.push(token)))
        if token in self._ends or self._stop.met:
            self._finish("stop")
        elif len(self._tokens) >= self.limit:
            self._finish("length")
        else:
            self.expire_if_late()

    def expire_if_late(self) -> None:
        if not self.over and time.monotonic() > self._submitted + self._timeout:
            self.fail(ApiError(504, f"No answer within {self._timeout:g} s.", code="timeout"))

    def fail(self, error: ApiError) -> None:
        if not self.over:
            self.over = True
            self._emit(Event(self._index, error=error))

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
            self._pass_on(self._stop.push(self._text.finish()) + self._stop.finish())
            reason = "stop" if self._stop.met else reason
        self._emit(Event(self._index, self._whole, reason, len(self._tokens)))


class Job:
    """The answers of one request: submitted together, awaited on the event loop, cancelled together."""

    def __init__(self, engine: PadEngine, work: Work, *, streamed: bool, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

        def emit(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens
                loop.call_soon_threadsafe(self._events.put_nowait, event)

        self.answers = [Answer(engine, work, index, streamed, timeout, emit) for index in range(len(work.items))]

    async def events(self) -> AsyncIterator[Event]:
        """Events until all answers are whole (ApiError if one fails)."""
        left = len(self.answers)
        while left:
            event = await self._events.get()
            if event.error is not None:
                raise event.error
            left -= event.reason is not None
            yield event

    def cancel(self) -> None:
        """Stop decoding what is not whole by now."""
        for answer in self.answers:
            answer.over = True


class Scheduler:
    """Decodes what is submitted, on a thread of its own; only that thread calls the engine's models."""

    def __init__(self, engine: PadEngine, limits: Limits) -> None:
        self._engine, self._limits, self._max_batch = engine, limits, limits.max_batch
        self._queue: deque[Answer] = deque()
        self._running = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self.start = self._thread.start

    @property
    def health(self) -> dict[str, Any]:
        """What GET /health says: whether the decoding thread is alive, and how many answers wait and run."""
        status = "ok" if self._thread.is_alive() else "decoding has stopped"
        return {"status": status, "waiting": len(self._queue), "running": self._running}

    def submit(self, job: Job) -> None:
        """Queue the answers of one request, all or none (ApiError 429: no room)."""
        with self._changed:
            room = self._limits.max_queue - len(job.answers)
            if len(self._queue) > room:
                self._queue = deque(answer for answer in self._queue if not answer.over)
            if len(self._queue) > room:
                message = "Too many requests are waiting. Try again in a moment."
                raise ApiError(429, message, code="queue_full", headers={"Retry-After": "1"})
            self._queue.extend(job.answers)
            self._changed.notify_all()

    def close(self, timeout: float) -> None:
        """End the thread after the token that it decodes; nobody waits for answers any more."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _run(self) -> None:
        while batch := self._next():
            self._running = len(batch)
            try:
                self._decode(batch)
            except Exception as error:  # it ends these requests, whatever it is, and not the server
                _log.exception("A batch of %d answers failed.", len(batch))
                failure = internal_error()
                if len(batch) > 1 and is_out_of_memory(error):
                    self._max_batch = len(batch) // 2
                    _log.warning("Going on with at most %d answers at once.", self._max_batch)
                    message, again = "The server ran out of memory at this request. Ask again.", {"Retry-After": "1"}
                    failure = ApiError(503, message, code="out_of_memory", headers=again)
                for answer in batch:
                    answer.fail(failure)
            self._running = 0

    def _next(self) -> list[Answer]:
        """The next batch, once there is one; empty when the server closes."""
        with self._changed:
            while not self._closing:
                self._changed.wait_for(lambda: self._queue or self._closing)
                self._changed.wait_for(
                    lambda: len(self._queue) >= self._max_batch or self._closing, self._limits.batch_wait
                )
                if batch := self._take():
                    return batch
            return []

    def _take(self) -> list[Answer]:
        batch: list[Answer] = []
        left: deque[Answer] = deque()
        for answer in self._queue:
            answer.expire_if_late()
            if answer.over:
                continue
            room = min(self._max_batch, self._engine.batch_size(answer.settings))
            if len(batch) < room and (not batch or answer.settings == batch[0].settings):
                batch.append(answer)
            else:
                left.append(answer)
        self._queue = left
        return batch

    def _decode(self, batch: Sequence[Answer]) -> None:
        settings = batch[0].settings.model_copy(update={"max_new_tokens": max(answer.limit for answer in batch)})

        def over(row: int) -> bool:
            return self._closing or batch[row].over

        for step in self._engine.steps([answer.item for answer in batch], settings, over):
            for row, token in zip(step.rows, step.tokens.tolist(), strict=True):
                if not batch[row].over:
                    batch[row].push(token)
