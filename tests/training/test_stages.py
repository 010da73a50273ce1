"""Each stage moves only its own tensors; training that cannot go on says where it stopped."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pad_cli.errors import TrainingError
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import EncoderStage, HeadsStage
from pad_cli.records import PreferencePair, as_messages
from pad_cli.training import stages
from pad_cli.training.calibration import STRENGTH, calibrate
from pad_cli.training.hidden_cache import build_hidden_cache
from pad_cli.training.metrics import measure
from pad_cli.training.pair_table import PairTable, SequenceBook, tabulate
from pad_cli.training.stages import train_encoder, train_heads
from pad_cli.training.token_rewards import TokenRewards
from tests.tiny import make_language_model, make_reward_model
from tests.training.conftest import TEXTS, make_rows

NAMES = ("exes", "whys")
LENGTH = {"steps": 5, "batch_size": 8, "warmup_steps": 2, "learning_rate": 0.03}
PAIRS = [
    PreferencePair(as_messages(row["prompt"]), {row["preference"]: 1.0}, row["chosen"], row["rejected"])
    for row in make_rows(24, seed=1)
]


@pytest.fixture
def prepared(policy: LanguageModel, tmp_path: Path) -> tuple[TokenRewards, PairTable]:
    book = SequenceBook(policy.tokenizer, 512, 512)
    table = tabulate(PAIRS, book)
    return TokenRewards(build_hidden_cache(policy, book.sequences, tmp_path, torch.float32), policy.head, None), table


def make_heads(policy: LanguageModel) -> PreferenceHeads:
    return PreferenceHeads(NAMES, policy.hidden_size, 2, seed=0)


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def test_stage_heads_moves_the_heads_and_nothing_else(
    policy: LanguageModel, prepared: tuple[TokenRewards, PairTable]
) -> None:
    heads = make_heads(policy)
    before, backbone, states = tensors(heads), tensors(policy.model), prepared[0].cache.hidden.clone()
    train_heads(HeadsStage(stage="heads", **LENGTH), heads, *prepared, seed=0)
    assert moved(before, heads) == {"down", "up"}
    assert moved(backbone, policy.model) == set()
    assert torch.equal(prepared[0].cache.hidden, states)
    assert not any(parameter.requires_grad for parameter in [*heads.parameters(), *policy.model.parameters()])


def test_stage_encoder_moves_the_encoder_and_nothing_else(
    policy: LanguageModel, prepared: tuple[TokenRewards, PairTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = make_reward_model(policy).heads
    heads.names = NAMES
    heads.down, heads.up = (nn.Parameter(p[:2].clone(), requires_grad=False) for p in (heads.down, heads.up))
    born: list[tuple[nn.Module, dict[str, torch.Tensor]]] = []
    standardise = stages.PreferenceEncoder.standardise

    def remember(encoder: stages.PreferenceEncoder, states: torch.Tensor) -> None:
        standardise(encoder, states)
        born.append((encoder, tensors(encoder)))

    monkeypatch.setattr(stages.PreferenceEncoder, "standardise", remember)
    before, backbone = tensors(heads), tensors(policy.model)
    stage = EncoderStage(stage="encoder", hidden_size=8, **LENGTH)
    encoder = train_encoder(stage, heads, policy, *prepared, TEXTS, seed=0)
    assert encoder is born[0][0]
    assert moved(born[0][1], encoder) == {f"network.{layer}.{kind}" for layer in (1, 4) for kind in ("weight", "bias")}
    assert moved(before, heads) == set()
    assert moved(backbone, policy.model) == set()
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_the_encoder_learns_which_words_mean_which_preference(
    policy: LanguageModel, prepared: tuple[TokenRewards, PairTable]
) -> None:
    heads, length = make_heads(policy), {**LENGTH, "steps": 60}
    train_heads(HeadsStage(stage="heads", **length), heads, *prepared, seed=0)
    stage = EncoderStage(stage="encoder", hidden_size=16, dropout=0.0, **length)
    encoder = train_encoder(stage, heads, policy, *prepared, TEXTS, seed=0)
    weights = encoder(stages.text_states(policy, [TEXTS["exes"][0], TEXTS["whys"][0]]))
    difference = weights[:, 0] - weights[:, 1]
    assert difference[0] > 0 > difference[1]


def test_training_starts_at_a_loss_of_log_2_and_the_loss_falls(
    policy: LanguageModel, prepared: tuple[TokenRewards, PairTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads are zero at birth, so the first margin is 0 and -log sigmoid(0) = log 2."""
    seen: list[float] = []
    loss = stages.preference_loss

    def remember(*sums: torch.Tensor, **settings: float) -> torch.Tensor:
        seen.append(loss(*sums, **settings).item())
        return loss(*sums, **settings)

    monkeypatch.setattr(stages, "preference_loss", remember)
    train_heads(HeadsStage(stage="heads", **{**LENGTH, "steps": 30}), make_heads(policy), *prepared, seed=0)
    assert seen[0] == pytest.approx(0.6931, abs=1e-3)
    assert len(seen) == 30
    assert sum(seen[-5:]) < sum(seen[:5])


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 3), (1.1, 4), (2.0, 6), (0.01, 1)])
def test_epochs_are_passes_over_the_pairs(
    policy: LanguageModel,
    prepared: tuple[TokenRewards, PairTable],
    monkeypatch: pytest.MonkeyPatch,
    epochs: float,
    steps: int,
) -> None:
    """24 pairs in batches of 8; one pass sees every pair once."""
    batches: list[list[int]] = []
    sums = stages._sums
    monkeypatch.setattr(stages, "_sums", lambda *a: batches.append(a[3].tolist()) or sums(*a))
    stage = HeadsStage(stage="heads", epochs=epochs, batch_size=8)
    train_heads(stage, make_heads(policy), *prepared, seed=0)
    assert len(batches) == steps
    for start in range(0, steps - 2, 3):
        assert sorted(itertools.chain(*batches[start : start + 3])) == list(range(24))


