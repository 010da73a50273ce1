"""Several processes that share one job, as `accelerate launch` or torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Processes:
    """This process among all."""

    rank: int = 0  # its number, from 0 on over all machines
    count: int = 1  # of all processes
    local_rank: int = 0  # its number on this machine

    @property
    def main(self) -> bool:
        """Does it do what is done once?"""
        return self.rank == 0

    @property
    def part(self) -> str:
        """The name of its part of a log; empty for one process, which needs none."""
        return f"{self.rank:05d}" if self.count > 1 else ""

    def owns(self, number: int) -> bool:
        return number % self.count == self.rank

    def share(self, items: Sequence[Item]) -> list[Item]:
        """Its share of items; all processes together have each once."""
        return list(items[self.rank :: self.count])


ALONE = Processes()


def processes() -> Processes:
    """By the environment variables RANK, WORLD_SIZE and LOCAL_RANK."""
    rank, count, local = (int(os.environ.get(name) or 0) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Processes(rank, count, local) if count > 1 else ALONE
