"""Ask a judge many questions: some at once, each remembered under a key of its content, none beyond the budget.

A row of `judge.jsonl`:

    {"key", "mode", "verdict": {...} or null, "problem", "reply", "characters", "requests", "tokens_in", "tokens_out"}

`verdict` is null when neither the reply nor its repair could be read; `reply` is then what was written, and `problem`
why it is no verdict. Rows of mode `lost` are requests that may have been billed although no verdict came of them, with
the most tokens that they can have had.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from pad_cli.errors import JudgeError
from pad_cli.evaluation.judge.client import Chat, Endpoint, Reply, Tokens, UnansweredError
from pad_cli.evaluation.judge.questions import UnparsedVerdictError, read_verdict, repair, schema
from pad_cli.recipe import JudgeSettings, Mode
from pad_cli.records import Messages
from pad_cli.system.progress import note
from pad_cli.system.runs import ResultLog, fingerprint

LOST = "lost"

_REPAIR_BYTES = 2500  # of the message that shows a judge its error, at most
_MAX_CONSECUTIVE_FAILURES = 5
_CHARACTERS_PER_TOKEN = 4.0
_REPLY_TOKENS = 80.0
_FRAME_TOKENS = 16  # of a chat template, around one message


class OverBudgetError(Exception):
    """The next request might exceed the budget."""


class Question(NamedTuple):
    """One thing to ask a judge."""

    mode: Mode
    messages: Messages

    def key(self, settings: JudgeSettings, endpoint: Endpoint) -> str:
        """Of everything that decides the reply."""
        decisive = [endpoint.shown, settings.model, settings.temperature, settings.max_tokens]
        return fingerprint([*decisive, self.mode, schema(self.mode, settings.dimensions), self.messages])


@dataclass(frozen=True)
class Volume:
    """Requests and their tokens; `usd` is None when prices are not known."""

    requests: int
    tokens_in: int
    tokens_out: int
    usd: float | None


def usd(settings: JudgeSettings, tokens_in: float, tokens_out: float) -> float | None:
    """What tokens cost; None if the recipe does not say the prices."""
    if settings.input_price is None or settings.output_price is None:
        return None
    return (tokens_in * settings.input_price + tokens_out * settings.output_price) / 1e6


def cost_of(rows: Iterable[Mapping[str, Any]], settings: JudgeSettings) -> float | None:
    """USD of log rows; None when prices are not known."""
    costs = [usd(settings, row["tokens_in"], row["tokens_out"]) for row in rows]
    return None if usd(settings, 0, 0) is None else sum(cost or 0.0 for cost in costs)


def most_tokens(messages: Messages) -> int:
    """No fewer tokens than the messages have: a token of a byte-level vocabulary is at least one byte of UTF-8."""
    return sum(len(message["content"].encode(errors="replace")) + _FRAME_TOKENS for message in messages)


def _characters(messages: Messages) -> int:
    return sum(len(message["content"]) for message in messages)


def forecast(waiting: Iterable[Messages], settings: JudgeSettings) -> Volume:
    """What requests will probably cost, one each."""
    sizes = [_characters(messages) for messages in waiting]
    tokens_in, tokens_out = round(sum(sizes) / _CHARACTERS_PER_TOKEN), round(_REPLY_TOKENS * len(sizes))
    return Volume(len(sizes), tokens_in, tokens_out, usd(settings, tokens_in, tokens_out))


class Budget:
    """USD that may be spent; `limit` None is no limit."""

    def __init__(self, limit: float | None, spent: float = 0.0) -> None:
        self.limit, self.spent, self.reserved = limit, spent, 0.0


class Reservation:
    """What is set aside of a budget for one question; as a context, the rest goes back at its end.

    Every request is covered by the most that it can cost before it is sent, so that the limit holds.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget, self._amount = budget, 0.0

    def add(self, amount: float) -> None:
        """Set more aside; raises OverBudgetError if it is not there."""
        budget = self._budget
        if budget.limit is not None and budget.spent + budget.reserved + amount > budget.limit:
            raise OverBudgetError
        budget.reserved += amount
        self._amount += amount

    def pay(self, amount: float) -> None:
        """Turn a part into money spent."""
        self._budget.reserved -= amount
        self._budget.spent += amount
        self._amount -= amount

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.reserved -= self._amount
        self._amount = 0.0


