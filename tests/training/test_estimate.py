"""A dry run measures a few pairs, multiplies by what there is, and leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pad_cli.errors import ModelLoadError, UsageError
from pad_cli.models.language_model import load_language_model
from pad_cli.training import estimate as module
from pad_cli.training.estimate import estimate
from pad_cli.training.pair_table import TrainingData, gather_training_data
from pad_cli.training.train import read_pairs, train_reward_model
from tests.training.conftest import STAGE, TEXTS, MakeRecipe

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

ADAPTER = {"stage": "adapter", "steps": 7, "batch_size": 2, "accumulation_steps": 3, "lora_rank": 2}


@pytest.fixture
def data(make_recipe: MakeRecipe) -> TrainingData:
    recipe = make_recipe()
    return gather_training_data(recipe, read_pairs(recipe)[0], load_language_model(recipe.backbone))


def test_a_dry_run_counts_steps_tokens_and_bytes_and_writes_nothing(
    make_recipe: MakeRecipe, data: TrainingData, own_cache: Path
) -> None:
    recipe = make_recipe(stages=[{"stage": "heads", **STAGE}])
    found = estimate(recipe)
    assert (found.pairs, found.answers) == (len(data.train), len(data.sequences))
    assert found.parameters == data.backbone.model.num_parameters()
    assert found.dtype == "float32"
    assert 0 <= found.weights - 4 * found.parameters < 1000  # buffers
    assert [(work.name, work.steps) for work in found.work] == [("caching states", 0), ("heads", STAGE["steps"])]
    reading, heads = found.work
    assert reading.tokens == sum(len(prompt) + len(answer) for prompt, answer in data.sequences)
    assert heads.tokens == round(60 * 2 * 24 * reading.tokens / len(data.sequences))
    assert all(work.seconds > 0 and work.memory is None for work in found.work)
    states = 4 * (data.backbone.hidden_size + 1) * sum(len(answer) for _, answer in data.sequences)
    assert 0.5 * states < found.disk < 2 * states
    assert not (own_cache / "hidden-states").exists()
    assert not Path(recipe.output).exists()


def test_reading_under_instructions_is_counted(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = [f"{name}:\n  instruction: Write {name}.\n" for name in ("exes", "whys")]
    Path("principles.yaml").write_text("".join(entries), encoding="utf-8")
    recipe = make_recipe(stages=[{"stage": "distil", "epochs": 2, "batch_size": 8}])
    _, reading, distil = estimate(recipe).work
    trained = train_reward_model(recipe).record["stages"][0]
    assert (reading.name, reading.steps) == ("reading under instructions", 0)
    assert reading.tokens > 0
    assert (distil.name, distil.steps) == ("distil", trained["steps"])


def test_pairs_that_are_yet_to_be_written_have_no_estimate(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(data={"train": None, "source": "contrast"}, heads={"principles": ["formal"]})
    with pytest.raises(UsageError, match="are not written yet"):
        estimate(recipe)


def test_every_kind_of_work_is_measured_in_its_order(make_recipe: MakeRecipe) -> None:
    encoder = {"stage": "encoder", **STAGE, "hidden_size": 8}
    recipe = make_recipe(data={"texts": TEXTS}, stages=[ADAPTER, {"stage": "heads", "epochs": 2}, encoder])
    found = estimate(recipe)
    assert [(work.name, work.steps) for work in found.work] == [
        ("reading for adapter", 0),
        ("adapter", 7),
        ("caching states through the adapter", 0),
        ("heads", 2),
        ("encoder", 60),
    ]


def test_an_adapter_alone_caches_no_states(make_recipe: MakeRecipe) -> None:
    assert estimate(make_recipe(stages=[ADAPTER])).disk == 0


def test_a_few_pairs_keep_their_answers(data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAIRS", 5)
    sample = module._draw(data, tmp_path)

    def answers(some: TrainingData) -> list[tuple[object, object]]:
        both = zip(some.train.chosen.tolist(), some.train.rejected.tolist(), strict=True)
        return [(some.sequences[chosen], some.sequences[rejected]) for chosen, rejected in both]

    assert len(sample.train) == 5
    assert set(answers(sample)) <= set(answers(data))
    assert module._draw(replace(data, seed=data.seed), tmp_path).sequences == sample.sequences


@pytest.mark.parametrize("model", ["owner/name", "missing-directory", "weights.gguf"])
def test_a_backbone_that_cannot_be_had_is_a_clear_error(make_recipe: MakeRecipe, model: str) -> None:
    with pytest.raises(ModelLoadError, match=model) as caught:
        estimate(make_recipe(backbone={"model": model}))
    assert caught.value.hint
