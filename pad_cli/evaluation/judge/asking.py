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
from typing import Any, NamedTuple

from pad_cli.errors import JudgeError
from pad_cli.evaluation.judge.client import Chat, Endpoint, Tokens, UnansweredError
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


class Question(NamedTuple):
    """One thing to ask a judge."""

    mode: Mode
    messages: Messages

    def key(self, settings: JudgeSettings, endpoint: Endpoint) -> str:
        """Of everything that decides the reply."""
        decisive = [endpoint.shown, settings.model, settings.temperature, settings.max_tokens]
        return fingerprint([*decisive, self.mode, schema(self.mode, settings.dimensions), self.messages])


class Volume(NamedTuple):
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
    used = list(rows)
    return usd(settings, sum(row["tokens_in"] for row in used), sum(row["tokens_out"] for row in used))


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
        """Settle questions until none waits, or the budget does not cover the next one.

        A worker that finds the rest of the budget reserved leaves; what the others have reserved and do not need is
        left to those that go on, and the last one leaves when really nothing more can be paid for.
        """
        while self.waiting:
            key, question = self.waiting.popleft()
            written = self.settings.max_tokens
            first = Tokens(most_tokens(question.messages), written)
            repaired = Tokens(first.read + written + _REPAIR_BYTES, written)
            most = self._usd([first, repaired])
            if not (attempts := self.budget.reserve(most, self.settings.attempts)):
                self.waiting.appendleft((key, question))
                return
            try:
                await self._settle(key, question, (first, repaired), attempts)
            except UnansweredError as error:
                self._fail(key, str(error))
            finally:
                self.budget.reserved -= attempts * most
            self.advance(1)

    async def _settle(self, key: str, question: Question, most: tuple[Tokens, Tokens], attempts: int) -> None:
        """Ask, and once more where the reply cannot be read; each request takes at most as many tokens as `most`."""
        dimensions = self.settings.dimensions
        messages, text, verdict, problem = question.messages, "", None, ""
        used: list[Tokens] = []
        for limit in most:
            try:
                text, tokens, lost = await self.chat.ask(messages, schema(question.mode, dimensions), attempts)
            except UnansweredError as error:  # a reply that could not be read was paid for all the same
                self._lose(key, [*used, *[limit] * error.lost])
                raise
            self._lose(key, [limit] * lost)
            used.append(tokens or limit)
            try:
                verdict = read_verdict(question.mode, text, dimensions)
                break
            except UnparsedVerdictError as error:
                problem = str(error)
                messages = repair(question.messages, text, problem)
        self.failures = 0
        row = {
            "mode": question.mode,
            "verdict": verdict,
            "problem": problem,
            "reply": text if verdict is None else "",
            "characters": _characters(question.messages),
            "requests": len(used),
        }
        self._log(key, row, used)

    def _lose(self, key: str, tokens: list[Tokens]) -> None:
        """Book requests that brought no verdict."""
        if tokens:
            self._log(fingerprint([key, LOST, time.time_ns()]), {"mode": LOST}, tokens)

    def _log(self, key: str, row: dict[str, Any], used: list[Tokens]) -> None:
        tokens = {"tokens_in": sum(each.read for each in used), "tokens_out": sum(each.written for each in used)}
        self.log.append({key: {**row, **tokens}})
        self.budget.spent += self._usd(used)

    def _fail(self, key: str, problem: str) -> None:
        self.failed[key] = problem
        self.failures += 1
        note(f"The judge did not answer one question: {problem}")
        if self.failures >= _MAX_CONSECUTIVE_FAILURES:
            raise JudgeError(
                f"The judge failed {self.failures} questions in a row; the last: {problem}",
                "Check that its server is up and takes such requests, and run again; what is judged is kept.",
            )

    def _usd(self, used: Iterable[Tokens]) -> float:
        return sum(usd(self.settings, *tokens) or 0.0 for tokens in used)
