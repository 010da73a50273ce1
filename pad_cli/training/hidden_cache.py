"""Every answer's hidden states, computed once: with a frozen backbone they never change.

The cache is sharded on disk and fingerprinted by backbone and tokens, so that an interrupted run continues with the
shards it has and a changed one starts anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pad_cli.models.language_model import LanguageModel
from pad_cli.progress import bar
from pad_cli.runs import fingerprint, storage_errors

_SHARD = 512  # answers in one file
_BATCH_TOKENS = 8192  # tokens of one forward pass, padding included

Sequence_ = tuple[tuple[int, ...], tuple[int, ...]]
"""(prompt tokens, answer tokens)."""


@dataclass(frozen=True)
class HiddenCache:
    """Hidden states of N answer tokens, flat.

    Attributes:
        hidden: (N, H), the state from which each answer token was predicted.
        targets: (N,), those tokens.
        starts: (S + 1,), where each of the S answers begins.
    """

    hidden: torch.Tensor
    targets: torch.Tensor
    starts: torch.Tensor

    def positions(self, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Token positions of some answers.

        Args:
            answers: (B,) numbers of answers.

        Returns:
            positions (T,) into the cache, and owners (T,): which of the B each belongs to.
        """
        lengths = self.starts[answers + 1] - self.starts[answers]
        owners = torch.repeat_interleave(torch.arange(len(answers)), lengths)
        offsets = torch.arange(len(owners)) - (lengths.cumsum(0) - lengths)[owners]
        return self.starts[answers][owners] + offsets, owners


def build_hidden_cache(
    backbone: LanguageModel, sequences: Sequence[Sequence_], directory: Path, dtype: torch.dtype
) -> HiddenCache:
    """Compute, or continue, the cache of some sequences.

    Args:
        backbone: the frozen model.
        sequences: S distinct (prompt, answer) token sequences.
        directory: where shards are kept.
        dtype: number format of the kept states.
    """
    key = fingerprint([backbone.fingerprint, str(dtype), sequences])
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index][0]) + len(sequences[index][1]))
    parts: list[torch.Tensor] = []
    with bar("Caching hidden states", total=len(sequences)) as progress:
        for number, start in enumerate(range(0, len(order), _SHARD)):
            members = order[start : start + _SHARD]
            path = directory / f"{key}-{number:05d}.safetensors"
            shard = _read(path)
            if shard is None or shard.shape != (sum(len(sequences[i][1]) for i in members), backbone.hidden_size):
                shard = _compute(backbone, [sequences[index] for index in members], dtype)
                with storage_errors(path):
                    directory.mkdir(parents=True, exist_ok=True)
                    scratch = path.with_suffix(".part")
                    save_file({"hidden": shard}, scratch)
                    scratch.replace(path)
            parts.append(shard)
            progress.advance(len(members))
    lengths = torch.tensor([len(answer) for _, answer in sequences])
    starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    hidden = torch.empty(int(starts[-1]), backbone.hidden_size, dtype=dtype)
    shards, at = torch.cat(parts), 0
    for index in order:
        hidden[starts[index] : starts[index + 1]] = shards[at : at + int(lengths[index])]
        at += int(lengths[index])
    targets = torch.tensor([token for _, answer in sequences for token in answer])
    return HiddenCache(hidden, targets, starts)


def _read(path: Path) -> torch.Tensor | None:
    """A finished shard; None when there is none that can be read."""
    try:
        return load_file(path)["hidden"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


@torch.inference_mode()
def _compute(backbone: LanguageModel, sequences: Sequence[Sequence_], dtype: torch.dtype) -> torch.Tensor:
    """States of the answers of some sequences, sorted by length: (N, H)."""
    states, batch = [], []
    for number, sequence in enumerate(sequences):
        batch.append(sequence)
        longest = max(len(p) + len(a) for p, a in sequences[number : number + 2])
        if (len(batch) + 1) * longest > _BATCH_TOKENS or number + 1 == len(sequences):
            states.append(_forward(backbone, batch).to(dtype))
            batch = []
    return torch.cat(states)


def _forward(backbone: LanguageModel, batch: Sequence[Sequence_]) -> torch.Tensor:
    length = max(len(prompt) + len(answer) for prompt, answer in batch) - 1
    pad = backbone.tokenizer.pad_token_id
    tokens = torch.full((len(batch), length), pad)
    mask = torch.zeros(len(batch), length, dtype=torch.long)
    for row, (prompt, answer) in enumerate(batch):  # right-padded: causal attention never looks there
        read = (*prompt, *answer[:-1])
        tokens[row, : len(read)] = torch.tensor(read)
        mask[row, : len(read)] = 1
    hidden = backbone.hidden_states(tokens.to(backbone.device), mask.to(backbone.device)).cpu()
    rows = zip(hidden, batch, strict=True)
    return torch.cat([row[len(p) - 1 : len(p) - 1 + len(a)] for row, (p, a) in rows])
