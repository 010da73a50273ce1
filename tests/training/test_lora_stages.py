"""The stages `adapter` and `joint` against plain PyTorch, and what they leave behind."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.nn.functional import logsigmoid, relu
from transformers import get_cosine_schedule_with_warmup

from pad_cli.errors import RecipeError, TrainingError
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel, wrap_language_model
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.models.scoring import TokenSequence
from pad_cli.preference import Preference
from pad_cli.recipe import AdapterStage, JointStage
from pad_cli.records import PreferencePair, as_messages
from pad_cli.training.loop import order_of_pairs
from pad_cli.training.lora import linear_layers, lora_parameters, measure_split, reference_log_probs, train_lora
from pad_cli.training.pair_table import PairTable, SequenceBook, tabulate
from tests.architectures import make_architecture
from tests.tiny import make_language_model, make_reward_model
from tests.training.conftest import make_rows

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""PEFT's PeftModel asks the model for it."""

NAMES = ("exes", "whys")
PAIRS = [
    PreferencePair(as_messages(row["prompt"]), {row["preference"]: 1.0}, row["chosen"], row["rejected"])
    for row in make_rows(32, seed=1)
]
SETTINGS: dict[str, Any] = {"steps": 2, "batch_size": 4, "warmup_steps": 0, "lora_rank": 2, "lora_alpha": 4}
LEARNING: dict[str, Any] = {"steps": 40, "batch_size": 8, "learning_rate": 0.01, "lora_rank": 4, "warmup_steps": 2}


def adapter_stage(**changed: Any) -> AdapterStage:
    return AdapterStage(stage="adapter", **{**SETTINGS, **changed})


def joint_stage(**changed: Any) -> JointStage:
    return JointStage(stage="joint", **{**SETTINGS, **changed})


def tables(
    model: LanguageModel, *, one_sided: bool = False, contrast: bool = False, count: int | None = None
) -> tuple[list[TokenSequence], PairTable, torch.Tensor]:
    """Sequences, pairs and weights; one-sided: only those that want an x; contrast: each under both preferences."""
    book = SequenceBook()
    pairs = [pair for pair in PAIRS if not one_sided or "exes" in pair.preference][:count]
    if contrast:
        other = {"exes": {"whys": 1.0}, "whys": {"exes": 1.0}}
        pairs += [PreferencePair(p.prompt, other[min(p.preference)], p.rejected, p.chosen) for p in pairs]
    table = tabulate(pairs, book)
    sequences, _ = book.tokenised(model.tokenizer, 512, 512)
    return sequences, table, table.weights(NAMES)


def make_heads(model: LanguageModel) -> PreferenceHeads:
    return PreferenceHeads(NAMES, model.hidden_size, 2)


def born(model: LanguageModel, stage: Any, seed: int) -> Any:
    """A PeftModel on a copy, as the trainer makes it."""
    torch.manual_seed(seed)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=stage.lora_rank,
        lora_alpha=stage.lora_alpha,
        target_modules=linear_layers(model.model, stage.target_modules),
    )
    return get_peft_model(copy.deepcopy(model.model), config)


def plain_sums(
    model: Any, sequences: list[TokenSequence], head: Any, weights: torch.Tensor, output: Any
) -> torch.Tensor:
    """log pi(answer) of each sequence, one by one, from all logits."""
    sums = []
    for (prompt, answer), w in zip(sequences, weights, strict=True):
        hidden = model.get_decoder()(torch.tensor([[*prompt, *answer]])).last_hidden_state[0, len(prompt) - 1 : -1]
        if head is not None:
            hidden = hidden + head(hidden, w.expand(len(hidden), -1))
        sums.append(output(hidden).log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].sum())
    return torch.stack(sums)


