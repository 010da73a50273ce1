"""The stages that train on cached hidden states: `heads` (the features) and `encoder` (free text to weights)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import nn

from pad_cli.errors import RecipeError, TrainingError
from pad_cli.models.encoder import PreferenceEncoder, text_states
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel
from pad_cli.progress import bar
from pad_cli.recipe import EncoderStage, HeadsStage
from pad_cli.training.losses import preference_loss
from pad_cli.training.pair_table import PairTable
from pad_cli.training.token_rewards import TokenRewards

Weigh = Callable[[torch.Tensor], torch.Tensor]
"""(B,) numbers of pairs to their (B, K) weights."""


def train_heads(stage: HeadsStage, heads: PreferenceHeads, rewards: TokenRewards, pairs: PairTable, seed: int) -> None:
    """Stage `heads`: learn A_k and B_k; the weights w_p are the pairs' own. Moves `heads` only."""
    weights = pairs.weights(heads.names)
    _fit("Training heads", stage, heads.parameters(), heads, rewards, pairs, lambda batch: weights[batch], seed)


def train_encoder(
    stage: EncoderStage,
    heads: PreferenceHeads,
    backbone: LanguageModel,
    rewards: TokenRewards,
    pairs: PairTable,
    texts: Mapping[str, Sequence[str]],
    seed: int,
) -> PreferenceEncoder:
    """Stage `encoder`: learn g so that w_p = sum over a preference's principles of weight * g(a wording of it).

    Every time a pair is seen, its principles get fresh wordings. Heads and backbone stay as they are.

    Raises:
        RecipeError: a principle has no wordings.
    """
    lacking = [name for name in heads.names if not texts.get(name)]
    if lacking:
        raise RecipeError(
            f"data.texts: no wordings for {', '.join(lacking)}; the encoder stage needs some for every principle.",
            "Add them under data.texts, or leave the encoder stage out.",
        )
    torch.manual_seed(seed)
    encoder = PreferenceEncoder(backbone.hidden_size, stage.hidden_size, len(heads.names), stage.dropout)
    wordings = [(name, text) for name in heads.names for text in dict.fromkeys([name, *texts[name]])]
    states = text_states(backbone, [text for _, text in wordings])
    encoder.standardise(states)
    of_principle = {name: [i for i, (owner, _) in enumerate(wordings) if owner == name] for name in heads.names}
    rng = random.Random(seed)

    def weigh(batch: torch.Tensor) -> torch.Tensor:
        clauses = [(row, n, w) for row, pair in enumerate(batch.tolist()) for n, w in pairs.preferences[pair].items()]
        chosen = torch.tensor([rng.choice(of_principle[name]) for _, name, _ in clauses])
        signs = torch.tensor([weight for _, _, weight in clauses])
        rows = torch.tensor([row for row, _, _ in clauses])
        table = torch.zeros(len(batch), len(heads.names))
        return table.index_add(0, rows, encoder(states[chosen]) * signs[:, None])

    _fit("Training encoder", stage, encoder.parameters(), heads, rewards, pairs, weigh, seed)
    return encoder.eval().requires_grad_(False)


def _fit(
    name: str,
    stage: HeadsStage | EncoderStage,
    parameters: Iterable[nn.Parameter],
    heads: PreferenceHeads,
    rewards: TokenRewards,
    pairs: PairTable,
    weigh: Weigh,
    seed: int,
) -> None:
    """AdamW over `parameters` with warm-up and a cosine, clipped at norm 1."""
    trained = [parameter.requires_grad_(True) for parameter in parameters]
    total = stage.steps or math.ceil((stage.epochs or 1) * len(pairs) / stage.batch_size)
    optimiser = torch.optim.AdamW(trained, stage.learning_rate, betas=(0.9, 0.99), weight_decay=stage.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, stage.warmup_steps, total))
    with bar(name, total=total) as progress:
        for step, batch in zip(range(total), _batches(len(pairs), stage.batch_size, seed), strict=False):
            chosen, rejected = _sums(heads, rewards, pairs, batch, weigh(batch))
            loss = preference_loss(chosen, rejected, beta=stage.beta, anchor=stage.anchor)
            if not torch.isfinite(loss):
                raise TrainingError(
                    f"{name}: the loss is {loss.item()} at step {step + 1} of {total}.",
                    "Lower the learning rate, or look for extreme weights in the preferences.",
                )
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            rate.step()
            accuracy = (chosen > rejected).float().mean().item()
            progress.advance(status=f"loss {loss.item():.3f}  accuracy {accuracy:.2f}")
    for parameter in trained:
        parameter.requires_grad_(False)


def _sums(
    heads: PreferenceHeads, rewards: TokenRewards, pairs: PairTable, batch: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed token rewards (B,) of the chosen and of the rejected answers of a batch."""
    answers = torch.cat([pairs.chosen[batch], pairs.rejected[batch]])
    positions, owners = rewards.cache.positions(answers)
    tokens = rewards.rewards(heads, positions, torch.cat([weights, weights])[owners])
    sums = torch.zeros(len(answers)).index_add(0, owners, tokens)
    return sums[: len(batch)], sums[len(batch) :]


def _batches(count: int, size: int, seed: int) -> Iterator[torch.Tensor]:
    """Endless batches; each pass over the pairs is in a new random order."""
    generator = torch.Generator().manual_seed(seed)
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < size:
            left = torch.cat([left, torch.randperm(count, generator=generator)])
        yield left[:size]
        left = left[size:]


def _rate(step: int, warmup: int, total: int) -> float:
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
