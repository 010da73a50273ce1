"""A small user's world on disk: models, data, recipes, and a finished evaluation of them."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pad_cli.models.checkpoint import save_reward_model
from pad_cli.recipe import ModelSettings
from tests.tiny import make_reward_model
from tests.training.conftest import make_rows, write_rows


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine may be reached."""
    connect = socket.socket.connect

    def local(self: socket.socket, address: Any) -> None:
        assert not isinstance(address, tuple) or address[0] in ("127.0.0.1", "::1"), "a test tried to reach the network"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)


@dataclass(frozen=True)
class World:
    """Where things are; `commands` work on all of them, one after the other, and name no hub id and no endpoint."""

    root: Path
    policy: Path
    guide: Path

    def recipe(self, name: str, content: Mapping[str, Any]) -> str:
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(content)), encoding="utf-8")
        return str(path)

    @property
    def models(self) -> list[str]:
        return ["--policy", str(self.policy), "--reward-model", str(self.guide)]

    def train(self) -> list[str]:
        content = {
            "kind": "train-rm",
            "output": str(self.root / "trained"),
            "backbone": {"model": str(self.policy)},
            "data": {"train": write_rows(self.root / "pairs.jsonl", make_rows(40, 0)), "validation_share": 0.2},
            "stages": [{"stage": "heads", "steps": 4, "batch_size": 8}],
            "heads": {"rank": 2},
        }
        return ["train-rm", self.recipe("train", content)]

    def evaluate(self, **further: Any) -> list[str]:
        prompts = self.root / "prompts.jsonl"
        prompts.write_text('{"prompt": "How?"}\n{"prompt": "Why?"}\n', encoding="utf-8")
        options = {"path": str(prompts), "preferences": ["humorous", "formal"]}
        content = {
            "kind": "eval",
            "output": str(self.root / "run"),
            "policies": {"home": {"model": str(self.policy)}},
            "reward_model": str(self.guide),
            "benchmarks": [{"benchmark": "jsonl", "options": options}],
            "scorers": ["words"],
            "decoding": {"max_new_tokens": 6},
            "resamples": 100,
            **further,
        }
        return ["eval", self.recipe("eval", content)]

    def commands(self) -> list[list[str]]:
        return [
            ["recipe", "list"],
            ["generate", "Hi", *self.models, "-p", "humorous", "--max-new-tokens", "4"],
            ["inspect", str(self.guide), "--policy", str(self.policy)],
            ["prefs", "list", "--reward-model", str(self.guide)],
            self.train(),
            self.evaluate(),
            ["export", "--out", str(self.root / "exported"), "-p", "humorous", *self.models],
        ]


@pytest.fixture
def world(policy: Any, model_directory: Path, tmp_path: Path) -> World:
    guide = tmp_path / "guide"
    guide.mkdir()
    save_reward_model(make_reward_model(policy), guide, ModelSettings(model=str(model_directory)))
    return World(tmp_path, model_directory, guide)


def rows_of(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]
