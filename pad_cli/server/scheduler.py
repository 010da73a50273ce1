"""Answers that arrive together are decoded together: a bounded queue, and one thread that decodes batch after batch.

A batch takes the answer that has waited longest and those behind it that are decoded the same way (`decoding`
settings; preference, guidance weight, seed and length may differ). A row leaves it when its answer ends. The next batch
begins when all have left: rows do not join. For that there are serving engines, see docs/serving.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from pad_cli.decoding.engine import PadEngine
from pad_cli.models.scoring import free_memory, is_out_of_memory
from pad_cli.server.answer import Answer
from pad_cli.server.api_error import failed, shutting_down, too_busy
from pad_cli.server.meters import Meters

_log = logging.getLogger(__name__)


class Scheduler:
    """Decodes what is submitted, on a thread of its own.

    Args:
        engine: decodes; only this thread calls its models.
        max_batch: most answers decoded together.
        max_queue: most answers that wait.
        batch_wait: how long a batch that is not full waits for more (seconds).
    """

    def __init__(self, engine: PadEngine, *, max_batch: int, max_queue: int, batch_wait: float) -> None:
        self._engine, self._max_batch, self._max_queue, self._batch_wait = engine, max_batch, max_queue, batch_wait
        self._queue: deque[Answer] = deque()
        self._running = 0
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self.meters = Meters(lambda: len(self._queue), lambda: self._running)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def submit(self, answers: Sequence[Answer]) -> None:
        """Queue the answers of one request, all or none.

        Raises:
            ApiError: 429, the queue has no room; 503, the server is shutting down.
        """
        with self._changed:
            if self._closing:
                raise shutting_down()
            if len(self._queue) + len(answers) > self._max_queue:
                self._queue = deque(answer for answer in self._queue if not answer.over)
            if len(self._queue) + len(answers) > self._max_queue:
                raise too_busy()
            self._queue.extend(answers)
            self._changed.notify_all()

    def give_up(self) -> None:
        """Take nothing more, and end what waits and what runs."""
        with self._changed:
            self._closing = True
            for answer in self._queue:
                answer.fail(shutting_down())
            self._queue.clear()
            self._changed.notify_all()

    def close(self, timeout: float) -> None:
        """The same; returns with the end of the thread, or after `timeout` seconds."""
        self.give_up()
        self._thread.join(timeout)

    def _run(self) -> None:
        while batch := self._next():
            self._running = len(batch)
            self.meters.batch_rows.observe(len(batch))
            for answer in batch:
                self.meters.wait_seconds.observe(time.monotonic() - answer.asked)
            too_large = False
            try:
                self._decode(batch)
            except Exception as error:  # whatever it is, it is these requests' end and not the server's
                too_large = len(batch) > 1 and is_out_of_memory(error)
                if not too_large:
                    _log.exception("A batch of %d answers failed.", len(batch))
                    for answer in batch:
                        answer.fail(failed())
            if too_large:
                self._halve(batch)
            self._running = 0

    def _halve(self, batch: Sequence[Answer]) -> None:
        """Begin a batch that was too large for the memory anew, in smaller ones; so are all that follow."""
        self._max_batch = len(batch) // 2
        free_memory()
        _log.warning("Memory is too small for %d answers at once; going on with %d.", len(batch), self._max_batch)
        with self._changed:
            for answer in reversed(batch):
                if self._closing:
                    answer.fail(shutting_down())
                elif not answer.over:
                    answer.start_again()
                    self._queue.appendleft(answer)

    def _next(self) -> list[Answer]:
        """The next batch, once there is one; empty when the server closes."""
        with self._changed:
            while True:
                while not self._queue and not self._closing:
                    self._changed.wait()
                end = time.monotonic() + self._batch_wait
                while len(self._queue) < self._max_batch and not self._closing:
                    if (left := end - time.monotonic()) <= 0:
                        break
                    self._changed.wait(left)
                if self._closing:
                    return []
                if batch := self._take():
                    return batch

    def _take(self) -> list[Answer]:
        batch: list[Answer] = []
        left: deque[Answer] = deque()
        for answer in self._queue:
            if not answer.over and answer.late():
                answer.expire()
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
        for step in self._engine.steps([answer.item for answer in batch], settings, lambda row: self._over(batch[row])):
            for row, token, runs in zip(step.rows, step.tokens.tolist(), step.running, strict=True):
                if runs and not batch[row].over:
                    self.meters.new_tokens.inc()
                    batch[row].push(token)

    def _over(self, answer: Answer) -> bool:
        if self._closing:
            answer.fail(shutting_down())
        return answer.over
