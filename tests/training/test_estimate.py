"""What a recipe will cost: formulas worked by hand, sizes as the real model has them; nothing is trained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from pad_cli.errors import ModelLoadError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.loading import Outline, load_outline
from pad_cli.pairs import load_pairs
from pad_cli.recipe import ModelSettings, TrainRecipe, read_recipe, shipped_recipes
from pad_cli.training.estimate import GPUS, Device, Estimate, Volume, estimate, measure_volume, price
from tests.training.conftest import MakeRecipe

MACHINE = Device("here", 1e9)
VOLUME = Volume(
    pairs=100,
    answers=150,
    prompt_tokens=10,
    answer_tokens=30,
    longest=60,
    corpus=50,
    sampled=150,
    paraphrases=0,
    principles=2,
)
H, V, LAYERS, HEAD_WIDTH = 32, 260, 2, 32
LINEAR = LAYERS * (4 * H * H + 3 * H * 64)  # numbers in the tiny Llama's linear layers
FORWARD = 2 * LINEAR + 2 * LAYERS * 40 * HEAD_WIDTH


@pytest.fixture(scope="module")
def outline(model_directory: Path) -> Outline:
    return load_outline(ModelSettings(model=str(model_directory)))


def cost(recipe: TrainRecipe, outline: Outline) -> Estimate:
    return price(recipe, outline, VOLUME, (MACHINE, MACHINE))


def operations(recipe: TrainRecipe, outline: Outline) -> dict[str, float]:
    return {each.name: each.operations for each in cost(recipe, outline).costs}


def test_an_outline_has_the_sizes_of_the_model_and_no_weights(outline: Outline, policy: LanguageModel) -> None:
    assert outline.parameters == policy.model.num_parameters()
    assert outline.unembedding == (V, H) == (policy.vocabulary_size, policy.hidden_size)
    assert sum(before * after for before, after in outline.linears.values()) == LINEAR
    assert (outline.layers, outline.attention_width) == (LAYERS, HEAD_WIDTH)
    assert all(weight.is_meta for weight in outline.model.parameters())


def test_the_cache_reads_every_distinct_answer_once(make_recipe: MakeRecipe, outline: Outline) -> None:
    found = operations(make_recipe(), outline)["cache"]
    assert found == pytest.approx(150 * 40 * FORWARD + 2 * 150 * 30 * V * H)


def test_a_lora_stage_costs_two_forwards_a_token_and_three_with_checkpointing(
    make_recipe: MakeRecipe, outline: Outline
) -> None:
    stage: dict[str, Any] = {"stage": "adapter", "steps": 7, "batch_size": 2, "accumulation_steps": 3, "lora_rank": 4}
    visits = 7 * 3 * 2 * 2 * 40
    trained = 4 * LAYERS * (4 * 2 * H + 3 * (H + 64))
    token = 2 * FORWARD + 6 * trained + 4 * V * H * 30 / 40
    found = operations(make_recipe(stages=[stage]), outline)
    assert found["adapter"] == pytest.approx(visits * token)
    assert found["reference of adapter"] == pytest.approx(150 * 40 * FORWARD + 2 * 150 * 30 * V * H)
    again = operations(make_recipe(stages=[{**stage, "gradient_checkpointing": True}]), outline)
    assert again["adapter"] == pytest.approx(visits * (token + FORWARD))


def test_heads_are_trained_on_the_cpu_whatever_the_device(make_recipe: MakeRecipe, outline: Outline) -> None:
    recipe = make_recipe(stages=[{"stage": "heads", "epochs": 2, "batch_size": 10}])
    (_, heads) = cost(recipe, outline).costs
    tokens = 20 * 2 * 10 * 30
    assert (heads.steps, heads.operations) == (20, 0)
    assert heads.cpu_operations == pytest.approx(tokens * (4 * V * H + 12 * 2 * 2 * H))
    seconds = cost(recipe, outline).seconds
    assert {each["heads"] for each in seconds.values()} == {heads.cpu_operations / 1e9}


def test_a_large_vocabulary_costs_its_candidates_only(make_recipe: MakeRecipe, outline: Outline) -> None:
    small = cost(make_recipe(exact_vocabulary=0, normaliser_tokens=3), outline)
    large = cost(make_recipe(), outline)
    assert small.costs[1].cpu_operations < large.costs[1].cpu_operations
    assert small.disk == 150 * 30 * (4 * H + 4 * 8)
    assert large.disk == 150 * 30 * 4 * H


def test_states_through_an_adapter_are_read_twice(make_recipe: MakeRecipe, outline: Outline) -> None:
    stages = [{"stage": "adapter", "steps": 1}, {"stage": "heads", "steps": 1}]
    found = operations(make_recipe(stages=stages), outline)
    assert found["cache through the adapter"] == 2 * operations(make_recipe(), outline)["cache"]


def test_packed_weights_take_the_bits_that_packing_gives_them(make_recipe: MakeRecipe, outline: Outline) -> None:
    def weights(**backbone: Any) -> float:
        recipe = make_recipe(backbone={"model": "m", **backbone})
        return cost(recipe, outline).costs[0].memory["weights"]

    rest = outline.parameters - LINEAR
    assert weights() == 4 * outline.parameters
    assert weights(dtype="bfloat16") == 2 * outline.parameters
    assert weights(dtype="bfloat16", quantization="4bit") == 2 * rest + LINEAR * (0.5 + 4 / 64)
    rows = LAYERS * (4 * H + 2 * 64 + H)
    assert weights(dtype="bfloat16", quantization="8bit") == 2 * rest + LINEAR + 4 * rows


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # called by peft
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]])
def test_trainable_parameters_are_those_that_peft_would_train(
    make_recipe: MakeRecipe, outline: Outline, policy: LanguageModel, targets: Any
) -> None:
    stage = {"stage": "adapter", "steps": 1, "lora_rank": 5, "target_modules": targets}
    found = cost(make_recipe(stages=[stage]), outline).costs[1].memory["trained"]
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig.from_dict(policy.model.config.to_dict()))
    trained = get_peft_model(model, LoraConfig(r=5, target_modules=targets, task_type="CAUSAL_LM"))
    assert found == 16 * sum(weight.numel() for name, weight in trained.named_parameters() if "lora_" in name)


def test_activations_are_those_of_the_longest_texts(make_recipe: MakeRecipe, outline: Outline) -> None:
    def activations(**changed: Any) -> float:
        stage = {"stage": "adapter", "steps": 1, "batch_size": 2, **changed}
        return cost(make_recipe(stages=[stage]), outline).costs[1].memory["activations"]

    rows, layer = 2 * 2 * 60, 4 * 2 * H + 3 * (H + 64)
    assert activations() == 4 * rows * layer * (LAYERS + 1)
    assert activations(gradient_checkpointing=True) == 4 * rows * (LAYERS * H + 2 * layer)


def test_memory_is_enough_only_with_a_tenth_to_spare(make_recipe: MakeRecipe, outline: Outline) -> None:
    found = cost(make_recipe(), outline)
    assert found.memory == max(sum(each.memory.values()) for each in found.costs)
    assert found.fits(found.memory / 0.9e9 * 1.001)
    assert not found.fits(found.memory / 0.9e9 * 0.999)


def test_time_is_operations_over_the_rate(make_recipe: MakeRecipe, outline: Outline) -> None:
    found = cost(make_recipe(), outline)
    assert found.seconds["here"]["cache"] == pytest.approx(found.costs[0].operations / 1e9)


def test_data_are_counted_as_training_will_read_them(make_recipe: MakeRecipe, outline: Outline) -> None:
    recipe = make_recipe(data={"max_answer_tokens": 4, "max_prompt_tokens": 3})
    data = load_pairs(recipe.data, recipe.seed)
    found = measure_volume(recipe, data, outline.tokenizer)
    pairs = [pair for split in (data.train, data.validation[0].pairs) for pair in split]
    assert found.pairs == len(data.train)
    assert found.answers == len({(str(p.prompt), answer) for p in pairs for answer in (p.chosen, p.rejected)})
    assert (found.prompt_tokens, found.answer_tokens, found.longest) == (3, 4, 7)
    assert found.principles == 2


def test_a_dry_run_writes_nothing_and_trains_nothing(
    make_recipe: MakeRecipe, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pad_cli.training.estimate.measure_machine", lambda: (MACHINE, MACHINE))
    recipe = make_recipe()
    found = estimate(recipe)
    assert [each.name for each in found.costs] == ["cache", "heads"]
    assert list(found.seconds) == ["here", *(gpu.name for gpu in GPUS)]
    assert not own_cache.exists()
    assert not Path(recipe.output).exists()


@pytest.mark.parametrize("model", ["owner/name", "missing-directory", "weights.gguf"])
def test_a_configuration_that_cannot_be_had_is_a_clear_error(make_recipe: MakeRecipe, model: str) -> None:
    with pytest.raises(ModelLoadError, match=model) as caught:
        estimate(make_recipe(backbone={"model": model}))
    assert caught.value.hint


def test_the_paper_s_recipe_needs_80_gb_and_its_qlora_form_24(outline: Outline) -> None:
    """With the published sizes of Llama 3 8B."""
    with torch.device("meta"):
        config = LlamaConfig(
            vocab_size=128256,
            hidden_size=4096,
            intermediate_size=14336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            tie_word_embeddings=False,
        )
        llama = Outline("llama", LlamaForCausalLM(config), outline.tokenizer, torch.bfloat16)
    assert llama.parameters == 8_030_261_248
    volume = Volume(30_000, 50_000, 120, 180, 768, 50_000, 2000, 0, 6)
    fits = {}
    for name in ("paper-llama3-8b", "paper-llama3-8b-qlora"):
        recipe = read_recipe(name)
        assert isinstance(recipe, TrainRecipe)
        found = price(recipe, llama, volume, (MACHINE, MACHINE))
        fits[name] = (found.fits(24), found.fits(80))
    assert fits == {"paper-llama3-8b": (False, True), "paper-llama3-8b-qlora": (True, True)}


def test_every_training_recipe_can_be_priced(outline: Outline) -> None:
    for name in shipped_recipes():
        recipe = read_recipe(name)
        if isinstance(recipe, TrainRecipe):
            found = price(recipe, outline, VOLUME, (MACHINE, MACHINE))
            assert all(math.isfinite(sum(seconds.values())) for seconds in found.seconds.values())
