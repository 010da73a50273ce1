"""Where memory is too small for a batch, it is halved and the work goes on, with the same results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import ResourceError
from pad_cli.models.forward import is_out_of_memory
from pad_cli.models.scoring import BatchSizeBackoff
from pad_cli.recipe import DecodingSettings
from tests.agreement import alone, assert_agree

SETTINGS = DecodingSettings(max_new_tokens=6, temperature=0.9, batch_size=5)
PROMPTS = ["Hi", "Why?", "Tell me of the sea", "Who?", "A word on trees"]


def too_much() -> None:
    """More than any machine has, so that the allocator says what it says then."""
    torch.empty(2**50)


@settings(max_examples=30, deadline=None)  # each halving collects garbage, which takes long among many tests' objects
@given(st.integers(0, 40), st.integers(1, 16), st.integers(1, 16))
def test_every_item_is_worked_on_once_in_order_and_in_batches_that_fit(count: int, size: int, fitting: int) -> None:
    tried: list[int] = []

    def work(items: Sequence[int]) -> list[int]:
        tried.append(len(items))
        if len(items) > fitting:
            too_much()
        return [2 * item for item in items]

    done = list(BatchSizeBackoff("numbers").batches(range(count), size, work))
    assert [item for items, _ in done for item in items] == list(range(count))
    assert [item for _, results in done for item in results] == [2 * n for n in range(count)]
    assert sum(length > fitting for length in tried) <= size.bit_length(), "what did not fit is not tried again"


def test_a_size_that_fitted_is_kept_for_what_comes_later(capfd: pytest.CaptureFixture[str]) -> None:
    halving, tried = BatchSizeBackoff("numbers"), []

    def work(items: Sequence[int]) -> None:
        tried.append(len(items))
        if len(items) > 3:
            raise MemoryError

    for _ in range(2):
        list(halving.batches(range(8), 8, work))
    assert tried == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    assert capfd.readouterr().err.splitlines() == [
        "Memory is too small for 8 numbers at once; going on with 4.",
        "Memory is too small for 4 numbers at once; going on with 2.",
    ]


def test_a_single_item_that_does_not_fit_is_an_error_and_other_errors_are_let_through() -> None:
    with pytest.raises(ResourceError, match="too small for a single one of numbers"):
        list(BatchSizeBackoff("numbers").batches([1, 2], 2, lambda _: too_much()))

    def wrong(_: Sequence[int]) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes"):
        list(BatchSizeBackoff("numbers").batches([1, 2], 2, wrong))


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("expected scalar type Float"), False),
        (OSError("Cannot allocate memory"), False),
    ],
)
def test_which_errors_mean_memory(error: Exception, answer: bool) -> None:
    assert is_out_of_memory(error) is answer


def test_answers_are_the_same_in_halves(
    policy: Any, reward_model: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = PadEngine(policy, reward_model)
    preferences = [engine.preference(["humorous"])] * len(PROMPTS)
    whole, requests = engine.generate(PROMPTS, preferences, SETTINGS), alone(engine, PROMPTS, preferences, SETTINGS)
    plain = policy.model.model.forward

    def forward(*arguments: Any, **named: Any) -> Any:
        if len(named["input_ids"]) > 2:
            too_much()
        return plain(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(policy.model.model, "forward", forward)
        halves = engine.generate(PROMPTS, preferences, SETTINGS)
    assert_agree(halves, whole, requests)
    assert "Memory is too small for 5 answers at once; going on with 2." in capfd.readouterr().err
