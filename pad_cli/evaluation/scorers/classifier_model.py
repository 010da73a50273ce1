"""A sequence classifier: loaded, and read in batches whose rows do not notice each other."""

from __future__ import annotations

import contextlib
import functools
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from pad_cli.errors import ModelLoadError, PadError
from pad_cli.evaluation.scorers.classifier_text import Text
from pad_cli.models.dtype import choose_dtype
from pad_cli.models.language_model import context_length
from pad_cli.models.loading import own_dtype
from pad_cli.system.offline import hub_hint
from pad_cli.system.progress import stage

_HEAD = "score"  # what transformers calls the last linear layer of a decoder that classifies


class ClassifierSource(NamedTuple):
    """How a classifier is loaded.

    Attributes:
        model: directory, or id on the hub.
        revision: branch, tag or commit there.
        dtype: of the weights; `auto` for its own where the device is fast in it.
        device: where it is put.
        head: name of the last linear layer, where the checkpoint has one of its own on a decoder.
        outputs: how many numbers it gives; 0 for what its configuration says.
        trust_remote_code: run the code that comes with it.
    """

    model: str
    revision: str | None
    dtype: str
    device: str
    head: str | None
    outputs: int
    trust_remote_code: bool


class Reading(NamedTuple):
    """A classifier's numbers for one text, and whether it read a part of it only."""

    logits: tuple[float, ...]
    truncated: bool


@dataclass(frozen=True)
class Classifier:
    """A classifier with its tokenizer; what it read once it does not read again, whichever output is asked for.

    Attributes:
        model: the transformers model.
        tokenizer: its tokenizer.
        longest: tokens that it can read.
        padding: its padding token, or None.
        known: what it read.
    """

    model: Any
    tokenizer: Any
    longest: int
    padding: int | None
    known: dict[tuple[Text, int], Reading] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The names of its outputs, as its configuration has them."""
        return [name for _, name in sorted(self.model.config.id2label.items())]

    def read(self, texts: Sequence[Text], max_tokens: int | None) -> list[Reading]:
        """Read some texts, one batch; a long one loses its end (of a pair, the longer text does).

        Raises:
            ValueError: a text has no tokens.
        """
        limit = min(max_tokens or self.longest, self.longest)
        new = list(dict.fromkeys(text for text in texts if (text, limit) not in self.known))
        if new:
            inputs, truncated = zip(*(self._encoded(text, limit) for text in new), strict=True)
            for text, logits, cut in zip(new, self._forward(inputs), truncated, strict=True):
                self.known[text, limit] = Reading(tuple(logits), cut)
        return [self.known[text, limit] for text in texts]

    def _encoded(self, text: Text, limit: int) -> tuple[Mapping[str, list[int]], bool]:
        arguments = {"text": text.first, "text_pair": text.second, "add_special_tokens": text.special}
        whole = self.tokenizer(**arguments, verbose=False)
        if not whole["input_ids"]:
            raise ValueError("a text without tokens")
        if len(whole["input_ids"]) <= limit:
            return whole, False
        return self.tokenizer(**arguments, truncation=True, max_length=limit), True

    @torch.inference_mode()
    def _forward(self, rows: Sequence[Mapping[str, list[int]]]) -> list[list[float]]:
        """Right-padded: a causal model never sees it, and others have the mask."""
        ids = [row["input_ids"] for row in rows]
        inputs = {"input_ids": self._filled(ids, self._filler(ids)), "attention_mask": self._filled(_ones(ids), 0)}
        if "token_type_ids" in rows[0] and getattr(self.model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = self._filled([row["token_type_ids"] for row in rows], 0)
        logits: torch.Tensor = self.model(**inputs).logits.float()
        numbers: list[list[float]] = (logits if logits.ndim == 2 else logits[:, None]).tolist()
        return numbers

    def _filled(self, rows: Sequence[list[int]], value: int) -> torch.Tensor:
        width = max(map(len, rows))
        return torch.tensor([row + [value] * (width - len(row)) for row in rows], device=self.model.device)

    def _filler(self, rows: Sequence[list[int]]) -> int:
        """The token that fills rows up; a decoder reads its score at the last token that is another one.

        A model without a padding token gets one that these rows do not hold. The end of sequence, which is often taken
        for it, may be the very token that the score is read at.
        """
        if self.padding is not None:
            return self.padding
        used = {token for row in rows for token in row}
        free = next(token for token in range(len(used) + 1) if token not in used)
        self.model.config.get_text_config().pad_token_id = free
        return free


@functools.lru_cache(maxsize=1)
def load_classifier(source: ClassifierSource) -> Classifier:
    """Load a classifier; the last one stays in memory, because scorers that share it follow each other.

    Raises:
        ModelLoadError: it is missing, damaged, or no trained classifier.
    """
    shared = {"revision": source.revision, "trust_remote_code": source.trust_remote_code}
    options: dict[str, Any] = {}
    if source.trust_remote_code:
        options["code_revision"] = source.revision  # else code of another repository would come unpinned
    if source.head is not None:
        options["key_mapping"] = {rf"^{re.escape(source.head)}\.": f"{_HEAD}."}
    if source.outputs:
        options["num_labels"] = source.outputs
    with stage(f"Loading {source.model}"), _explained(source), _quiet():
        tokenizer = AutoTokenizer.from_pretrained(source.model, **shared)
        options["dtype"] = _dtype(source, shared)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            source.model, **shared, **options, output_loading_info=True
        )
        if missing := sorted(report["missing_keys"]):
            raise ModelLoadError(
                f"'{source.model}' is no trained classifier: it lacks {missing[0]}.",
                "Name a sequence classifier or reward model; `head` names its last layer where that has another name.",
            )
        model = model.eval().requires_grad_(False).to(source.device)
    return Classifier(model, tokenizer, _longest(model, tokenizer), model.config.get_text_config().pad_token_id)


def _dtype(source: ClassifierSource, shared: dict[str, Any]) -> torch.dtype | str:
    if source.dtype != "auto":
        dtype: torch.dtype = getattr(torch, source.dtype)
        return dtype
    own = own_dtype(AutoConfig.from_pretrained(source.model, **shared))
    return "auto" if own is None else choose_dtype(own, torch.device(source.device)).dtype


def _longest(model: Any, tokenizer: Any) -> int:
    """Tokens that a classifier can read: what its tokenizer and its positions allow."""
    return int(min(tokenizer.model_max_length, context_length(model) or sys.maxsize))


def _ones(rows: Sequence[list[int]]) -> list[list[int]]:
    return [[1] * len(row) for row in rows]


@contextlib.contextmanager
def _explained(source: ClassifierSource) -> Iterator[None]:
    """What transformers raises, in the user's words."""
    try:
        yield
    except PadError:
        raise
    except Exception as error:  # a damaged file may raise anything, a tokenizer's a bare Exception
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        hint = "It needs config.json, safetensors weights and a tokenizer; a hub id needs the network."
        if not Path(source.model).exists():
            hint = hub_hint(hint, f"hf download {source.model}")
        raise ModelLoadError(f"Cannot load a classifier from '{source.model}': {reason}", hint) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
