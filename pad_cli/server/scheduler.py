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
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from pad_cli.decoding.engine import PadEngine
from pad_cli.models.scoring import free_memory, is_out_of_memory
from pad_cli.server.answer import Answer, Job
from pad_cli.server.protocol import ApiError, internal_error, shutting_down
from pad_cli.server.request_reader import Limits

_log = logging.getLogger(__name__)
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Prometheus metrics of one server, in a registry of their own."""

    def __init__(self, waiting: Callable[[], int], running: Callable[[], int]) -> None:
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter(
            "pad_requests", "Requests answered, refused or lost.", ("route", "status"), registry=own
        )
        self.cancelled = Counter("pad_cancelled", "Requests whose client left.", registry=own)
        self.prompt_tokens = Counter("pad_prompt_tokens", "Tokens of prompts accepted.", registry=own)
        self.new_tokens = Counter("pad_new_tokens", "Tokens decoded.", registry=own)
        self.seconds = Histogram(
            "pad_request_seconds", "From the whole request to the whole answer.", registry=own, buckets=_SECONDS
        )
        self.wait_seconds = Histogram(
            "pad_wait_seconds", "From the whole request to its batch.", registry=own, buckets=_SECONDS
        )
        self.batch_rows = Histogram("pad_batch_rows", "Answers decoded together.", registry=own, buckets=_ROWS)
        Gauge("pad_waiting", "Answers that wait.", registry=own).set_function(waiting)
        Gauge("pad_running", "Answers being decoded.", registry=own).set_function(running)


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
        self.metrics = Metrics(lambda: len(self._queue), lambda: self._running)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Queue the answers of one request, all or none.

        Raises:
            ApiError: 429, the queue has no room; 503, the server is shutting down.
        """
        with self._changed:
            if self._closing:
                raise shutting_down()
            room = self._limits.max_queue - len(job.answers)
            if len(self._queue) > room:
                self._queue = deque(answer for answer in self._queue if not answer.over)
            if len(self._queue) > room:
                message = "Too many requests are waiting. Try again in a moment."
                raise ApiError(429, message, code="queue_full", headers={"Retry-After": "1"})
            self._queue.extend(job.answers)
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
        """As `give_up`; returns when the thread has ended, or after `timeout` seconds."""
        self.give_up()
        self._thread.join(timeout)

    def _run(self) -> None:
        while batch := self._next():
            self._running = len(batch)
            self.metrics.batch_rows.observe(len(batch))
            for answer in batch:
                self.metrics.wait_seconds.observe(time.monotonic() - answer.submitted)
            too_large = False
            try:
                self._decode(batch)
            except Exception as error:  # it ends these requests, whatever it is, and not the server
                too_large = len(batch) > 1 and is_out_of_memory(error)
                if not too_large:
                    _log.exception("A batch of %d answers failed.", len(batch))
                    for answer in batch:
                        answer.fail(internal_error())
            if too_large:  # outside the `except`, whose traceback holds the tensors
                self._retry_halved(batch)
            self._running = 0

    def _retry_halved(self, batch: Sequence[Answer]) -> None:
        """Restart a batch that was too large for the memory in smaller ones, as are all that follow."""
        self._max_batch = len(batch) // 2
        free_memory()
        _log.warning("Memory is too small for %d answers at once; going on with %d.", len(batch), self._max_batch)
        with self._changed:
            for answer in reversed(batch):
                if self._closing:
                    answer.fail(shutting_down())
                elif not answer.over:
                    answer.restart()
                    self._queue.appendleft(answer)

    def _next(self) -> list[Answer]:
        """The next batch, once there is one; empty when the server closes."""
        with self._changed:
            while not self._closing:
                self._changed.wait_for(lambda: self._queue or self._closing)
                self._changed.wait_for(
                    lambda: len(self._queue) >= self._max_batch or self._closing, self._limits.batch_wait
                )
                if not self._closing and (batch := self._take()):
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
        for step in self._engine.steps([answer.item for answer in batch], settings, lambda row: self._over(batch[row])):
            for row, token, runs in zip(step.rows, step.tokens.tolist(), step.running, strict=True):
                if runs and not batch[row].over:
                    self.metrics.new_tokens.inc()
                    batch[row].push(token)

    def _over(self, answer: Answer) -> bool:
        if self._closing:
            answer.fail(shutting_down())
        return answer.over
