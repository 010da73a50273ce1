"""Ask a language model many questions: some at once, each remembered under a key, none beyond the budget.

A row of the log is what the caller reads from a reply, with its `mode`, and `tokens_in` and `tokens_out`. Rows of mode
`lost` are requests that may have been billed although no reply came of them, with the most tokens that they can have
had.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pad_cli.endpoint.client import Chat, Endpoint, Reply, Tokens, UnansweredError
from pad_cli.errors import EndpointError
from pad_cli.recipe import EndpointSettings
from pad_cli.records import Messages
from pad_cli.system.progress import note
from pad_cli.system.runs import ResultLog, fingerprint

LOST = "lost"

_MAX_CONSECUTIVE_FAILURES = 5
_CHARACTERS_PER_TOKEN = 4.0
_SEEDS = 2**31  # those that servers take
_FRAME_TOKENS = 16  # of a chat template, around one message


class Volume(NamedTuple):
    """Requests and their tokens; `usd` is None when prices are not known."""

    requests: int
    tokens_in: int
    tokens_out: int
    usd: float | None


def usd(settings: EndpointSettings, tokens_in: float, tokens_out: float) -> float | None:
    """What tokens cost; None if the recipe does not say the prices."""
    if settings.input_price is None or settings.output_price is None:
        return None
    return (tokens_in * settings.input_price + tokens_out * settings.output_price) / 1e6


def cost_of(rows: Iterable[Mapping[str, Any]], settings: EndpointSettings) -> float | None:
    """USD of log rows; None when prices are not known."""
    used = list(rows)
    return usd(settings, sum(row["tokens_in"] for row in used), sum(row["tokens_out"] for row in used))


def most_tokens(messages: Messages) -> int:
    """No fewer tokens than the messages have: a token of a byte-level vocabulary is at least one byte of UTF-8."""
    return sum(len(message["content"].encode(errors="replace")) + _FRAME_TOKENS for message in messages)


def forecast(waiting: Iterable[Messages], settings: EndpointSettings, reply_tokens: int) -> Volume:
    """What requests will probably cost, one each, if replies have so many tokens."""
    sizes = [sum(len(message["content"]) for message in messages) for messages in waiting]
    tokens_in, tokens_out = round(sum(sizes) / _CHARACTERS_PER_TOKEN), reply_tokens * len(sizes)
    return Volume(len(sizes), tokens_in, tokens_out, usd(settings, tokens_in, tokens_out))


@dataclass
class Budget:
    """USD that may be spent (`limit` None is no limit), that are spent, and that are set aside for what is under way.

    Every request is covered by the most that it can cost before it is sent, so that the limit holds.
    """

    limit: float | None
    spent: float = 0.0
    reserved: float = 0.0

    def reserve(self, most: float, attempts: int) -> int:
        """Set aside `most` for each of several attempts, or of as many as are covered; returns their number."""
        if self.limit is not None and most:
            attempts = max(min(attempts, int((self.limit - self.spent - self.reserved) / most)), 0)
        self.reserved += attempts * most
        return attempts


async def ask_all(
    questions: Mapping[str, Messages],
    settings: EndpointSettings,
    endpoint: Endpoint,
    log: ResultLog,
    advance: Callable[[int], None],
    read: Callable[[Reply], Mapping[str, Any]],
    role: str = "judge",
    schema: Mapping[str, Any] | None = None,
    *,
    seeded: bool = False,
) -> dict[str, str]:
    """Ask what the log lacks, in order, until the budget is spent; the log takes in every reply as it comes.

    Args:
        questions: by key.
        settings: of the model.
        endpoint: where it is.
        log: of replies.
        advance: called with the number of questions just settled.
        read: a reply to its row in the log, without tokens.
        role: as in `Chat`; so is the schema.
        seeded: give each question a seed from its key, by which most servers reply the same again.

    Returns:
        Key to what went wrong, for questions without a reply; they are asked again by the next run.

    Raises:
        EndpointError: the model refuses, or cannot be reached.
        StorageError: the log cannot be written.
    """
    waiting = deque((key, messages) for key, messages in questions.items() if key not in log.done)
    try:
        async with Chat(settings, endpoint, role, schema, seeded=seeded) as chat, asyncio.TaskGroup() as group:
            budget = Budget(settings.max_cost, cost_of(log.done.values(), settings) or 0.0)
            workers = _Workers(chat, settings, log, waiting, advance, budget, read, role)
            for _ in range(min(settings.concurrency, len(waiting))):
                group.create_task(workers.work())
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    return workers.failed


def run(asking: Coroutine[Any, Any, dict[str, str]]) -> dict[str, str]:
    """Run to the end; in a thread of its own where this one runs a loop already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(asking)
    with ThreadPoolExecutor(1) as outside:
        return outside.submit(asyncio.run, asking).result()


@dataclass
class _Workers:
    """What the workers share: each settles one question after the other."""

    chat: Chat
    settings: EndpointSettings
    log: ResultLog
    waiting: deque[tuple[str, Messages]]
    advance: Callable[[int], None]
    budget: Budget
    read: Callable[[Reply], Mapping[str, Any]]
    role: str
    failed: dict[str, str] = field(default_factory=dict)
    failures: int = 0  # in a row

    async def work(self) -> None:
        """Settle questions until none waits, or the budget does not cover the next one.

        A worker that finds the rest of the budget reserved leaves; what the others have reserved and do not need is
        left to those that go on, and the last one leaves when really nothing more can be paid for.
        """
        while self.waiting:
            key, messages = self.waiting.popleft()
            most = Tokens(most_tokens(messages), self.settings.max_tokens)
            price = usd(self.settings, *most) or 0.0
            if not (attempts := self.budget.reserve(price, self.settings.attempts)):
                self.waiting.appendleft((key, messages))
                return
            try:
                reply = await self.chat.ask(messages, attempts, int(key, 16) % _SEEDS)
            except UnansweredError as error:
                self._lose(key, most, error.lost)
                self._fail(key, str(error))
            else:
                self._lose(key, most, reply.lost)
                self._log(key, self.read(reply), reply.tokens or most)
                self.failures = 0
            finally:
                self.budget.reserved -= attempts * price
            self.advance(1)

    def _lose(self, key: str, most: Tokens, count: int) -> None:
        """Book requests whose replies did not arrive."""
        if count:
            tokens = Tokens(count * most.read, count * most.written)
            self._log(fingerprint([key, LOST, time.time_ns()]), {"mode": LOST}, tokens)

    def _log(self, key: str, row: Mapping[str, Any], tokens: Tokens) -> None:
        self.log.append({key: {**row, "tokens_in": tokens.read, "tokens_out": tokens.written}})
        self.budget.spent += usd(self.settings, *tokens) or 0.0

    def _fail(self, key: str, problem: str) -> None:
        self.failed[key] = problem
        self.failures += 1
        note(f"The {self.role} did not answer one question: {problem}")
        if self.failures >= _MAX_CONSECUTIVE_FAILURES:
            raise EndpointError(
                f"The {self.role} failed {self.failures} questions in a row; the last: {problem}",
                "Check that its server is up and takes such requests, and run again; what was answered is kept.",
            )
