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
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pad_cli.errors import DataError, JudgeError
from pad_cli.evaluation.judge.budget import (
    Budget,
    OverBudgetError,
    Prices,
    Reservation,
    Tokens,
    characters,
    cost_of,
    most_tokens,
    prices_of,
)
from pad_cli.evaluation.judge.client import Chat, Endpoint, Reply, UnansweredError
from pad_cli.evaluation.judge.questions import UnparsedVerdictError, read_verdict, repair, schema
from pad_cli.recipe import JudgeSettings, Mode
from pad_cli.records import Messages
from pad_cli.system.progress import note
from pad_cli.system.runs import ResultLog, fingerprint

LOST = "lost"

_COUNTS = ("tokens_in", "tokens_out", "requests", "characters")
_REPAIR_BYTES = 2500  # of the message that shows a judge its error, at most
_MAX_CONSECUTIVE_FAILURES = 5


@dataclass(frozen=True)
class Question:
    """One thing to ask a judge."""

    mode: Mode
    messages: Messages

    def key(self, settings: JudgeSettings, endpoint: Endpoint) -> str:
        """Of everything that decides the reply."""
        decisive = [endpoint.shown, settings.model, settings.temperature, settings.max_tokens]
        return fingerprint([*decisive, self.mode, schema(self.mode, settings.dimensions), self.messages])


@dataclass
class Outcome:
    """What came of the questions, beside the rows of the log.

    Attributes:
        failed: key to what went wrong, for questions without a reply; they are asked again by the next run.
        over_budget: questions were left out because they might have cost too much.
    """

    failed: dict[str, str] = field(default_factory=dict)
    over_budget: bool = False


def check_rows(log: ResultLog) -> None:
    """Make sure that a log's rows are such as are written here.

    Raises:
        DataError: one is not.
    """
    for row in log.done.values():
        mode, verdict = row.get("mode"), row.get("verdict")
        counts = [row.get(name) for name in (_COUNTS[:2] if mode == LOST else _COUNTS)]
        good = verdict is None and mode in ("pairwise", "rubric", LOST)
        if isinstance(verdict, dict) and mode == "pairwise":
            good = verdict.get("winner") in ("first", "second", "tie")
        if isinstance(verdict, dict) and mode == "rubric":
            ratings = verdict.get("ratings")
            good = isinstance(ratings, dict) and all(type(rating) is int for rating in ratings.values())
        if not good or not all(type(count) is int and count >= 0 for count in counts):
            raise DataError("a row is damaged", path=log.path, hint="Delete the file, and judge again.")


async def ask_all(
    questions: dict[str, Question],
    settings: JudgeSettings,
    endpoint: Endpoint,
    log: ResultLog,
    advance: Callable[[int], None],
) -> Outcome:
    """Ask what the log lacks.

    Args:
        questions: by key, in the order in which they are to be asked.
        settings: of the judge.
        endpoint: where it is.
        log: takes in every verdict as it comes.
        advance: called with the number of questions just settled.

    Raises:
        JudgeError: the judge refuses, or cannot be reached.
        StorageError: the log cannot be written.
    """
    waiting = deque((key, question) for key, question in questions.items() if key not in log.done)
    prices = prices_of(settings)
    try:
        async with Chat(settings, endpoint) as chat, asyncio.TaskGroup() as group:
            budget = Budget(settings.max_cost, cost_of(log.done.values(), prices))
            workers = _Workers(chat, settings, prices, log, budget, waiting, advance)
            for _ in range(min(settings.concurrency, len(waiting))):
                group.create_task(workers.work())
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    workers.outcome.over_budget = bool(waiting)
    return workers.outcome


@dataclass
class _Workers:
    """What the workers share: each settles one question after the other."""

    chat: Chat
    settings: JudgeSettings
    prices: Prices | None
    log: ResultLog
    budget: Budget
    waiting: deque[tuple[str, Question]]
    advance: Callable[[int], None]
    outcome: Outcome = field(default_factory=Outcome)
    failures: int = 0

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
        written = self.settings.max_tokens
        first = Tokens(most_tokens(question.messages), written)
        second = Tokens(first.read + written + _REPAIR_BYTES, written)
        reservation.add(self._usd(first) + self._usd(second))
        dimensions, messages = self.settings.dimensions, question.messages
        verdict, problem, used = None, "", list[Tokens]()
        reply = Reply("")
        try:
            for most in (first, second):
                lose = partial(self._lose_attempt, key, most, reservation)
                reply = await self.chat.ask(messages, schema(question.mode, dimensions), lose)
                used.append(reply.tokens or most)
                try:
                    verdict = read_verdict(question.mode, reply.text, dimensions)
                    break
                except UnparsedVerdictError as error:
                    problem = str(error)
                    messages = repair(question.messages, reply.text, problem)
        except (UnansweredError, OverBudgetError):
            if used:  # what could not be read, and not be repaired either, was paid for all the same
                self._lose(key, _total(used), reservation)
            raise
        total = _total(used)
        reservation.pay(self._usd(total))
        return {
            "mode": question.mode,
            "verdict": verdict,
            "problem": problem,
            "reply": reply.text if verdict is None else "",
            "characters": characters(question.messages),
            "requests": len(used),
            "tokens_in": total.read,
            "tokens_out": total.written,
        }

    def _lose_attempt(self, key: str, most: Tokens, reservation: Reservation) -> None:
        self._lose(key, most, reservation)
        reservation.add(self._usd(most))  # for the next attempt

    def _lose(self, key: str, tokens: Tokens, reservation: Reservation) -> None:
        """Book tokens that brought no verdict."""
        row = {"mode": LOST, "tokens_in": tokens.read, "tokens_out": tokens.written}
        self.log.append({fingerprint([key, LOST, time.time_ns()]): row})
        reservation.pay(self._usd(tokens))

    def _fail(self, key: str, problem: str) -> None:
        self.outcome.failed[key] = problem
        self.failures += 1
        note(f"The judge did not answer one question: {problem}")
        if self.failures >= _MAX_CONSECUTIVE_FAILURES:
            raise JudgeError(
                f"The judge failed {self.failures} questions in a row; the last: {problem}",
                "Check that its server is up and takes such requests, and run again; what is judged is kept.",
            )

    def _usd(self, tokens: Tokens) -> float:
        return 0.0 if self.prices is None else self.prices.usd(*tokens)


def _total(used: list[Tokens]) -> Tokens:
    return Tokens(sum(each.read for each in used), sum(each.written for each in used))
