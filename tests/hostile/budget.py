"""How long the fuzzers run: short and the same every time in the test suite, for a set time by `make fuzz`.

`PAD_FUZZ_SECONDS=600 pytest -m fuzz` runs each property anew, with other examples, until its time is up.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from pad_cli.errors import PadError

_SECONDS = float(os.environ.get("PAD_FUZZ_SECONDS", "0"))
_SLOW = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]

Made = TypeVar("Made")
Refusal = TypeVar("Refusal", bound=PadError)
Test = TypeVar("Test", bound=Callable[..., Any])


def fuzzed(test: Test) -> Test:
    """A property as a fuzzer of one surface; stands above `@given`."""
    return examples(80)(test)


def examples(count: int) -> Callable[[Test], Test]:
    """The same, with so many examples in the test suite: fewer where one is dear."""

    def decorate(test: Any) -> Any:
        short = settings(max_examples=count, deadline=None, derandomize=not _SECONDS, database=None)
        prepared = settings(short, suppress_health_check=_SLOW)(test)
        if not _SECONDS:
            return pytest.mark.fuzz(prepared)

        @functools.wraps(prepared)
        def lasting(*arguments: Any, **named: Any) -> None:
            end = time.monotonic() + _SECONDS
            while time.monotonic() < end:
                prepared(*arguments, **named)

        return pytest.mark.fuzz(lasting)

    return decorate


def tried(call: Callable[[], Made], *kinds: type[Refusal]) -> tuple[Made, None] | tuple[None, Refusal]:
    """What a call gives, or how it refuses; any other error comes out as it is."""
    try:
        return call(), None
    except kinds as error:
        return None, error
