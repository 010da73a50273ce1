"""What stands in a cell of an evaluation's report, whatever it is written in, and how its numbers look."""

from __future__ import annotations

from typing import NamedTuple


class Estimate(NamedTuple):
    """A mean on its interval.

    Attributes:
        value: None where a scorer failed.
        low: None where there is no interval.
        high: likewise.
        verdict: of its comparison with the reference, if there is one.
        failed: answers on which the scorer failed.
        signed: is it a difference?
    """

    value: float | None
    low: float | None
    high: float | None
    verdict: str = "undecided"
    failed: int = 0
    signed: bool = False

    @property
    def text(self) -> str:
        """The value as readers see it."""
        return "failed" if self.value is None else figure(self.value, signed=self.signed)

    @property
    def interval(self) -> str:
        """Its ends likewise; empty if there are none."""
        if self.low is None or self.high is None:
            return ""
        return f"{figure(self.low, signed=self.signed)} to {figure(self.high, signed=self.signed)}"


class Rate(NamedTuple):
    """A win rate on its interval, to be drawn."""

    estimate: Estimate


class Number(NamedTuple):
    """A number and how it is shown."""

    value: float | None
    text: str


class Heat(NamedTuple):
    """A mean as a colour: `share`, from 0 to 1, is where it lies between the lowest and the highest."""

    estimate: Estimate
    share: float


Cell = str | Estimate | Rate | Number | Heat


def figure(value: float, *, signed: bool = False) -> str:
    """A mean or a difference as readers see it."""
    sign = "+" if signed and value > 0 else ""
    return sign + (f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}")


def chance(p: float | None) -> str:
    """A p-value as readers see it."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
