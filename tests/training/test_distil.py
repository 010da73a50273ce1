"""Stage `distil`: heads that give, without an instruction, what the instruction makes of the next token."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pad_cli.equation import distillation_loss
from pad_cli.errors import RecipeError
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.scoring import answer_states
from pad_cli.principles import instructed
from pad_cli.records import as_messages
from pad_cli.training.train import train_reward_model
from tests.tiny import make_tokenizer
from tests.training.conftest import MakeRecipe, make_rows, write_rows

TOLD = {"exes": "Write crosses, all of them x.", "whys": "Ask why, and why again."}
USED = make_tokenizer()("abcdefxy<end>")["input_ids"]
"""What answers consist of: the heads learn about these tokens."""
STAGE = {"stage": "distil", "steps": 150, "batch_size": 16, "learning_rate": 0.02, "warmup_steps": 5}


@pytest.fixture(autouse=True)
def _principles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opposite = "  opposite: Write noughts.\n"
    texts = [f"{name}:\n  instruction: {text}\n{opposite * (name == 'exes')}" for name, text in TOLD.items()]
    Path("principles.yaml").write_text("".join(texts), encoding="utf-8")


def logits_of(model: LanguageModel, prompt: Any, answer: str) -> tuple[torch.Tensor, torch.Tensor]:
    """States and logits of an answer's tokens, read the long way."""
    tokenizer = model.tokenizer
    states = answer_states(model, [(tuple(encode_prompt(tokenizer, prompt)), tuple(encode_answer(tokenizer, answer)))])
    return states, model.head(states)[:, USED]


def divergences(directory: Path, name: str, instruction: str, rows: Sequence[Any], sign: int = 1) -> list[float]:
    """Mean KL from the instructed model: of the plain model, and of the steered one.

    Calibration has changed the heads' strength: that which comes nearest counts.
    """
    found = [divergence(directory, name, instruction, rows, sign * weight) for weight in (0, 1, 2, 4, 8, 16)]
    return [found[0], min(found[1:])]


def divergence(directory: Path, name: str, instruction: str, rows: Sequence[Any], weight: float) -> float:
    model = load_reward_model(str(directory))
    backbone, heads = model.backbone, model.heads
    weights = torch.zeros(1, len(heads.names))
    weights[0, heads.names.index(name)] = weight
    total = 0.0
    for row in rows:
        prompt = as_messages(row["prompt"])
        states, _ = logits_of(backbone, prompt, row["chosen"])
        _, told = logits_of(backbone, instructed(prompt, instruction), row["chosen"])
        steered = backbone.head(states + heads(states, weights.expand(len(states), -1)))[:, USED]
        total += float(distillation_loss(steered, told).mean())
    return total / len(rows)


def test_the_heads_come_nearer_to_the_instructed_model_on_answers_that_they_have_not_seen(
    make_recipe: MakeRecipe,
) -> None:
    trained = train_reward_model(make_recipe(stages=[STAGE], heads={"rank": 8}))
    for name, instruction in TOLD.items():
        rows = [row for row in make_rows(60, seed=2) if row["preference"] == name]
        plain, steered = divergences(trained.path, name, instruction, rows)
        assert steered < 0.6 * plain
        other = next(each for each in TOLD if each != name)
        assert divergences(trained.path, other, instruction, rows)[1] > 1.2 * steered
    (stage,) = trained.record["stages"]
    assert stage["name"] == "distil"
    assert stage["history"][-1]["loss"] < 0.7 * stage["history"][0]["loss"]


def test_less_of_a_principle_is_learned_from_the_instruction_of_its_opposite(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    rows = [{**row, "preference": {row["preference"]: -1}} for row in make_rows(96, seed=1)]
    data = {"train": write_rows(tmp_path / "negative.jsonl", rows), "validation": {}}
    trained = train_reward_model(make_recipe(data, stages=[STAGE], heads={"rank": 8, "principles": list(TOLD)}))
    asked = [row for row in make_rows(60, seed=2) if row["preference"] == "exes"]
    plain, steered = divergences(trained.path, "exes", "Write noughts.", asked, -1)
    assert steered < 0.6 * plain


def test_more_contrast_takes_the_target_further(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Without calibration in the way: the raw heads of a doubled contrast change more than those of a single one."""
    losses = [
        train_reward_model(
            make_recipe(stages=[{**STAGE, "contrast": contrast, "steps": 1}], output=str(tmp_path / f"{contrast}"))
        ).record["stages"][0]["history"][0]["loss"]
        for contrast in (1.0, 2.0)
    ]
    assert losses[1] > 2 * losses[0]  # the first step's loss is that of heads that change nothing


def test_pairs_without_a_single_principle_cannot_be_distilled(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    rows = [{**row, "preference": {"exes": 1, "whys": 1}} for row in make_rows(8, seed=1)]
    data = {"train": write_rows(tmp_path / "both.jsonl", rows), "validation": {}}
    with pytest.raises(RecipeError, match="ask for one principle"):
        train_reward_model(make_recipe(data, stages=[STAGE]))


def test_an_adapter_cannot_come_before_it(make_recipe: MakeRecipe) -> None:
    with pytest.raises(ValueError, match="`distil` needs a backbone without LoRA weights"):
        make_recipe(stages=[{"stage": "adapter", "steps": 1}, STAGE])


def test_another_instruction_is_another_run(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(stages=[{**STAGE, "steps": 2}])
    first = train_reward_model(recipe).record
    assert train_reward_model(recipe).record == first
    file = Path("principles.yaml")
    file.write_text(file.read_text(encoding="utf-8").replace("crosses", "kisses"), encoding="utf-8")
    assert train_reward_model(recipe).record["stages"][0]["history"] != first["stages"][0]["history"]
