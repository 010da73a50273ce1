"""What training reads of every answer token, computed once: with frozen weights it never changes.

The cache is a row of safetensors files under `PAD_HOME`, fingerprinted by all that decides their content, so that an
interrupted run continues with the files it has and a changed one starts anew. Files stay mapped to memory: a corpus may
be larger than that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pad_cli.models.rendezvous import wait_for_all
from pad_cli.models.tensor_file import load_tensors, save_tensors
from pad_cli.system.processes import ALONE, Processes
from pad_cli.system.progress import bar
from pad_cli.system.runs import fingerprint, in_turn, storage_errors

_SHARD = 512  # answers in one file

TokenSequence = tuple[tuple[int, ...], tuple[int, ...]]
"""(prompt tokens, answer tokens)."""

Compute = Callable[[Sequence[TokenSequence], Callable[[int], None]], Mapping[str, torch.Tensor]]
"""Some sequences, to tensors with one row for each answer token: (n, ...); says how many it has just read."""


@dataclass(frozen=True)
class HiddenCache:
    """N answer tokens, in the order of the answers' lengths.

    Attributes:
        targets: (N,), the answer tokens.
        starts: (S,), where each of the S answers begins.
        lengths: (S,), their numbers of tokens.
    """

    targets: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    _shards: tuple[Mapping[str, torch.Tensor], ...]
    _firsts: torch.Tensor  # (shards,) first position of each

    def __len__(self) -> int:
        return len(self.targets)

    def positions(self, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Token positions of some answers.

        Args:
            answers: (B,) numbers of answers.

        Returns:
            positions (T,) into the cache, and owners (T,): which of the B each belongs to.
        """
        lengths = self.lengths[answers]
        owners = torch.repeat_interleave(torch.arange(len(answers)), lengths)
        offsets = torch.arange(len(owners)) - (lengths.cumsum(0) - lengths)[owners]
        return self.starts[answers][owners] + offsets, owners

    def gather(self, name: str, positions: torch.Tensor) -> torch.Tensor:
        """Rows of a cached tensor at some (T,) positions: (T, ...)."""
        owners = torch.searchsorted(self._firsts, positions, right=True) - 1
        first = self._shards[0][name]
        rows = torch.empty(len(positions), *first.shape[1:], dtype=first.dtype)
        for shard in owners.unique().tolist():
            members = owners == shard
            rows[members] = self._shards[shard][name][positions[members] - self._firsts[shard]]
        return rows


def build_hidden_cache(
    sequences: Sequence[TokenSequence], compute: Compute, key: object, directory: Path, everyone: Processes = ALONE
) -> HiddenCache:
    """Compute, or continue, the cache of some sequences.

    Several processes compute files in turn, and go on when all are there; so `directory` is one that all of them see.

    Args:
        sequences: S distinct (prompt, answer) token sequences.
        compute: gives the rows of a few of them, which are of similar length.
        key: what decides the result of `compute`, in a form that JSON can hold.
        directory: where shards are kept.
        everyone: who takes part.

    Raises:
        StorageError: a shard cannot be written.
    """
    name = fingerprint([key, sequences])
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index][0]) + len(sequences[index][1]))
    parts = [[sequences[index] for index in order[start : start + _SHARD]] for start in range(0, len(order), _SHARD)]
    paths = [directory / f"{name}-{number:05d}.safetensors" for number in range(len(parts))]
    mine = [shard for number, shard in enumerate(zip(paths, parts, strict=True)) if everyone.owns(number)]
    if not all(_is_whole(*shard) for shard in mine):
        with in_turn(directory / name):
            _write(mine, compute)
    if everyone.count > 1:
        wait_for_all()
    shards: list[Mapping[str, torch.Tensor]] = [load_file(path) for path in paths]
    lengths = torch.tensor([len(answer) for _, answer in sequences])
    ordered = torch.tensor(order)
    starts = torch.empty(len(sequences), dtype=torch.long)
    starts[ordered] = lengths[ordered].cumsum(0) - lengths[ordered]
    sizes = torch.tensor([len(next(iter(shard.values()))) for shard in shards])
    targets = torch.tensor([token for index in order for token in sequences[index][1]])
    return HiddenCache(targets, starts, lengths, tuple(shards), sizes.cumsum(0) - sizes)


_Shard = tuple[Path, Sequence[TokenSequence]]
"""A file, and the sequences whose rows it holds."""


def _write(shards: Sequence[_Shard], compute: Compute) -> None:
    """Compute the files that are not there."""
    with bar("Caching hidden states", total=sum(len(members) for _, members in shards)) as progress:
        for path, members in shards:
            if not _is_whole(path, members):
                with storage_errors(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    scratch = path.with_suffix(".part")
                    save_tensors(compute(members, progress.advance), scratch)
                    scratch.replace(path)
            else:
                progress.skip(len(members))


def _is_whole(path: Path, members: Sequence[TokenSequence]) -> bool:
    """Is a file there, undamaged, with a row for each answer token?"""
    try:
        shard, _ = load_tensors(path)
    except (FileNotFoundError, SafetensorError):
        return False
    tokens = sum(len(answer) for _, answer in members)
    return bool(shard) and all(len(rows) == tokens for rows in shard.values())
