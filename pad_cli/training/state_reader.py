"""One pass of the frozen backbone over answers: their states, and what the reference makes of them.

    hidden      (n, H)      the states that predict the answer tokens, through the adapter when there is one
    exact normaliser:
    reference   (n,)        log pi_ref of the tokens
    plain       (n, H)      with an adapter: the states without it
    truncated normaliser (C likeliest tokens of the reference among those that the corpus uses, after the realised one):
    candidates  (n, 1 + C)  token ids
    raw         (n, 1 + C)  their logits before scale and cap; minus infinity where the realised token comes twice
    adapted     (n, 1 + C)  with an adapter: their logits through it

The head is applied to the rows of the corpus only: on a vocabulary of 262,144 of which a corpus uses 12,000, that is a
twentieth of the work.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch

from pad_cli.equation import log_prob
from pad_cli.models.adapter import Adapter
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.scoring import TokenSequence, answer_states, in_batches
from pad_cli.system.runs import fingerprint

_CHUNK_LOGITS = 2**26  # logits held at once


class HiddenStateExtractor:
    """Reads sequences with a backbone, and with its adapter when there is one.

    Args:
        backbone: the frozen model.
        adapter: its LoRA weights; None without.
        dtype: number format of kept states.
        corpus: (U,) sorted tokens that stand for the vocabulary; None for all of it (exact).
        candidates: C; of no effect when exact.
    """

    def __init__(
        self,
        backbone: LanguageModel,
        adapter: Adapter | None,
        dtype: torch.dtype,
        corpus: torch.Tensor | None,
        candidates: int,
    ) -> None:
        self._backbone = backbone
        self._adapter = adapter
        self._dtype = dtype
        self._corpus = corpus
        self._candidates = candidates
        head = backbone.head if corpus is None else backbone.head.rows(corpus.to(backbone.device))
        self._head = head.float32()

    @property
    def key(self) -> list[object]:
        """What decides the result, for a cache."""
        digest = hashlib.sha256()
        for tensor in [] if self._adapter is None else self._adapter.tensors:
            digest.update(tensor.cpu().numpy().tobytes())
        adapter = None if self._adapter is None else digest.hexdigest()
        corpus = None if self._corpus is None else [fingerprint(self._corpus.tolist()), self._candidates]
        return [self._backbone.fingerprint, str(self._backbone.dtype), adapter, str(self._dtype), corpus]

    @torch.inference_mode()
    def __call__(
        self, sequences: Sequence[TokenSequence], advance: Callable[[int], None] = lambda _: None
    ) -> dict[str, torch.Tensor]:
        """The rows of some sequences.

        Args:
            sequences: (prompt, answer) token sequences.
            advance: called with the number of those just read.
        """
        answers: list[dict[str, torch.Tensor]] = [{}] * len(sequences)
        device = self._backbone.device
        for numbers, rows in in_batches(sequences, lambda batch, _: self._read(batch), device, advance=advance):
            lengths = [len(sequences[number][1]) for number in numbers]
            for name, tensor in rows.items():
                for number, part in zip(numbers, tensor.split(lengths), strict=True):
                    answers[number] = {**answers[number], name: part}
        return {name: torch.cat([answer[name] for answer in answers]) for name in answers[0]}

    def _read(self, batch: Sequence[TokenSequence]) -> dict[str, torch.Tensor]:
        plain = self._states(batch, adapted=False)
        hidden = plain if self._adapter is None else self._states(batch, adapted=True)
        targets = torch.tensor([token for _, answer in batch for token in answer], device=plain.device)
        size = max(1, _CHUNK_LOGITS // len(self._head.weight))
        pieces = zip(plain.split(size), hidden.split(size), targets.split(size), strict=True)
        parts = [self._rows(*piece) for piece in pieces]
        return {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}

    def _states(self, batch: Sequence[TokenSequence], adapted: bool) -> torch.Tensor:
        """(n, H) in the kept number format."""
        return answer_states(self._backbone, batch, self._adapter if adapted else None).to(self._dtype)

    def _rows(self, plain: torch.Tensor, hidden: torch.Tensor, targets: torch.Tensor) -> dict[str, torch.Tensor]:
        raw = self._head.raw(plain.float())
        if self._corpus is None:
            reference = log_prob(self._head.finish(raw), targets)
            rows = {"hidden": hidden, "reference": reference}
            return rows if self._adapter is None else {**rows, "plain": plain}
        corpus = self._corpus.to(targets.device)
        realised = torch.searchsorted(corpus, targets)[:, None]
        places = raw.topk(min(self._candidates, raw.shape[1]), dim=-1).indices
        again = places == realised
        places = torch.cat([realised, places], dim=1)

        def at_candidates(logits: torch.Tensor) -> torch.Tensor:
            found = logits.gather(1, places)
            found[:, 1:].masked_fill_(again, -torch.inf)
            return found

        rows = {"hidden": hidden, "candidates": corpus[places].int(), "raw": at_candidates(raw)}
        return rows if self._adapter is None else {**rows, "adapted": at_candidates(self._head.raw(hidden.float()))}
