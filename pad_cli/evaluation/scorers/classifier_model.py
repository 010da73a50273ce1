"""A sequence classifier: what it reads of a prompt and an answer, how it is loaded, and its logits in batches.

A template says in what form the two are given:

`chat`      the classifier's chat template, the answer as the assistant's last turn
`pair`      two texts: the prompt, and the answer
`answer`    the answer alone
`hh`        two texts: "\\n\\nHuman: PROMPT \\n\\nAssistant:", as HH-RLHF spells conversations, and the answer
`auto`      `chat` if there is a chat template, else `pair`
otherwise   a text with {answer} and {prompt} in it, or a list of two for a text pair

In a text of one's own, `{prompt}` is the conversation's messages, one paragraph each.
"""

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
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from pad_cli.errors import ModelLoadError, PadError
from pad_cli.models.dtype import choose_dtype
from pad_cli.models.language_model import context_length
from pad_cli.models.loading import own_dtype
from pad_cli.models.prompts import render
from pad_cli.records import Messages
from pad_cli.system.offline import hub_hint
from pad_cli.system.progress import stage

_TEMPLATES: Mapping[str, tuple[str, ...]] = {"pair": ("{prompt}", "{answer}"), "answer": ("{answer}",)}
_NAMES = ("auto", "chat", "hh", *_TEMPLATES)
_SLOT = re.compile(r"\{(prompt|answer)\}")
_HH_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
_HEAD = "score"  # what transformers calls the last linear layer of a decoder that classifies


class Text(NamedTuple):
    """What is tokenized: one text, or a pair; `special` says whether the tokenizer adds its special tokens."""

    first: str
    second: str | None = None
    special: bool = True


def check_template(template: str | tuple[str, ...]) -> None:
    """Raises ValueError if a template is neither a known name nor a text, or two texts, with {answer} in it."""
    if isinstance(template, str):
        if template not in _NAMES and "{answer}" not in template:
            raise ValueError(f"`template` is neither one of {', '.join(_NAMES)} nor a text with {{answer}} in it")
    elif len(template) != 2 or "{answer}" not in "".join(template):
        raise ValueError("`template` is not two texts with {answer} in them")


def fill_template(template: str | tuple[str, ...], tokenizer: Any, prompt: Messages, answer: str) -> Text:
    """A prompt and an answer in the form of a template.

    Raises:
        ModelLoadError: the template is `chat`, and the tokenizer has none.
        DataError: the chat template refuses the conversation.
    """
    if template == "auto":
        template = "chat" if tokenizer.chat_template else "pair"
    if template == "chat":
        if not tokenizer.chat_template:
            raise ModelLoadError(
                "The classifier's tokenizer has no chat template.", "Give another `template`: pair, hh, or a text."
            )
        return Text(render(tokenizer, (*prompt, {"role": "assistant", "content": answer}), prompt=False), special=False)
    if template == "hh":
        turns = ((_HH_SPEAKERS.get(turn["role"], turn["role"].title()), turn["content"].strip()) for turn in prompt)
        spelled = "".join(f"\n\n{speaker}: {content}" for speaker, content in turns)
        return Text(f"{spelled} \n\nAssistant:", answer)
    parts = _TEMPLATES.get(template, (template,)) if isinstance(template, str) else template
    values = {"prompt": "\n\n".join(message["content"] for message in prompt), "answer": answer}
    first, *second = (_SLOT.sub(lambda slot: values[slot[1]], part) for part in parts)
    return Text(first, second[0] if second else None)


class Reading(NamedTuple):
    """A classifier's outputs for one text, and whether it read only a part of it."""

    logits: tuple[float, ...]
    truncated: bool


