"""Tiny sequence classifiers of several architectures, saved as users have them, and what they are asked to score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    RobertaConfig,
)

from pad_cli.decoding.engine import PadEngine
from pad_cli.evaluation.contract import Answer, EvalContext
from pad_cli.models.language_model import LanguageModel
from pad_cli.records import BenchmarkItem, as_messages
from tests.tiny import make_tokenizer

LONGEST = 96
ANSWERS = (
    ("Why?", "Because."),
    ("How do I bake bread?", "Mix flour and water, wait, and bake it."),
    ("Hi", "Hello {prompt}!"),
    ("Name a river {answer}.", " The Nile"),
)
_SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_KINDS: dict[str, tuple[type, dict[str, Any]]] = {
    "gpt2": (GPT2Config, _SIZES),
    "gpt2-padded": (GPT2Config, {**_SIZES, "pad_token_id": 0}),
    "llama": (LlamaConfig, {**_SIZES, "intermediate_size": 32, "num_key_value_heads": 1}),
    "bert": (BertConfig, {**_SIZES, "intermediate_size": 32, "pad_token_id": 0}),
    "roberta": (RobertaConfig, {**_SIZES, "intermediate_size": 32, "pad_token_id": 0}),
    "distilbert": (DistilBertConfig, {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "pad_token_id": 0}),
}
KINDS = tuple(_KINDS)


def make_classifier(directory: Path, kind: str, *, labels: int = 1, chat: bool = False, seed: int = 0) -> Path:
    """Save a random classifier; GPT-2 and Llama come without a padding token, as reward models often do."""
    config_type, extra = _KINDS[kind]
    tokenizer = make_tokenizer(chat=chat)
    if config_type in (BertConfig, RobertaConfig, DistilBertConfig):
        one, two = "<user> $A <end>", "<user> $A <end> $B:1 <end>:1"
        specials = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<user>", "<end>")]
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=one, pair=two, special_tokens=specials)
    elif kind != "gpt2-padded":
        tokenizer.pad_token = None
    extra = {"pad_token_id": None, **extra}
    torch.manual_seed(seed)
    config = config_type(
        vocab_size=len(tokenizer),
        max_position_embeddings=LONGEST,
        bos_token_id=None,
        eos_token_id=None,
        num_labels=labels,
        id2label={number: f"label {number}" for number in range(labels)},
        **extra,
    )
    model = AutoModelForSequenceClassification.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter) + (1.0 if parameter.ndim == 1 else 0.0))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_subject(policy: LanguageModel) -> EvalContext:
    return EvalContext("tiny", PadEngine(policy))


def make_samples(answers: tuple[tuple[str, str], ...] = ANSWERS) -> list[Answer]:
    return [
        Answer(BenchmarkItem(str(number), "single", "x", as_messages(prompt), ("x",)), text)
        for number, (prompt, text) in enumerate(answers)
    ]
