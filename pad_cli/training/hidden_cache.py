"""What training reads of every answer token, computed once: with frozen weights it never changes.

    hidden      (n, H)      the states that predict the answer tokens, through the adapter when there is one
    exact normaliser:
    reference   (n,)        log pi_ref of the tokens
    plain       (n, H)      with an adapter: the states without it
    truncated normaliser (C likeliest tokens of the reference among those that the corpus uses, after the realised one):
    candidates  (n, 1 + C)  token ids
    raw         (n, 1 + C)  their logits before scale and cap; minus infinity where the realised token is duplicated
    adapted     (n, 1 + C)  with an adapter: their logits through it

The head is applied to the rows of the corpus only: on a vocabulary of 262,144 of which a corpus uses 12,000, that is a
twentieth of the work.

The cache is a row of safetensors files under `PAD_HOME`, fingerprinted by all that decides their content, so that an
interrupted run continues with the files it has and a changed one starts anew. Files stay mapped to memory: a corpus may
be larger than that.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pad_cli.equation import LogitHead, log_prob
from pad_cli.models.adapter import Adapter
from pad_cli.models.checkpoint_files import load_tensors, save_tensors
from pad_cli.models.distributed import wait_for_all
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.scoring import TokenSequence, answer_states, by_prompt, in_batches, targets_and_owners
from pad_cli.system.processes import ALONE, Processes
from pad_cli.system.progress import bar
from pad_cli.system.runs import fingerprint, in_turn, storage_errors

_SHARD = 512  # answers in one file
_CHUNK_LOGITS = 2**26  # logits held at once


@dataclass(frozen=True)
class HiddenStateExtractor:
    """Reads sequences with a backbone, and with its adapter when there is one."""

    backbone: LanguageModel
    adapter: Adapter | None
    dtype: torch.dtype  # of cached states
    corpus: torch.Tensor | None  # (U,) sorted tokens that stand for the vocabulary; None for all of it (exact)
    candidates: int  # C; of no effect when exact

    @functools.cached_property
    def _head(self) -> LogitHead:
        head = self.backbone.head
        return (head if self.corpus is None else head.rows(self.corpus.to(self.backbone.device))).float32()

    @property
    def key(self) -> list[object]:
        """What decides the result, for a cache."""
        digest = hashlib.sha256()
        for tensor in [] if self.adapter is None else self.adapter.tensors:
            digest.update(tensor.cpu().numpy().tobytes())
        adapter = None if self.adapter is None else digest.hexdigest()
        corpus = None if self.corpus is None else [fingerprint(self.corpus.tolist()), self.candidates]
        return [self.backbone.fingerprint, str(self.backbone.dtype), adapter, str(self.dtype), corpus]

    @torch.inference_mode()
    def __call__(
        self, sequences: Sequence[TokenSequence], advance: Callable[[int], None] = lambda _: None
    ) -> dict[str, torch.Tensor]:
        """Tensors with a row for each answer token of some sequences; `advance` takes the number of those just read."""
        answers: list[dict[str, torch.Tensor]] = [{}] * len(sequences)
        device = self.backbone.device
        for numbers, rows in in_batches(
            sequences, lambda batch, _: self._read(batch), device, advance=advance, shared=True
        ):
            lengths = [len(sequences[number][1]) for number in numbers]
            for name, tensor in rows.items():
                for number, part in zip(numbers, tensor.split(lengths), strict=True):
                    answers[number] = {**answers[number], name: part}
        return {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}

    def _read(self, batch: Sequence[TokenSequence]) -> dict[str, torch.Tensor]:
        plain = answer_states(self.backbone, batch, shared=True).to(self.dtype)
        hidden = plain
        if self.adapter is not None:
            hidden = answer_states(self.backbone, batch, self.adapter, shared=True).to(self.dtype)
        targets, _ = targets_and_owners(batch, plain.device)
        size = max(1, _CHUNK_LOGITS // len(self._head.weight))
        pieces = zip(plain.split(size), hidden.split(size), targets.split(size), strict=True)
        parts = [self._rows(*piece) for piece in pieces]
        return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}

    def _rows(self, plain: torch.Tensor, hidden: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        raw = self._head.raw(plain.float())
        if self.corpus is None:
            reference = log_prob(self._head.finish(raw), targets)
            rows = {"hidden": hidden, "reference": reference}
            return rows if self.adapter is None else {**rows, "plain": plain}
        corpus = self.corpus.to(targets.device)
        realised = torch.searchsorted(corpus, targets)[:, None]
        places = raw.topk(min(self.candidates, raw.shape[1]), dim=-1).indices
        again = places == realised
        places = torch.cat([realised, places], dim=1)

        def at_candidates(logits: torch.Tensor) -> torch.Tensor:
            chosen = logits.gather(1, places)
            chosen[:, 1:].masked_fill_(again, -torch.inf)
            return chosen

        rows = {"hidden": hidden, "candidates": corpus[places].int(), "raw": at_candidates(raw)}
        return rows if self.adapter is None else {**rows, "adapted": at_candidates(self._head.raw(hidden.float()))}


@dataclass(frozen=True)
class HiddenCache:
    """N answer tokens, in the order of `scoring.by_prompt`."""

    targets: torch.Tensor  # (N,), the answer tokens
    starts: torch.Tensor  # (S,), where each of the S answers begins
    lengths: torch.Tensor  # (S,), their lengths in tokens
    _shards: tuple[Mapping[str, torch.Tensor], ...]
    _firsts: torch.Tensor  # (shards,) first position of each

    def __len__(self) -> int:
        return len(self.targets)

    def positions(self, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions (T,) of the tokens of some (B,) answers, and owners (T,): which of the B each belongs to."""
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
    sequences: Sequence[TokenSequence], extractor: HiddenStateExtractor, directory: Path, everyone: Processes = ALONE
) -> HiddenCache:
    """Compute, or continue, the cache of S distinct sequences; a StorageError where a file cannot be written.

    Several processes compute files in turn, and go on when all are there; so `directory` is one that all of them see.
    """
    name, order = fingerprint([extractor.key, "by prompt", sequences]), by_prompt(sequences)
    parts = [[sequences[index] for index in order[start : start + _SHARD]] for start in range(0, len(order), _SHARD)]
    paths = [directory / f"{name}-{number:05d}.safetensors" for number in range(len(parts))]
    mine = [shard for number, shard in enumerate(zip(paths, parts, strict=True)) if everyone.owns(number)]
    if not all(_is_whole(*shard) for shard in mine):
        with in_turn(directory / name):
            _write(mine, extractor)
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


def _write(shards: Sequence[tuple[Path, Sequence[TokenSequence]]], extractor: HiddenStateExtractor) -> None:
    """Compute the files that are not there."""
    with bar("Caching hidden states", total=sum(len(members) for _, members in shards)) as progress:
        for path, members in shards:
            if not _is_whole(path, members):
                with storage_errors(path):
                    scratch = path.with_suffix(".writing")  # a directory, for what safetensors leaves when it is killed
                    shutil.rmtree(scratch, ignore_errors=True)
                    scratch.mkdir(parents=True)
                    save_tensors(extractor(members, progress.advance), scratch / path.name)
                    (scratch / path.name).replace(path)
                    scratch.rmdir()
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
