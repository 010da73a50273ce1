"""SmolLM2-135M-Instruct and the reward model for it that ships. Run with `make test-slow`, which installs the model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from pad_cli.cli.main import app
from pad_cli.decoding.engine import PadEngine
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.language_model import LanguageModel, load_language_model
from pad_cli.preference import Preference
from pad_cli.recipe import GenerateRecipe, ModelSettings, TrainRecipe, read_recipe
from pad_cli.registry import resolve_model
from pad_cli.training.train import train_reward_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(6000)]

PROMPTS = ["What should I do on a rainy day?", "How do I start with chess?", "What is a good breakfast?"] * 4
PIRATE = re.compile(r"\b(?:arr+|aye|ahoy|matey|ye|yer|cap'n|captain|treasure|sail)\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_language_model(ModelSettings(model="smollm2"))


def test_a_policy_named_alone_is_steered_by_its_own_reward_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        app(["generate", PROMPTS[0], "--policy", "smollm2", "--pref", "pirate", "--compare", "--json", "--quiet"])
    assert ended.value.code == 0
    row = json.loads(capsys.readouterr().out)
    assert len(PIRATE.findall(row["text"])) > len(PIRATE.findall(row["base"]))


def test_a_principle_shows_more_with_the_guidance_weight(model: LanguageModel) -> None:
    recipe = read_recipe("smollm2-generate")
    assert isinstance(recipe, GenerateRecipe)
    engine = PadEngine(model, load_reward_model(recipe.reward_model, backbone=model))
    counts = []
    for weight in (-1.0, 0.0, 1.0, 3.0):
        answers = engine.generate(PROMPTS, [Preference({"pirate": 1.0}, {})] * 12, recipe.decoding, [weight] * 12)
        counts.append(sum(len(PIRATE.findall(answer.text)) for answer in answers))
    assert counts == sorted(counts)
    assert counts[-1] > 4 * counts[1] + 8


def test_the_demo_ends_with_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        app(["demo", "--quiet"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.index("report.html") < shown.index("smollm2 alone") < shown.index("Next:")
    rows = [json.loads(line) for line in Path("runs/demo/real-examples.jsonl").read_text().splitlines()]
    assert {row["policy"] for row in rows} == {"smollm2"}
    assert len({row["pad"] for row in rows}) == len(rows)


def test_its_recipe_makes_the_shipped_heads_again(
    model: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another processor samples other answers: the rewards that heads give to tokens agree, not the heads."""
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "home"))
    recipe = read_recipe(str(Path(resolve_model("smollm2/reward-model")) / "recipe.json"))
    assert isinstance(recipe, TrainRecipe)
    train_reward_model(recipe.model_copy(update={"output": str(tmp_path / "rm")}))
    shipped, made = (
        load_reward_model(place, backbone=model) for place in ("smollm2/reward-model", str(tmp_path / "rm"))
    )
    assert made.principles == shipped.principles
    assert made.calibration == pytest.approx(shipped.calibration, rel=0.2)
    tokens = torch.tensor(model.tokenizer("The sea is wide, and so is the sky above it. Go and see them!")["input_ids"])
    states = model.model(input_ids=tokens[None], output_hidden_states=True).hidden_states[-1][0]
    for number, name in enumerate(shipped.principles):
        pushes = [
            (each.heads.up[number] @ (each.heads.down[number] @ states.T)).T @ model.head.weight.T
            for each in (shipped, made)
        ]
        first, second = (push - push.mean(1, keepdim=True) for push in pushes)
        assert torch.cosine_similarity(first.flatten(), second.flatten(), dim=0) > 0.7, name