def plain_training(
    model: LanguageModel, stage: Any, head: PreferenceHeads | None, seed: int, one_sided: bool = False
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """The whole stage as a loop of plain PyTorch: the LoRA weights, and the losses."""
    sequences, pairs, weights = tables(model, one_sided=one_sided)
    trained = born(model, stage, seed)
    lora = list(lora_parameters(trained).values())
    groups = [{"params": lora, "lr": stage.learning_rate}]
    if head is not None:
        head.requires_grad_(True)
        groups.append({"params": list(head.parameters()), "lr": stage.heads_learning_rate})
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=stage.weight_decay)
    schedule = get_cosine_schedule_with_warmup(optimiser, stage.warmup_steps, stage.steps)
    size = stage.batch_size * stage.accumulation_steps
    order = order_of_pairs(len(pairs), size * stage.steps, seed)
    losses = []
    for step in range(stage.steps):
        batch = order[step * size : (step + 1) * size]
        r = []
        for answers in (pairs.chosen[batch], pairs.rejected[batch]):
            read = [sequences[n] for n in answers.tolist()]
            ours = plain_sums(trained.base_model.model, read, head, weights[batch], model.head)
            with torch.no_grad():
                theirs = plain_sums(model.model, read, None, weights[batch], model.head)
            lengths = torch.tensor([len(a) for _, a in read]) if stage.length_normalised else 1
            r.append((ours - theirs) / lengths)
        logits, e = stage.beta * (r[0] - r[1]), stage.label_smoothing
        loss = (-(1 - e) * logsigmoid(logits) - e * logsigmoid(-logits) + stage.anchor * relu(-r[0])).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    return {name: parameter.detach() for name, parameter in lora_parameters(trained).items()}, losses


def kept(directory: Path) -> dict[str, torch.Tensor]:
    """The LoRA weights that a stage left, by their names in PEFT's file."""
    from safetensors.torch import load_file

    return load_file(directory / "last" / "adapter_model.safetensors")


def close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 1e-5) -> None:
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=tolerance, rtol=0, msg=name)


@pytest.fixture
def backbone(byte_tokenizer: Any) -> LanguageModel:
    return make_language_model(byte_tokenizer, seed=0)


VARIANTS = {
    "plain": {},
    "smoothed and decayed": {"label_smoothing": 0.2, "weight_decay": 0.5},
    "length-normalised": {"length_normalised": True, "beta": 3.0, "anchor": 0.5},
    "warmed up": {"warmup_steps": 2, "steps": 3},
    "accumulated": {"batch_size": 2, "accumulation_steps": 3},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_stage_adapter_equals_a_loop_of_plain_pytorch(variant: str, backbone: LanguageModel, tmp_path: Path) -> None:
    stage = adapter_stage(learning_rate=0.01, **VARIANTS[variant])
    expected, losses = plain_training(backbone, stage, None, seed=3)
    _, history = train_lora(stage, backbone, None, *tables(backbone), directory=tmp_path, seed=3)
    close(kept(tmp_path), expected)
    assert [point["loss"] for point in history] == pytest.approx(losses, abs=1e-4)
    assert any(tensor.abs().max() > 1e-3 for name, tensor in expected.items() if "lora_B" in name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_stage_joint_equals_a_loop_of_plain_pytorch(variant: str, backbone: LanguageModel, tmp_path: Path) -> None:
    stage = joint_stage(learning_rate=0.01, heads_learning_rate=0.1, **VARIANTS[variant])
    ours, theirs = make_heads(backbone), make_heads(backbone)
    expected, losses = plain_training(backbone, stage, theirs, seed=3)
    _, history = train_lora(stage, backbone, ours, *tables(backbone), directory=tmp_path, seed=3)
    close(kept(tmp_path), expected)
    close(dict(ours.named_parameters()), dict(theirs.named_parameters()))
    assert [point["loss"] for point in history] == pytest.approx(losses, abs=1e-4)
    assert ours.up.abs().max() > 1e-2


def test_4_pairs_4_times_are_16_pairs(backbone: LanguageModel, tmp_path: Path) -> None:
    """Steps of 16 out of 20 pairs: a short last batch would tell a mean of means from a mean."""
    weights = []
    for batch, times in ((16, 1), (4, 4)):
        stage = adapter_stage(batch_size=batch, accumulation_steps=times, steps=3, learning_rate=0.01)
        directory = tmp_path / str(batch)
        train_lora(stage, backbone, None, *tables(backbone, count=20), directory=directory, seed=0)
        weights.append(kept(directory))
    close(*weights)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["gpt2", "opt", "gemma2"])
def test_weights_that_are_zero_earn_no_reward(
    name: str, checkpointing: bool, byte_tokenizer: Any, tmp_path: Path
) -> None:
    """The first step has LoRA weights B = 0 and heads B = 0, and a backbone in training mode would drop out."""
    model = make_architecture(name, byte_tokenizer)
    stage = joint_stage(steps=1, anchor=100.0, gradient_checkpointing=checkpointing)
    _, history = train_lora(stage, model, make_heads(model), *tables(model), directory=tmp_path, seed=0)
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-2)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "opt-projected", "phi"])
def test_the_adapter_reads_as_the_trained_peft_model(name: str, byte_tokenizer: Any, tmp_path: Path) -> None:
    model = make_architecture(name, byte_tokenizer)
    stage = adapter_stage(learning_rate=0.05, steps=3)
    adapter, _ = train_lora(stage, model, None, *tables(model), directory=tmp_path, seed=0)
    plain = wrap_language_model(name, copy.deepcopy(model.model), model.tokenizer)
    for module in plain.model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    trained = PeftModel.from_pretrained(plain.model, str(tmp_path / "last")).eval()
    theirs = wrap_language_model("peft", trained.base_model.model, model.tokenizer)
    tokens = torch.tensor([[5, 40, 60, 7, 9, 30]])
    with torch.inference_mode(), adapter.on_rows_from(0):
        ours = model.head(model.hidden_states(tokens, torch.ones_like(tokens)))
    with torch.inference_mode():
        expected = theirs.head(theirs.hidden_states(tokens, torch.ones_like(tokens)))
        before = model.head(model.hidden_states(tokens, torch.ones_like(tokens)))
    torch.testing.assert_close(ours.log_softmax(-1), expected.log_softmax(-1), atol=1e-4, rtol=1e-4)
    assert (ours - before).abs().max() > 0.02


