"""Costs before they are made: bounds that hold, forecasts that learn, a budget that is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.evaluation.judge.budget import Budget, OverBudgetError, Prices, Reservation, forecast, most_tokens


@given(text=st.text(max_size=60))
def test_no_message_has_more_tokens_than_the_bound(byte_tokenizer: Any, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    ids = byte_tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert len(ids) <= most_tokens(tuple(messages))


def test_a_forecast_without_replies_takes_four_characters_for_a_token() -> None:
    waiting = [({"role": "user", "content": "x" * 400},)] * 3
    volume = forecast(waiting, [], Prices(2.0, 10.0))
    assert (volume.requests, volume.tokens_in, volume.tokens_out) == (3, 300, 240)
    assert volume.usd == pytest.approx((300 * 2 + 240 * 10) / 1e6)


def test_a_forecast_counts_the_repairs_that_replies_needed() -> None:
    row = {"characters": 100, "requests": 2, "tokens_in": 90, "tokens_out": 40}
    volume = forecast([({"role": "user", "content": "x" * 200},)], [row] * 5, None)
    assert (volume.requests, volume.tokens_in, volume.tokens_out, volume.usd) == (2, 180, 40, None)


@given(
    limit=st.floats(0.1, 50),
    steps=st.lists(st.tuples(st.floats(0.01, 10), st.floats(0, 1), st.booleans()), max_size=60),
)
def test_a_budget_is_never_exceeded(limit: float, steps: list[tuple[float, float, bool]]) -> None:
    budget, under_way = Budget(limit), list[tuple[Reservation, float]]()
    for amount, share, finish in steps:
        reservation = Reservation(budget)
        try:
            reservation.add(amount)
            under_way.append((reservation, amount))
        except OverBudgetError:
            assert budget.spent + sum(each for _, each in under_way) + amount > limit - 1e-9
        if finish and under_way:
            reservation, reserved = under_way.pop(0)
            with reservation:
                reservation.pay(share * reserved)
        assert budget.spent <= limit + 1e-9


def test_no_limit_is_no_limit() -> None:
    reservation = Reservation(Budget(None))
    reservation.add(1e9)
    reservation.pay(1e9)
    reservation.add(1.0)
