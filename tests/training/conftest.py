"""A small separable task: answers hold `x` or `y`, one preference wants `x`, the other `y`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pad_cli.models.adapter import Adapter
from pad_cli.models.heads import PreferenceEncoder, PreferenceHeads
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.scoring import TokenSequence
from pad_cli.recipe import EncoderStage, HeadsStage, TrainRecipe
from pad_cli.training.hidden_cache import HiddenStateExtractor, build_hidden_cache
from pad_cli.training.stages import CachedData, new_encoder
from pad_cli.training.token_rewards import TokenRewards

LETTERS = {"exes": "x", "whys": "y"}
TEXTS = {"exes": ["write crosses", "x marks the spot", "the last but two"], "whys": ["ask why", "a fork", "question"]}
STAGE = {"steps": 60, "batch_size": 24, "learning_rate": 0.03, "warmup_steps": 5}
MakeRecipe = Callable[..., TrainRecipe]


def make_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Preference pairs; both answers hold the same random letters apart from the one that matters."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        name = ("exes", "whys")[number % 2]
        other = ({*LETTERS} - {name}).pop()
        letters = [rng.choice("abcdef") for _ in range(3)]
        place = rng.randrange(4)
        chosen, rejected = (
            "".join([*letters[:place], LETTERS[of], LETTERS[of], *letters[place:]]) for of in (name, other)
        )
        prompt = f"Write {rng.choice('abcdefgh')}{rng.randrange(10)}"
        rows.append({"prompt": prompt, "preference": name, "chosen": chosen, "rejected": rejected})
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def make_rewards(
    backbone: LanguageModel,
    sequences: Sequence[TokenSequence],
    directory: Path,
    candidates: int | None = None,
    adapter: Adapter | None = None,
) -> TokenRewards:
    """Token rewards over some sequences; exact when `candidates` is None."""
    corpus = torch.tensor(sorted({token for _, answer in sequences for token in answer}))
    reader = HiddenStateExtractor(
        backbone, adapter, torch.float32, None if candidates is None else corpus, candidates or 1
    )
    cache = build_hidden_cache(sequences, reader, directory)
    return TokenRewards(cache, backbone.head, candidates is None, adapter is not None)


def train_heads(stage: HeadsStage, heads: PreferenceHeads, data: CachedData) -> list[dict[str, Any]]:
    return data.train(stage, heads, heads, data.pairs.weights(heads.names).__getitem__)


def train_encoder(
    stage: EncoderStage,
    heads: PreferenceHeads,
    backbone: LanguageModel,
    texts: Mapping[str, list[str]],
    data: CachedData,
) -> tuple[PreferenceEncoder, list[dict[str, Any]]]:
    encoder, weights_of = new_encoder(stage, heads.names, backbone, texts, data.pairs, data.seed)
    history = data.train(stage, heads, encoder, weights_of)
    return encoder.eval(), history


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PAD_HOME of this test alone, so that nothing is found from another test."""
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def make_recipe(model_directory: Path, tmp_path: Path) -> MakeRecipe:
    """Recipes on the small task; keywords replace keys, `data` keys are merged."""
    train = write_rows(tmp_path / "train.jsonl", make_rows(96, seed=1))
    held_out = write_rows(tmp_path / "held_out.jsonl", make_rows(60, seed=2))

    def make(data: dict[str, Any] | None = None, **changed: Any) -> TrainRecipe:
        content: dict[str, Any] = {
            "kind": "train-rm",
            "output": str(tmp_path / "run"),
            "backbone": {"model": str(model_directory), "device": "cpu"},
            "data": {"train": train, "validation": {"held_out": held_out}, **(data or {})},
            "heads": {"rank": 2},
            "stages": [{"stage": "heads", **STAGE}],
        }
        return TrainRecipe.model_validate({**content, **changed})

    return make