def test_decoding_sees_the_reward_that_training_saw(backbone: LanguageModel, tmp_path: Path) -> None:
    sequences, pairs, weights = tables(backbone)
    heads = make_heads(backbone)
    stage = joint_stage(**{**LEARNING, "steps": 10, "evaluate_every": 10})
    adapter, history = train_lora(
        stage, backbone, heads, sequences, pairs, weights, validation=[("own", pairs, weights)],
        directory=tmp_path, seed=0,
    )  # fmt: skip
    model = PersonalizedRewardModel(backbone, heads, adapter=adapter)
    margins = []
    for pair in PAIRS:
        asked = Preference(dict(pair.preference), {})
        chosen, rejected = (
            model.token_rewards(pair.prompt, answer, asked).sum() for answer in (pair.chosen, pair.rejected)
        )
        margins.append((chosen - rejected).item())
    assert history[-1]["splits"]["own"]["margin"] == pytest.approx(sum(margins) / len(margins), abs=1e-3)
    assert abs(sum(margins)) > 1


def test_stage_adapter_learns_its_pairs(backbone: LanguageModel, tmp_path: Path) -> None:
    sequences, pairs, weights = tables(backbone, one_sided=True)
    stage = adapter_stage(**LEARNING, evaluate_every=20)
    _, history = train_lora(
        stage, backbone, None, sequences, pairs, weights, validation=[("own", pairs, weights)],
        directory=tmp_path, seed=0,
    )  # fmt: skip
    assert [point["step"] for point in history if point["splits"]] == [20, 40]
    assert history[-1]["splits"]["own"]["pair_accuracy"] > 0.95
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]


def test_stage_joint_tells_preferences_apart_that_an_adapter_alone_cannot(
    backbone: LanguageModel, tmp_path: Path
) -> None:
    """The same two answers win and lose: without the preference half of the pairs is the best there is."""
    sequences, pairs, weights = tables(backbone, contrast=True)
    accuracies = []
    for stage, heads in ((adapter_stage(**LEARNING), None), (joint_stage(**LEARNING), make_heads(backbone))):
        stage = stage.model_copy(update={"evaluate_every": 40})
        _, history = train_lora(
            stage, backbone, heads, sequences, pairs, weights, validation=[("own", pairs, weights)],
            directory=tmp_path / stage.stage, seed=0,
        )  # fmt: skip
        accuracies.append(history[-1]["splits"]["own"]["pair_accuracy"])
    assert accuracies[0] == 0.5
    assert accuracies[1] > 0.95


