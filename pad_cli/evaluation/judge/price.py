"""What judging costs, before and after: tokens from characters, USD from tokens, and a budget that holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pad_cli.recipe import JudgeSettings
from pad_cli.records import Messages

_CHARACTERS_PER_TOKEN = 4.0
_REPLY_TOKENS = 80.0
_FRAME_TOKENS = 16  # of a chat template, around one message
_ENOUGH_REPLIES = 5  # from which on they say more than the two figures above


class OverBudgetError(Exception):
    """The next request might exceed the budget."""


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
    if settings.input_price is None or settings.output_price is None:
        return None
    return Prices(settings.input_price, settings.output_price)


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
    """USD that may be spent. Every request is covered by a reservation of the most that it can cost before it is sent.

    Args:
        limit: None for no limit.
        spent: before.
    """

    def __init__(self, limit: float | None, spent: float = 0.0) -> None:
        self.limit = limit
        self.spent = spent
        self._reserved = 0.0

    def reserve(self, amount: float) -> None:
        """Set an amount aside.

        Raises:
            OverBudgetError: it is no longer there.
        """
        if self.limit is not None and self.spent + self._reserved + amount > self.limit:
            raise OverBudgetError
        self._reserved += amount

    def release(self, amount: float) -> None:
        """Give back what was set aside."""
        self._reserved -= amount

    def pay(self, amount: float) -> None:
        """Book what a request did cost."""
        self.spent += amount