@dataclass(frozen=True)
class Classifier:
    """A classifier with its tokenizer; a text is read once, whichever of its outputs are asked for.

    Attributes:
        model: the transformers model.
        tokenizer: its tokenizer.
        longest: tokens that it can read.
        padding: its padding token, or None.
        readings: of earlier texts.
    """

    model: Any
    tokenizer: Any
    longest: int
    padding: int | None
    readings: dict[tuple[Text, int], Reading] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The names of its outputs, as its configuration has them."""
        return [name for _, name in sorted(self.model.config.id2label.items())]

    def read(self, texts: Sequence[Text], max_tokens: int | None) -> list[Reading]:
        """Read one batch of texts; a long one is cut at its end (of a pair, the longer text is).

        Raises:
            ValueError: a text has no tokens.
        """
        limit = min(max_tokens or self.longest, self.longest)
        new = list(dict.fromkeys(text for text in texts if (text, limit) not in self.readings))
        if new:
            inputs, truncated = zip(*(self._encoded(text, limit) for text in new), strict=True)
            for text, logits, cut in zip(new, self._forward(inputs), truncated, strict=True):
                self.readings[text, limit] = Reading(tuple(logits), cut)
        return [self.readings[text, limit] for text in texts]

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
        """Logits of a batch, padded on the right: a causal model never sees the padding, others have the mask."""
        ids = [row["input_ids"] for row in rows]
        inputs = {
            "input_ids": self._padded(ids, self._padding_of(ids)),
            "attention_mask": self._padded([[1] * len(row) for row in ids], 0),
        }
        if "token_type_ids" in rows[0] and getattr(self.model.config, "type_vocab_size", 0) > 1:
            inputs["token_type_ids"] = self._padded([row["token_type_ids"] for row in rows], 0)
        logits: torch.Tensor = self.model(**inputs).logits.float()
        numbers: list[list[float]] = (logits if logits.ndim == 2 else logits[:, None]).tolist()
        return numbers

    def _padded(self, rows: Sequence[list[int]], value: int) -> torch.Tensor:
        return pad_sequence([torch.tensor(row) for row in rows], True, value).to(self.model.device)

    def _padding_of(self, rows: Sequence[list[int]]) -> int:
        """The padding token; a decoder's score is read at the last token that is another one.

        A model without a padding token gets one that these rows do not contain. The end of sequence, which is often
        used instead, may be the very token that the score is read at.
        """
        if self.padding is not None:
            return self.padding
        used = {token for row in rows for token in row}
        free = next(token for token in range(len(used) + 1) if token not in used)
        self.model.config.get_text_config().pad_token_id = free
        return free


@functools.lru_cache(maxsize=1)
def load_classifier(
    model: str, revision: str | None, dtype: str, device: str, head: str | None, outputs: int, trust_remote_code: bool
) -> Classifier:
    """Load a classifier; the last one stays in memory, because scorers that share it follow each other.

    Args:
        model: directory, or id on the hub.
        revision: branch, tag or commit there.
        dtype: of the weights; `auto` for its own if the device is fast in it.
        device: of the model.
        head: name of the last linear layer of a decoder, if the checkpoint does not call it `score`.
        outputs: number of outputs; 0 for what its configuration says.
        trust_remote_code: run the code that comes with it.

    Raises:
        ModelLoadError: it is missing, damaged, or no trained classifier.
    """
    shared = {"revision": revision, "trust_remote_code": trust_remote_code}
    options: dict[str, Any] = {}
    if trust_remote_code:
        options["code_revision"] = revision  # else code of another repository would come unpinned
    if head is not None:
        options["key_mapping"] = {rf"^{re.escape(head)}\.": f"{_HEAD}."}
    if outputs:
        options["num_labels"] = outputs
    with stage(f"Loading {model}"), _load_errors(model), _quiet():
        tokenizer = AutoTokenizer.from_pretrained(model, **shared)
        options["dtype"] = getattr(torch, dtype, None)
        if dtype == "auto":
            own = own_dtype(AutoConfig.from_pretrained(model, **shared))
            options["dtype"] = "auto" if own is None else choose_dtype(own, torch.device(device)).dtype
        network, report = AutoModelForSequenceClassification.from_pretrained(
            model, **shared, **options, output_loading_info=True
        )
        if missing := sorted(report["missing_keys"]):
            raise ModelLoadError(
                f"'{model}' is no trained classifier: it lacks {missing[0]}.",
                "Name a sequence classifier or reward model; `head` names its last layer if that has another name.",
            )
        network = network.eval().requires_grad_(False).to(device)
    longest = int(min(tokenizer.model_max_length, context_length(network) or sys.maxsize))
    return Classifier(network, tokenizer, longest, network.config.get_text_config().pad_token_id)


@contextlib.contextmanager
def _load_errors(model: str) -> Iterator[None]:
    """Turn what transformers raises into a ModelLoadError."""
    try:
        yield
    except PadError:
        raise
    except Exception as error:  # a damaged file may raise anything, a tokenizer's a bare Exception
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        hint = "It needs config.json, safetensors weights and a tokenizer; a hub id needs the network."
        if not Path(model).exists():
            hint = hub_hint(hint, f"hf download {model}")
        raise ModelLoadError(f"Cannot load a classifier from '{model}': {reason}", hint) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def file_state(location: str) -> Any:
    """Names, sizes and times of the files of a local model, for a scorer's key; nothing for one on the hub.

    Scores of a model that has changed on the disk are no longer its scores; on the hub the revision is an option.
    """
    path = Path(location)
    files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return [[file.name, (stat := file.stat()).st_size, stat.st_mtime_ns] for file in files if file.is_file()]
