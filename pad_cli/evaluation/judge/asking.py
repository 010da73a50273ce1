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
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pad_cli.errors import DataError, JudgeError
from pad_cli.evaluation.judge.client import Chat, Endpoint, Reply, UnansweredError
from pad_cli.evaluation.judge.price import Budget, OverBudgetError, Prices, characters, most_tokens
from pad_cli.evaluation.judge.prompt import repair
from pad_cli.evaluation.judge.verdict import UnparsedVerdictError, read_verdict, schema
from pad_cli.recipe import JudgeSettings, Mode
from pad_cli.records import Messages
from pad_cli.system.progress import note
from pad_cli.system.runs import ResultLog, fingerprint

LOST = "lost"
_COUNTS = ("tokens_in", "tokens_out", "requests", "characters")
_REPAIR_BYTES = 2500  # of the message that shows a judge its error, at most
_HOPELESS = 5  # failed questions in a row, after which no more are asked


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
class Asked:
    """What came of the asking, beside the rows of the log.

    Attributes:
        failed: key to what went wrong, for questions without a reply; they are asked again by the next run.
        over_budget: questions were left out because they might have cost too much.
    """

    failed: dict[str, str] = field(default_factory=dict)
    over_budget: bool = False


def cost_of(rows: Iterable[dict[str, Any]], prices: Prices | None) -> float:
    """USD of log rows; 0 when prices are not known."""
    return 0.0 if prices is None else sum(prices.usd(row["tokens_in"], row["tokens_out"]) for row in rows)


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
            good = _are_ratings(verdict.get("ratings"))
        if not good or not all(type(count) is int and count >= 0 for count in counts):
            raise DataError("a row is damaged", path=log.path, hint="Delete the file, and judge again.")


def _are_ratings(found: Any) -> bool:
    return isinstance(found, dict) and all(type(rating) is int for rating in found.values())


async def ask_all(
    questions: dict[str, Question],
    settings: JudgeSettings,
    endpoint: Endpoint,
    prices: Prices | None,
    log: ResultLog,
    advance: Callable[[int], None],
) -> Asked:
    """Ask what the log lacks.

    Args:
        questions: by key, in the order in which they are to be asked.
        settings: of the judge.
        endpoint: where it is.
        prices: of its tokens.
        log: takes in every verdict as it comes.
        advance: called with the number of questions just settled.

    Raises:
        JudgeError: the judge refuses, or cannot be reached.
        StorageError: the log cannot be written.
    """
    waiting = deque((key, question) for key, question in questions.items() if key not in log.done)
    budget = Budget(settings.max_cost, cost_of(log.done.values(), prices))
    try:
        async with Chat(settings, endpoint) as chat, asyncio.TaskGroup() as group:
            asker = _Asker(chat, settings, prices, log, budget, waiting, advance)
            for _ in range(min(settings.concurrency, len(waiting))):
                group.create_task(asker.work())
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    asker.asked.over_budget = bool(waiting)
    return asker.asked