def test_a_loss_that_is_no_number_names_the_stage_and_the_step(
    policy: LanguageModel, prepared: tuple[TokenRewards, PairTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 1.0, float("nan")])
    real = stages.preference_loss
    monkeypatch.setattr(stages, "preference_loss", lambda *a, **k: next(losses) * real(*a, **k))
    with pytest.raises(TrainingError, match=r"heads.*nan at step 3 of 5") as caught:
        train_heads(HeadsStage(stage="heads", **LENGTH), make_heads(policy), *prepared, seed=0)
    assert caught.value.hint


def test_calibration_brings_rewards_to_the_same_strength_and_scales_inversely_with_the_heads(
    policy: LanguageModel, prepared: tuple[TokenRewards, PairTable]
) -> None:
    heads = make_reward_model(policy).heads
    cache = prepared[0].cache
    before = calibrate(heads, policy.head, cache, seed=0)
    heads.up.mul_(4.0)
    after = calibrate(heads, policy.head, cache, seed=0)
    assert after == pytest.approx(before / 4, rel=1e-4)
    heads.up.mul_(after)
    assert calibrate(heads, policy.head, cache, seed=0) == pytest.approx(1.0, rel=1e-4)
    spreads = []
    candidates = policy.head(cache.hidden).topk(10, dim=-1).indices
    for k in range(3):
        change = policy.head(cache.hidden + cache.hidden @ (heads.up[k] @ heads.down[k]).T) - policy.head(cache.hidden)
        spreads.append(change.gather(1, candidates).std(-1))
    strength = torch.stack(spreads).square().mean().sqrt().item()
    assert strength == pytest.approx(STRENGTH, rel=1e-3), "few enough states that all are drawn"


def test_heads_that_reward_nothing_are_not_scaled(
    policy: LanguageModel, prepared: tuple[TokenRewards, PairTable]
) -> None:
    assert calibrate(make_heads(policy), policy.head, prepared[0].cache, seed=0) == 1.0


def test_policy_accuracy_judges_the_guided_distribution_per_token(policy: LanguageModel, tmp_path: Path) -> None:
    """A calibration of 0 leaves the policy alone: the share of pairs whose chosen answer it finds likelier itself.

    Half of the chosen answers are three times as long, so that a sum over tokens would judge otherwise.
    """
    book = SequenceBook(policy.tokenizer, 512, 512)
    pairs = tabulate([replace(p, chosen=p.chosen * (1 + 2 * (n % 2))) for n, p in enumerate(PAIRS)], book)
    rewards = TokenRewards(build_hidden_cache(policy, book.sequences, tmp_path, torch.float32), policy.head, None)
    heads = make_heads(policy)
    metrics = measure(heads, rewards, pairs, pairs.weights(NAMES), calibration=0.0)
    cache, likelier = rewards.cache, []
    tokens = policy.head(cache.hidden).log_softmax(-1).gather(1, cache.targets[:, None])[:, 0]
    means = [tokens[s:e].mean().item() for s, e in zip(cache.starts, cache.starts[1:], strict=False)]
    for chosen, rejected in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True):
        likelier.append(means[chosen] > means[rejected])
    assert metrics["policy_accuracy"] == pytest.approx(sum(likelier) / len(likelier), abs=1e-4)
    assert metrics["pairs"] == len(PAIRS)


def test_an_answer_that_occurs_in_several_pairs_is_numbered_once(policy: LanguageModel) -> None:
    book = SequenceBook(policy.tokenizer, 512, 512)
    prompt, other = as_messages("Hi"), as_messages("Why?")
    pairs = [
        PreferencePair(prompt, {"exes": 1.0}, "x", "y"),
        PreferencePair(prompt, {"whys": 1.0}, "y", "x"),
        PreferencePair(other, {"exes": 0.5, "whys": -2.0}, "x", "z"),
    ]
    table = tabulate(pairs, book)
    assert (table.chosen.tolist(), table.rejected.tolist()) == ([0, 1, 2], [1, 0, 3])
    assert table.weights(NAMES).tolist() == [[1.0, 0.0], [0.0, 1.0], [0.5, -2.0]]
    assert len(book.sequences) == 4


def test_shuffled_labels_swap_about_half_of_the_pairs_and_lose_none(policy: LanguageModel) -> None:
    plain, shuffled = (tabulate(PAIRS, SequenceBook(policy.tokenizer, 512, 512), seed) for seed in (None, 3))
    swapped = (plain.chosen == shuffled.rejected) & (plain.rejected == shuffled.chosen)
    kept = (plain.chosen == shuffled.chosen) & (plain.rejected == shuffled.rejected)
    assert (swapped ^ kept).all()
    assert 4 <= swapped.sum() <= 20


def test_an_equal_model_gives_an_equal_training(
    policy: LanguageModel, prepared: tuple[TokenRewards, PairTable], tmp_path: Path
) -> None:
    """Nothing but data, backbone, stage and seed decides the heads, not even torch's own random state."""
    results = []
    for number in range(2):
        torch.manual_seed(number)
        heads = make_heads(make_language_model(policy.tokenizer, seed=0))
        torch.manual_seed(number + 7)
        train_heads(HeadsStage(stage="heads", **LENGTH), heads, *prepared, seed=0)
        results.append(tensors(heads))
    assert torch.equal(results[0]["up"], results[1]["up"])