def test_a_second_stage_is_still_measured_against_the_plain_backbone(backbone: LanguageModel, tmp_path: Path) -> None:
    sequences, pairs, weights = tables(backbone)
    first = adapter_stage(**LEARNING)
    adapter, _ = train_lora(first, backbone, None, sequences, pairs, weights, directory=tmp_path / "1", seed=0)
    model = PersonalizedRewardModel(backbone, make_heads(backbone), adapter=adapter)
    stage = joint_stage(
        steps=1, batch_size=len(pairs), lora_rank=first.lora_rank, lora_alpha=first.lora_alpha, anchor=0.0
    )
    losses = []
    for pair in PAIRS:
        chosen, rejected = (
            model.token_rewards(pair.prompt, answer, Preference({}, {})).sum()
            for answer in (pair.chosen, pair.rejected)
        )
        losses.append(-logsigmoid(stage.beta * (chosen - rejected)).item())
    adapter.remove_hooks()
    _, history = train_lora(
        stage, backbone, make_heads(backbone), sequences, pairs, weights,
        start=tmp_path / "1" / "last", directory=tmp_path / "2", seed=0,
    )  # fmt: skip
    assert history[0]["loss"] == pytest.approx(sum(losses) / len(losses), abs=1e-4)
    assert abs(history[0]["loss"] - math.log(2)) > 0.01


@pytest.mark.parametrize("changed", [{"lora_rank": 3}, {"lora_alpha": 5}, {"target_modules": ["q_proj"]}])
def test_an_adapter_of_other_settings_is_not_gone_on_from(
    changed: dict[str, Any], backbone: LanguageModel, tmp_path: Path
) -> None:
    adapter, _ = train_lora(adapter_stage(), backbone, None, *tables(backbone), directory=tmp_path / "1", seed=0)
    adapter.remove_hooks()
    with pytest.raises(RecipeError, match="other LoRA weights"):
        train_lora(
            joint_stage(**changed), backbone, make_heads(backbone), *tables(backbone),
            start=tmp_path / "1" / "last", directory=tmp_path / "2", seed=0,
        )  # fmt: skip


def condition(model: LanguageModel) -> list[Any]:
    """Everything about a backbone that training could leave different."""
    inner = model.model
    modules = [
        (name, type(module), sorted(vars(module)), module.training, len(module._forward_hooks))
        for name, module in inner.named_modules()
    ]
    parameters = [(n, p.clone(), p.requires_grad, p.grad, p.dtype) for n, p in inner.named_parameters()]
    configs = [inner.config.to_dict(), inner.generation_config.to_dict()]
    renewed = wrap_language_model("again", inner, model.tokenizer).fingerprint
    return [modules, [str(p) for p in parameters], configs, renewed]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_backbone_is_afterwards_as_it_was_before(checkpointing: bool, byte_tokenizer: Any, tmp_path: Path) -> None:
    for name in ("llama", "gpt2"):
        model = make_architecture(name, byte_tokenizer)
        model.model.config.pad_token_id = model.model.generation_config.pad_token_id = None
        before = condition(model)
        stage = joint_stage(gradient_checkpointing=checkpointing, learning_rate=0.01)
        adapter, _ = train_lora(stage, model, make_heads(model), *tables(model), directory=tmp_path / name, seed=0)
        adapter.remove_hooks()
        assert condition(model) == before


def test_the_backbone_is_as_before_after_a_failure_too(backbone: LanguageModel, tmp_path: Path) -> None:
    before, heads = condition(backbone), make_heads(backbone)
    sequences, pairs, weights = tables(backbone)
    with pytest.raises(TrainingError, match=r"Training joint, step 1 of 2: the loss is nan\."):
        train_lora(joint_stage(), backbone, heads, sequences, pairs, weights * math.inf, directory=tmp_path, seed=0)
    assert condition(backbone) == before
    assert not any(parameter.requires_grad for parameter in heads.parameters())


