"""What judging costs, before and after: tokens from characters, USD from tokens, and a budget that holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, Self

from pad_cli.recipe import JudgeSettings
from pad_cli.records import Messages

_CHARACTERS_PER_TOKEN = 4.0
_REPLY_TOKENS = 80.0
_FRAME_TOKENS = 16  # of a chat template, around one message
_ENOUGH_REPLIES = 5  # from which on they say more than the two figures above


class OverBudgetError(Exception):
    """The next request might exceed the budget."""


class Tokens(NamedTuple):
    """Tokens that a judge reads and writes."""

    read: int
    written: int


@dataclass(frozen=True)
class Prices:
    """USD per million tokens."""

    read: float
    written: float

    def usd(self, tokens_in: float, tokens_out: float) -> float:
        return (tokens_in * self.read + tokens_out * self.written) / 1e6


@dataclass(frozen=True)
class Volume:
    """Requests and their tokens; `usd` is None when prices are not known."""

    requests: int
    tokens_in: int
    tokens_out: int
    usd: float | None


def prices_of(settings: JudgeSettings) -> Prices | None:
    """The prices, if the recipe says them."""
    if settings.input_price is None or settings.output_price is None:
        return None
    return Prices(settings.input_price, settings.output_price)


def cost_of(rows: Iterable[Mapping[str, Any]], prices: Prices | None) -> float:
    """USD of log rows; 0 when prices are not known."""
    return 0.0 if prices is None else sum(prices.usd(row["tokens_in"], row["tokens_out"]) for row in rows)


def characters(messages: Messages) -> int:
    return sum(len(message["content"]) for message in messages)


def most_tokens(messages: Messages) -> int:
    """No fewer tokens than the messages have: a token of a byte-level vocabulary is at least one byte of UTF-8."""
    return sum(len(message["content"].encode(errors="replace")) + _FRAME_TOKENS for message in messages)


def forecast(waiting: Iterable[Messages], done: Iterable[Mapping[str, Any]], prices: Prices | None) -> Volume:
    """What the requests that wait will probably cost.

    Four characters a token and short replies are assumed until replies are there to learn from.

    Args:
        waiting: the requests.
        done: log rows of finished ones, with `characters`, `requests`, `tokens_in`, `tokens_out`.
        prices: None if not known.
    """
    known = [row for row in done if row["tokens_in"]]
    rate, reply, tries = 1 / _CHARACTERS_PER_TOKEN, _REPLY_TOKENS, 1.0
    if len(known) >= _ENOUGH_REPLIES:
        rate = sum(row["tokens_in"] for row in known) / sum(row["characters"] for row in known)
        tries = sum(row["requests"] for row in known) / len(known)
        reply = sum(row["tokens_out"] for row in known) / sum(row["requests"] for row in known)
    sizes = [characters(messages) for messages in waiting]
    requests = round(tries * len(sizes))
    tokens_in, tokens_out = round(rate * sum(sizes)), round(reply * requests)
    return Volume(requests, tokens_in, tokens_out, None if prices is None else prices.usd(tokens_in, tokens_out))


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
        """Set more aside.

        Raises:
            OverBudgetError: it is not there.
        """
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

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget.reserved -= self._amount
        self._amount = 0.0