async def ask_all(
    questions: dict[str, Question],
    settings: JudgeSettings,
    endpoint: Endpoint,
    log: ResultLog,
    advance: Callable[[int], None],
) -> dict[str, str]:
    """Ask what the log lacks, in order, until the budget is spent; the log takes in every verdict as it comes.

    Args:
        questions: by key.
        settings: of the judge.
        endpoint: where it is.
        log: of replies.
        advance: called with the number of questions just settled.

    Returns:
        Key to what went wrong, for questions without a reply; they are asked again by the next run.

    Raises:
        JudgeError: the judge refuses, or cannot be reached.
        StorageError: the log cannot be written.
    """
    waiting = deque((key, question) for key, question in questions.items() if key not in log.done)
    try:
        async with Chat(settings, endpoint) as chat, asyncio.TaskGroup() as group:
            budget = Budget(settings.max_cost, cost_of(log.done.values(), settings) or 0.0)
            workers = _Workers(chat, settings, log, waiting, advance, budget)
            for _ in range(min(settings.concurrency, len(waiting))):
                group.create_task(workers.work())
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    return workers.failed


@dataclass
class _Workers:
    """What the workers share: each settles one question after the other."""

    chat: Chat
    settings: JudgeSettings
    log: ResultLog
    waiting: deque[tuple[str, Question]]
    advance: Callable[[int], None]
    budget: Budget
    failed: dict[str, str] = field(default_factory=dict)
    failures: int = 0  # in a row

    async def work(self) -> None:
        """Settle questions until none waits, or the next might exceed the budget.

        A worker that finds the rest of the budget reserved leaves; what the others have reserved and do not need is
        left to those that go on, and the last one leaves when really nothing more can be paid for.
        """
        while self.waiting:
            key, question = self.waiting.popleft()
            try:
                with Reservation(self.budget) as reservation:
                    row = await self._settle(key, question, reservation)
            except OverBudgetError:
                self.waiting.appendleft((key, question))
                return
            except UnansweredError as error:
                self._fail(key, str(error))
            else:
                self.failures = 0
                self.log.append({key: row})
            self.advance(1)

    async def _settle(self, key: str, question: Question, reservation: Reservation) -> dict[str, Any]:
        """The row of one question; the most that its request and a repair can cost is set aside first."""
        written, dimensions = self.settings.max_tokens, self.settings.dimensions
        first = Tokens(most_tokens(question.messages), written)
        second = Tokens(first.read + written + _REPAIR_BYTES, written)
        reservation.add(self._usd(first) + self._usd(second))
        messages, reply, verdict, problem = question.messages, Reply(""), None, ""
        used: list[Tokens] = []

        def lose(tokens: Tokens) -> None:
            """Book tokens that brought no verdict."""
            row = {"mode": LOST, "tokens_in": tokens.read, "tokens_out": tokens.written}
            self.log.append({fingerprint([key, LOST, time.time_ns()]): row})
            reservation.pay(self._usd(tokens))

        def lose_attempt() -> None:
            most = second if used else first
            lose(most)
            reservation.add(self._usd(most))  # for the next attempt

        try:
            for most in (first, second):
                reply = await self.chat.ask(messages, schema(question.mode, dimensions), lose_attempt)
                used.append(reply.tokens or most)
                try:
                    verdict = read_verdict(question.mode, reply.text, dimensions)
                    break
                except UnparsedVerdictError as error:
                    problem = str(error)
                    messages = repair(question.messages, reply.text, problem)
        except (UnansweredError, OverBudgetError):
            if used:  # what could not be read, and not be repaired either, was paid for all the same
                lose(used[0])
            raise
        total = Tokens(sum(tokens.read for tokens in used), sum(tokens.written for tokens in used))
        reservation.pay(self._usd(total))
        return {
            "mode": question.mode,
            "verdict": verdict,
            "problem": problem,
            "reply": reply.text if verdict is None else "",
            "characters": _characters(question.messages),
            "requests": len(used),
            "tokens_in": total.read,
            "tokens_out": total.written,
        }

    def _fail(self, key: str, problem: str) -> None:
        self.failed[key] = problem
        self.failures += 1
        note(f"The judge did not answer one question: {problem}")
        if self.failures >= _MAX_CONSECUTIVE_FAILURES:
            raise JudgeError(
                f"The judge failed {self.failures} questions in a row; the last: {problem}",
                "Check that its server is up and takes such requests, and run again; what is judged is kept.",
            )

    def _usd(self, tokens: Tokens) -> float:
        return usd(self.settings, *tokens) or 0.0
