"""The answers of one request: submitted together, heard on the event loop, cancelled together."""

from __future__ import annotations

import asyncio
import contextlib
import time

from pad_cli.decoding.engine import PadEngine
from pad_cli.server.answer import Answer, Event, Failed, Finished
from pad_cli.server.reading import Work
from pad_cli.server.scheduler import Scheduler


class Job:
    """Submits the answers of one request.

    Args:
        scheduler: decodes them.
        engine: of it.
        work: what to decode.
        pieces: whether text is wanted as it is decided.
        timeout: longest wait (seconds).

    Raises:
        ApiError: they cannot be queued.
    """

    def __init__(self, scheduler: Scheduler, engine: PadEngine, work: Work, *, pieces: bool, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self._happened: asyncio.Queue[Event] = asyncio.Queue()
        self._meters = scheduler.meters

        def emit(event: Event) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody listens
                loop.call_soon_threadsafe(self._happened.put_nowait, event)

        self._answers = [
            Answer(
                engine,
                item,
                index=index,
                settings=work.settings,
                limit=work.limit,
                stop=work.stop,
                continues=work.continues,
                pieces=pieces,
                timeout=timeout,
                emit=emit,
            )
            for index, item in enumerate(work.items)
        ]
        self._left = len(self._answers)
        scheduler.submit(self._answers)
        self._meters.prompt_tokens.inc(work.prompt_tokens)

    async def next(self) -> Event | None:
        """The next event; None once all answers are whole or one has failed."""
        if not self._left:
            return None
        event = await self._happened.get()
        if isinstance(event, Failed):
            self._left = 0
        elif isinstance(event, Finished):
            self._left -= 1
        return event

    async def whole(self) -> list[Finished]:
        """All answers, once all are whole.

        Raises:
            ApiError: one has failed.
        """
        found: list[Finished] = []
        while (event := await self.next()) is not None:
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Finished):
                found.append(event)
        return found

    def close(self) -> None:
        """Nobody waits any more: what is not whole by now is cancelled."""
        if any(not answer.over for answer in self._answers):
            self._meters.cancelled.inc()
        for answer in self._answers:
            answer.cancel()
        self._meters.seconds.observe(time.monotonic() - self._answers[0].asked)
