"""A small causal language model from documents: how the embedded world's policies are trained."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM

_CHUNK = 1024  # documents that are sorted by length together
_WARMUP = 30


@dataclass(frozen=True)
class PretrainPlan:
    """Size and training of a small Llama; small ones need a larger `initial_std`, and `batch_tokens` count padding."""

    hidden_size: int
    layers: int
    heads: int
    learning_rate: float
    initial_std: float
    steps: int
    batch_tokens: int = 768
    seed: int = 0


Tokens = tuple[Sequence[int], Sequence[int]]
"""(prompt tokens, answer tokens); only the answer is learned."""


def pretrain(
    plan: PretrainPlan,
    vocabulary_size: int,
    pad_token: int,
    end_token: int,
    documents: Sequence[Tokens],
) -> LlamaForCausalLM:
    """Train a Llama with tied embeddings on the answers of some documents."""
    torch.manual_seed(plan.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary_size,
            hidden_size=plan.hidden_size,
            intermediate_size=8 * round(plan.hidden_size / 3),
            num_hidden_layers=plan.layers,
            num_attention_heads=plan.heads,
            num_key_value_heads=plan.heads,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            initializer_range=plan.initial_std,
            pad_token_id=pad_token,
            eos_token_id=end_token,
            bos_token_id=None,
        )
    )
    optimiser = torch.optim.AdamW(model.parameters(), plan.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, plan.steps))
    for _, batch in zip(range(plan.steps), _batches(documents, plan.batch_tokens, plan.seed), strict=False):
        tokens, learned = _tensors(batch, pad_token)
        hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden[learned])
        loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:][learned])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        schedule.step()
    return model.eval()


def _rate(step: int, total: int) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * step / total))
    return max(min(1.0, (step + 1) / _WARMUP) * cosine, 0.02)


def _batches(documents: Sequence[Tokens], batch_tokens: int, seed: int) -> Iterator[list[Tokens]]:
    """Endless batches of documents of similar length; each pass is in a new random order."""
    rng = random.Random(seed)
    while True:
        order = rng.sample(range(len(documents)), len(documents))
        batches: list[list[Tokens]] = []
        for start in range(0, len(order), _CHUNK):
            chunk = sorted((documents[i] for i in order[start : start + _CHUNK]), key=_length)
            batch: list[Tokens] = []
            for document in chunk:
                if batch and (len(batch) + 1) * _length(document) > batch_tokens:
                    batches.append(batch)
                    batch = []
                batch.append(document)
            batches.append(batch)
        rng.shuffle(batches)
        yield from batches


def _length(document: Tokens) -> int:
    return len(document[0]) + len(document[1])


def _tensors(batch: Sequence[Tokens], pad_token: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded tokens (B, T), and which of the next tokens (B, T - 1) are to be learned."""
    length = max(map(_length, batch))
    tokens = torch.full((len(batch), length), pad_token)
    learned = torch.zeros(len(batch), length - 1, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(batch):
        tokens[row, : len(prompt) + len(answer)] = torch.tensor([*prompt, *answer])
        learned[row, len(prompt) - 1 : len(prompt) + len(answer) - 1] = True
    return tokens, learned