def test_memory_that_is_too_small_is_explained(backbone: LanguageModel, tmp_path: Path) -> None:
    class Greedy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(1))

        def forward(self, hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
            return hidden + torch.empty(2**55)[0] * self.bias

    with pytest.raises(TrainingError, match="memory is too small for 4 pairs") as caught:
        train_lora(joint_stage(), backbone, Greedy(), *tables(backbone), directory=tmp_path, seed=0)
    assert "gradient_checkpointing" in caught.value.hint


def test_gradient_checkpointing_changes_nothing_but_memory(backbone: LanguageModel, tmp_path: Path) -> None:
    weights = []
    for checkpointing in (False, True):
        stage = adapter_stage(gradient_checkpointing=checkpointing, learning_rate=0.01, lora_dropout=0.3)
        directory = tmp_path / str(checkpointing)
        train_lora(stage, backbone, None, *tables(backbone), directory=directory, seed=0)
        weights.append(kept(directory))
    close(*weights)


def test_lora_dropout_drops_out(backbone: LanguageModel, tmp_path: Path) -> None:
    weights = []
    for dropout in (0.0, 0.5):
        stage = adapter_stage(lora_dropout=dropout, learning_rate=0.01)
        train_lora(stage, backbone, None, *tables(backbone), directory=tmp_path / str(dropout), seed=0)
        weights.append(kept(tmp_path / str(dropout)))
    assert any(not torch.allclose(weights[0][name], weights[1][name], atol=1e-3) for name in weights[0])


def test_the_best_measured_weights_are_kept_and_patience_ends_the_stage(
    backbone: LanguageModel, tmp_path: Path
) -> None:
    """Validation wants the opposite of what is trained: every measurement is worse than the first, or as bad."""
    sequences, pairs, weights = tables(backbone, one_sided=True)
    opposite = replace(pairs, chosen=pairs.rejected, rejected=pairs.chosen)
    runs = []
    for name, stage in {
        "patient": adapter_stage(**LEARNING, evaluate_every=4, patience=2),
        "short": adapter_stage(**LEARNING, evaluate_every=4),
    }.items():
        runs.append(
            train_lora(
                stage, backbone, None, sequences, pairs, weights, validation=[("opposite", opposite, weights)],
                directory=tmp_path / name, seed=0,
            )[1]
        )  # fmt: skip
    measured = [point["splits"]["opposite"]["policy_accuracy"] for point in runs[0] if point["splits"]]
    best = measured.index(max(measured))
    assert len(measured) == best + 3
    assert measured[best] > measured[-1]
    assert runs[0][-1]["step"] == 4 * len(measured) < LEARNING["steps"]
    best_weights = kept(tmp_path / "patient")
    assert any(not torch.equal(tensor, kept(tmp_path / "short")[n]) for n, tensor in best_weights.items()) is False


def test_a_bfloat16_backbone_trains_float32_weights(byte_tokenizer: Any, tmp_path: Path) -> None:
    model = make_language_model(byte_tokenizer, seed=0)
    model = wrap_language_model("half", model.model.to(torch.bfloat16), byte_tokenizer)
    _, history = train_lora(
        joint_stage(**LEARNING), model, make_heads(model), *tables(model), directory=tmp_path, seed=0
    )
    assert {tensor.dtype for tensor in kept(tmp_path).values()} == {torch.float32}
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]


def test_nothing_is_said_but_what_is_done(
    backbone: LanguageModel, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stage = adapter_stage(evaluate_every=1, save_every=1)
    sequences, pairs, weights = tables(backbone)
    train_lora(
        stage, backbone, None, sequences, pairs, weights, validation=[("own", pairs, weights)],
        directory=tmp_path, seed=0,
    )  # fmt: skip
    out, err = capfd.readouterr()
    assert out == ""
    assert [line.partition(":")[0] for line in err.splitlines()] == [
        "Reading answers with the reference",
        "Training adapter",
    ]


def test_a_split_is_measured_by_sums_and_by_tokens(policy: LanguageModel, tmp_path: Path) -> None:
    """Half of the chosen answers are three times as long: a sum over tokens would judge them otherwise."""
    heads = make_reward_model(policy).heads
    heads.names = ("exes", "whys", "zeds")
    book = SequenceBook()
    pairs = tabulate([replace(p, chosen=p.chosen * (1 + 2 * (n % 2))) for n, p in enumerate(PAIRS)], book)
    weights = pairs.weights(heads.names)
    sequences, _ = book.tokenised(policy.tokenizer, 512, 512)
    reference = reference_log_probs(policy, sequences, [pairs], tmp_path)
    metrics = measure_split(policy, heads, sequences, reference, pairs, weights)
    rewards, likely = [], []
    with torch.no_grad():
        for answers in (pairs.chosen, pairs.rejected):
            read = [sequences[number] for number in answers.tolist()]
            ours = plain_sums(policy.model, read, heads, weights, policy.head)
            rewards.append(ours - plain_sums(policy.model, read, None, weights, policy.head))
            likely.append(ours / torch.tensor([len(answer) for _, answer in read]))
            likely.append(ours)
    assert metrics["pairs"] == len(pairs)
    assert metrics["margin"] == pytest.approx((rewards[0] - rewards[1]).mean().item(), abs=1e-3)
    assert metrics["pair_accuracy"] == pytest.approx((rewards[0] > rewards[1]).float().mean().item(), abs=1e-4)
    by_token, by_sum = ((likely[n] > likely[n + 2]).float().mean().item() for n in (0, 1))
    assert metrics["policy_accuracy"] == pytest.approx(by_token, abs=1e-4)
    assert by_token != by_sum
