"""What `pad train-rm --dry-run` prints: the costs of a recipe, piece by piece."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pad_cli.cli.tables import print_text
from pad_cli.system.terminal import FittingTable, say, say_json, say_table

if TYPE_CHECKING:
    from pad_cli import Estimate
_CARDS = (24, 80)  # gigabytes of memory


def show_estimate(estimate: Estimate, as_json: bool = False) -> None:
    """Print an estimate on stdout."""
    if as_json:
        choice = {"dtype": estimate.choice.name, "reason": estimate.choice.reason}
        say_json({**dataclasses.asdict(estimate), "choice": choice})
        return
    volume = estimate.volume
    reason = f" ({estimate.choice.reason})" if estimate.choice.reason else ""
    print_text(f"{estimate.backbone}: {_si(estimate.parameters)} parameters, loaded as {estimate.choice.name}{reason}")
    print_text(
        f"{volume.pairs:,} training pairs, {volume.answers:,} distinct answers to read; tokens after cutting: prompt "
        f"{volume.prompt_tokens:.0f}, answer {volume.answer_tokens:.0f} (mean of {volume.sampled:,})"
    )
    say_table(*tables(estimate))
    most = max(estimate.costs, key=lambda cost: sum(cost.memory.values()))
    parts = ", ".join(f"{name} {_gigabytes(size)}" for name, size in most.memory.items())
    print_text(f"Device memory {_gigabytes(estimate.memory)} in '{most.name}': {parts}.")
    for size in _CARDS:
        say(f"  On a GPU, {size} GB are {'enough' if estimate.fits(size) else 'not enough'}, with a tenth left free.")
    print_text(f"Cached states on the disk: {_gigabytes(estimate.disk)}. Validation during training is not counted.")


def tables(estimate: Estimate) -> Iterator[FittingTable]:
    """The work, and how long it takes on each device."""
    work = FittingTable("work")
    for name in ("steps", "tokens read", "operations", "on the CPU", "device memory"):
        work.add_column(name, justify="right")
    for cost in estimate.costs:
        memory = _gigabytes(sum(cost.memory.values()))
        numbers = (cost.tokens, cost.operations, cost.cpu_operations)
        work.add_row(cost.name, f"{cost.steps:,}" if cost.steps else "", *map(_si, numbers), memory)
    yield work
    times = FittingTable("device")
    for name in (*(cost.name for cost in estimate.costs), "in all"):
        times.add_column(name, justify="right")
    for device, seconds in estimate.seconds.items():
        times.add_row(device, *map(_duration, seconds.values()), _duration(sum(seconds.values())))
    yield times


def _si(number: float) -> str:
    if number == 0:
        return ""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
