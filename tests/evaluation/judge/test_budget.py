"""Costs before they are made: bounds that hold, forecasts, a budget that is kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.endpoint.asking import Budget, forecast, most_tokens
from pad_cli.recipe import JudgeSettings


@given(text=st.text(max_size=60))
def test_no_message_has_more_tokens_than_the_bound(byte_tokenizer: Any, text: str) -> None:
    messages = [{"role": "user", "content": text}]
    ids = byte_tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert len(ids) <= most_tokens(tuple(messages))


def test_a_forecast_takes_four_characters_for_a_token() -> None:
    waiting = [({"role": "user", "content": "x" * 400},)] * 3
    volume = forecast(waiting, JudgeSettings(model="m", input_price=2.0, output_price=10.0), 80)
    assert (volume.requests, volume.tokens_in, volume.tokens_out) == (3, 300, 240)
    assert volume.usd == pytest.approx((300 * 2 + 240 * 10) / 1e6)


@given(
    limit=st.floats(0.1, 50),
    steps=st.lists(st.tuples(st.floats(0.01, 10), st.integers(1, 6), st.floats(0, 1), st.booleans()), max_size=60),
)
def test_a_budget_is_never_exceeded(limit: float, steps: list[tuple[float, int, float, bool]]) -> None:
    budget, under_way = Budget(limit), list[float]()
    for most, wanted, share, finish in steps:
        attempts = budget.reserve(most, wanted)
        assert 0 <= attempts <= wanted
        assert attempts == wanted or budget.spent + budget.reserved + most > limit - 1e-9
        under_way.append(attempts * most)
        if finish:
            reserved = under_way.pop(0)
            budget.spent += share * reserved
            budget.reserved -= reserved
        assert budget.spent + budget.reserved <= limit + 1e-9


def test_no_limit_is_no_limit() -> None:
    assert Budget(None).reserve(1e9, 3) == 3
