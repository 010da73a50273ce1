"""Work that is too large for the memory goes on in smaller batches, and says so."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache

from pad_cli.errors import ResourceError
from pad_cli.system.progress import note

Item = TypeVar("Item")
Result = TypeVar("Result")

_MESSAGES = ("out of memory", "can't allocate memory", "ALLOC_FAILED")  # of CUDA, of the CPU's allocator, of cuBLAS


def is_out_of_memory(error: BaseException) -> bool:
    """Does an error say that memory is too small, a device's or the machine's?"""
    if isinstance(error, RuntimeError):
        return any(message in str(error) for message in _MESSAGES)
    return isinstance(error, MemoryError)


def free_memory() -> None:
    """Give back what is unreferenced; to be called after, not in, the `except` that caught the error."""
    gc.collect()
    clear_device_cache()


class BatchSizeBackoff:
    """Works on batches of `what`, and halves their size, from then on, whenever one is too large for the memory."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._limit: int | None = None

    def batches(
        self, items: Sequence[Item], size: int, work: Callable[[Sequence[Item]], Result]
    ) -> Iterator[tuple[Sequence[Item], Result]]:
        """Each batch of at most `size` items and what `work` makes of it, in order.

        Raises:
            ResourceError: memory is too small for a single item.
        """
        start = 0
        while start < len(items):
            batch = items[start : start + min(size, self._limit or size)]
            try:
                result = work(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise ResourceError(
                        f"Memory is too small for a single one of {self._what}.",
                        "Free some, use a smaller model, or let it read and write fewer tokens.",
                    ) from error
            else:
                yield batch, result
                start += len(batch)
                continue
            # out here, where the error no longer holds on to what the attempt had computed
            self._limit = len(batch) // 2
            free_memory()
            note(f"Memory is too small for {len(batch)} {self._what} at once; going on with {self._limit}.")
