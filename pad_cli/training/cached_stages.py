"""The stages that train on cached hidden states: `heads` (the features) and `encoder` (free text to weights)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pad_cli.equation import answer_sums
from pad_cli.errors import RecipeError
from pad_cli.models.heads import PreferenceEncoder, PreferenceHeads, text_states
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import EncoderStage, HeadsStage
from pad_cli.training.loop import Evaluate, Score, fit
from pad_cli.training.pair_table import PairTable
from pad_cli.training.token_rewards import TokenRewards

Clause = tuple[int, str, float]
"""A row of a table, a text, and its weight in the preference of that row."""


@dataclass(frozen=True)
class CachedData:
    """What a stage on cached states works with; `snapshot` is the file that its state is saved to."""

    rewards: TokenRewards
    pairs: PairTable
    seed: int
    snapshot: Path
    evaluate: Evaluate | None = None

    def scores(
        self, heads: nn.Module, batch: torch.Tensor, weights: torch.Tensor, normalised: bool, dropout: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Summed token rewards (B,) of the chosen and of the rejected answers of a batch; means when `normalised`."""
        answers = self.pairs.answers(batch)
        positions, owners = self.rewards.cache.positions(answers)
        tokens = self.rewards.rewards(heads, positions, weights.repeat(2, 1)[owners], dropout)
        sums = answer_sums(tokens, owners, len(answers))
        if normalised:
            sums = sums / self.rewards.cache.lengths[answers]
        chosen, rejected = sums.split(len(batch))
        return chosen, rejected

    def fit(self, stage: HeadsStage | EncoderStage, module: nn.Module, score: Score) -> list[dict[str, Any]]:
        """Train all parameters of a module; returns the history."""

        def evaluate() -> dict[str, dict[str, Any]]:
            assert self.evaluate is not None
            module.eval()
            splits = self.evaluate()
            module.train()
            return splits

        groups = [(dict(module.named_parameters()), stage.learning_rate)]
        measured = None if self.evaluate is None else evaluate
        return fit(stage, groups, score, len(self.pairs), self.seed, self.snapshot, measured)


def train_heads(stage: HeadsStage, heads: nn.Module, weights: torch.Tensor, data: CachedData) -> list[dict[str, Any]]:
    """Stage `heads`: learn the features; the (N, K) weights w_p are the pairs' own. Returns the history, see `fit`."""

    def score(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return data.scores(heads, batch, weights[batch], stage.length_normalised, stage.dropout)

    return data.fit(stage, heads, score)


def train_encoder(
    stage: EncoderStage,
    heads: PreferenceHeads,
    backbone: LanguageModel,
    texts: Mapping[str, Sequence[str]],
    data: CachedData,
) -> tuple[PreferenceEncoder, list[dict[str, Any]]]:
    """Stage `encoder`: learn g so that w_p = sum over a preference's clauses of weight * g(clause).

    Every time a pair is seen, its principles get fresh paraphrases; free text stays as it is. Heads and backbone stay
    as they are.

    `texts` are the paraphrases of each principle, its name not among them. Returns the encoder, and its history.

    Raises:
        RecipeError: a principle has no paraphrases, and no pair is in free text.
    """
    names = heads.names
    free = sorted({text for row in data.pairs.texts for text in row})
    lacking = [name for name in names if not texts.get(name)]
    if lacking and not free:
        raise RecipeError(
            f"data.texts: no paraphrases for {', '.join(lacking)}; the encoder stage needs some for every principle.",
            "Add them under data.texts, or leave the encoder stage out.",
        )
    paraphrases = {name: list(dict.fromkeys([name, *texts.get(name, ())])) for name in names}
    known = list(dict.fromkeys([*(text for name in names for text in paraphrases[name]), *free]))
    place = {text: index for index, text in enumerate(known)}
    states = text_states(backbone, known)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(data.seed)
        encoder = PreferenceEncoder(backbone.hidden_size, stage.hidden_size, len(names), stage.dropout, len(known))
    owner = {text: number for number, name in enumerate(names) for text in paraphrases[name]}
    encoder.remember(states, torch.tensor([owner.get(text, -1) for text in known]))

    def score(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        clauses: list[Clause] = []
        for row, pair in enumerate(batch.tolist()):
            for name, weight in data.pairs.preferences[pair].items():
                drawn = int(torch.randint(len(paraphrases[name]), ()))
                clauses.append((row, paraphrases[name][drawn], weight))
            clauses += [(row, text, weight) for text, weight in data.pairs.texts[pair].items()]
        encoded = encoder(states[[place[text] for _, text, _ in clauses]])
        weights = add_clauses(torch.zeros(len(batch), len(names)), clauses, encoded)
        return data.scores(heads, batch, weights, stage.length_normalised)

    history = data.fit(stage, encoder, score)
    return encoder.eval(), history


def add_clauses(weights: torch.Tensor, clauses: Sequence[Clause], encoded: torch.Tensor) -> torch.Tensor:
    """(N, K) weights of preferences plus those of their clauses, encoded (C, K) each."""
    signed = encoded * torch.tensor([weight for _, _, weight in clauses])[:, None]
    return weights.index_add(0, torch.tensor([row for row, _, _ in clauses]), signed)