class _Asker:
    def __init__(
        self,
        chat: Chat,
        settings: JudgeSettings,
        prices: Prices | None,
        log: ResultLog,
        budget: Budget,
        waiting: deque[tuple[str, Question]],
        advance: Callable[[int], None],
    ) -> None:
        self.asked = Asked()
        self._chat, self._settings, self._prices, self._log = chat, settings, prices, log
        self._budget, self._waiting, self._advance = budget, waiting, advance
        self._failures = 0

    async def work(self) -> None:
        """Settle questions until none waits, or the next might exceed the budget.

        A worker that finds the budget spoken for leaves; what the others have reserved and do not need is left to
        those that go on, and the last one leaves when really nothing more can be paid for.
        """
        while self._waiting:
            key, question = self._waiting.popleft()
            try:
                row = await self._settle(key, question)
            except OverBudgetError:
                self._waiting.appendleft((key, question))
                return
            except UnansweredError as error:
                self._fail(key, str(error))
            else:
                self._failures = 0
                self._log.append({key: row})
            self._advance(1)

    async def _settle(self, key: str, question: Question) -> dict[str, Any]:
        """The row of one question, paid for; for its request and a repair the most they can cost is set aside first."""
        cover = _Cover(self._budget)
        replies: list[Reply] = []
        try:
            for repairing in (False, True):
                cover.add(self._usd(question, repairing=repairing))
            verdict, problem = await self._verdict(key, question, cover, replies)
        except (UnansweredError, OverBudgetError):
            if replies:  # what could not be read, and not be repaired either, was paid for all the same
                self._lose(key, cover, *self._counted(question, replies))
            raise
        finally:
            cover.give_back()
        tokens_in, tokens_out = self._counted(question, replies)
        self._budget.pay(self._price(tokens_in, tokens_out))
        return {
            "mode": question.mode,
            "verdict": verdict,
            "problem": problem,
            "reply": replies[-1].text if verdict is None else "",
            "characters": characters(question.messages),
            "requests": len(replies),
            "tokens_in": tokens_in,
            "tokens_out": tokens_out,
        }

    async def _verdict(
        self, key: str, question: Question, cover: _Cover, replies: list[Reply]
    ) -> tuple[dict[str, Any] | None, str]:
        """The verdict, or None and what was wrong with the repaired reply; `replies` takes in what arrives."""
        dimensions, messages, problem = self._settings.dimensions, question.messages, ""
        wanted = schema(question.mode, dimensions)
        for repairing in (False, True):
            most = self._most(question, repairing=repairing)

            def lose(most: tuple[int, int] = most) -> None:
                self._lose(key, cover, *most)
                cover.add(self._price(*most))  # for the next attempt

            reply = await self._chat.ask(messages, wanted, lose)
            replies.append(reply)
            try:
                return read_verdict(question.mode, reply.text, dimensions), problem
            except UnparsedVerdictError as error:
                problem = str(error)
                messages = repair(question.messages, reply.text, problem)
        return None, problem

    def _lose(self, key: str, cover: _Cover, tokens_in: int, tokens_out: int) -> None:
        """Book tokens that brought no verdict."""
        row = {"mode": LOST, "tokens_in": tokens_in, "tokens_out": tokens_out}
        self._log.append({fingerprint([key, LOST, time.time_ns()]): row})
        cover.use(self._price(tokens_in, tokens_out))

    def _counted(self, question: Question, replies: list[Reply]) -> tuple[int, int]:
        """Tokens read and written; the most possible of a reply that came without counts."""
        tokens_in = tokens_out = 0
        for reply, repairing in zip(replies, (False, True), strict=False):
            most_in, most_out = self._most(question, repairing=repairing)
            tokens_in += most_in if reply.tokens_in is None else reply.tokens_in
            tokens_out += most_out if reply.tokens_out is None else reply.tokens_out
        return tokens_in, tokens_out

    def _fail(self, key: str, problem: str) -> None:
        self.asked.failed[key] = problem
        self._failures += 1
        note(f"The judge did not answer one question: {problem}")
        if self._failures >= _HOPELESS:
            raise JudgeError(
                f"The judge failed {_HOPELESS} questions in a row; the last: {problem}",
                "Check that its server is up and takes such requests, and run again; what is judged is kept.",
            )

    def _usd(self, question: Question, *, repairing: bool) -> float:
        return self._price(*self._most(question, repairing=repairing))

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        return 0.0 if self._prices is None else self._prices.usd(tokens_in, tokens_out)

    def _most(self, question: Question, *, repairing: bool) -> tuple[int, int]:
        """The most tokens that a request, or its repair, can read and write."""
        written = self._settings.max_tokens
        return most_tokens(question.messages) + (written + _REPAIR_BYTES if repairing else 0), written


class _Cover:
    """What is set aside for one question."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self._amount = budget, 0.0

    def add(self, amount: float) -> None:
        self._budget.reserve(amount)
        self._amount += amount

    def use(self, amount: float) -> None:
        """Turn a part into money spent."""
        self._budget.release(amount)
        self._budget.pay(amount)
        self._amount -= amount

    def give_back(self) -> None:
        self._budget.release(self._amount)
        self._amount = 0.0
