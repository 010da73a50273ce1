"""Turns under a rate limit, and how long to wait after a refusal."""

from __future__ import annotations

import asyncio
import time

import pytest

from pad_cli.evaluation.judge.client import RateLimiter, backoff, retry_after


def turns(per_minute: float | None, count: int, *, pause: float = 0.0) -> list[float]:
    """When each of several waiters got its turn, in seconds from the start."""

    async def wait() -> list[float]:
        limiter, started = RateLimiter(per_minute), time.monotonic()
        if pause:
            limiter.pause(pause)

        async def one() -> float:
            await limiter.turn()
            return time.monotonic() - started

        return sorted(await asyncio.gather(*(one() for _ in range(count))))

    return asyncio.run(wait())


def test_turns_are_evenly_spaced() -> None:
    times = turns(60 * 20, 5)
    assert all(when >= 0.05 * place - 1e-3 for place, when in enumerate(times))


def test_without_a_limit_nobody_waits() -> None:
    assert turns(None, 200)[-1] < 1


def test_a_pause_holds_everybody_back() -> None:
    assert turns(None, 3, pause=0.2)[0] >= 0.2


@pytest.mark.parametrize("attempt", range(12))
def test_backoff_doubles_up_to_a_minute(attempt: int) -> None:
    waits = [backoff(0.5, attempt) for _ in range(200)]
    most = min(0.5 * 2**attempt, 60)
    assert most / 2 <= min(waits) < max(waits) <= most


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "9", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
    ],
)
def test_what_a_server_asks_for(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after(headers) == expected
