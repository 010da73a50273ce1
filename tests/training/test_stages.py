"""Each stage moves only its own tensors; training that cannot go on says where it stopped."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pad_cli.equation import STRENGTH
from pad_cli.errors import TrainingError
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.language_model import LanguageModel
from pad_cli.recipe import EncoderStage, HeadsStage
from pad_cli.records import PreferencePair, as_messages
from pad_cli.training import loop, stages
from pad_cli.training.metrics import measure
from pad_cli.training.pair_table import PairTable, SequenceBook, tabulate
from pad_cli.training.stages import CachedData
from pad_cli.training.token_rewards import global_scale, normalise_heads, reward_scales
from tests.tiny import make_language_model, make_reward_model
from tests.training.conftest import TEXTS, make_rewards, make_rows, train_encoder, train_heads

NAMES = ("exes", "whys")
LENGTH = {"steps": 5, "batch_size": 8, "warmup_steps": 2, "learning_rate": 0.03}
PAIRS = [
    PreferencePair(as_messages(row["prompt"]), {row["preference"]: 1.0}, row["chosen"], row["rejected"])
    for row in make_rows(24, seed=1)
]


@pytest.fixture
def prepared(policy: LanguageModel, tmp_path: Path) -> CachedData:
    book = SequenceBook()
    table = tabulate(PAIRS, book)
    sequences, _ = book.tokenised(policy.tokenizer, 512, 512)
    return CachedData(make_rewards(policy, sequences, tmp_path), table, 0, tmp_path / "snapshot.safetensors")


def hidden_of(data: CachedData) -> torch.Tensor:
    return data.rewards.cache.gather("hidden", torch.arange(len(data.rewards.cache)))


def make_heads(policy: LanguageModel) -> PreferenceHeads:
    return PreferenceHeads(NAMES, policy.hidden_size, 2, seed=0)


def tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def moved(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if not torch.equal(tensor, before[name])}


def test_stage_heads_moves_the_heads_and_nothing_else(policy: LanguageModel, prepared: CachedData) -> None:
    heads = make_heads(policy)
    before, backbone, states = tensors(heads), tensors(policy.model), hidden_of(prepared)
    train_heads(HeadsStage(stage="heads", **LENGTH), heads, prepared)
    assert moved(before, heads) == {"down", "up"}
    assert moved(backbone, policy.model) == set()
    assert torch.equal(hidden_of(prepared), states)
    assert not any(parameter.requires_grad for parameter in [*heads.parameters(), *policy.model.parameters()])


def test_stage_encoder_moves_the_encoder_and_nothing_else(
    policy: LanguageModel, prepared: CachedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads = make_reward_model(policy).heads
    heads.names = NAMES
    heads.down, heads.up = (nn.Parameter(p[:2].clone(), requires_grad=False) for p in (heads.down, heads.up))
    born: list[tuple[nn.Module, dict[str, torch.Tensor]]] = []
    remember = stages.PreferenceEncoder.remember

    def remember_birth(encoder: stages.PreferenceEncoder, *texts: torch.Tensor) -> None:
        remember(encoder, *texts)
        born.append((encoder, tensors(encoder)))

    monkeypatch.setattr(stages.PreferenceEncoder, "remember", remember_birth)
    before, backbone = tensors(heads), tensors(policy.model)
    stage = EncoderStage(stage="encoder", hidden_size=8, **LENGTH)
    encoder, _ = train_encoder(stage, heads, policy, TEXTS, prepared)
    assert encoder is born[0][0]
    assert moved(born[0][1], encoder) == {f"network.{layer}.{kind}" for layer in (1, 4) for kind in ("weight", "bias")}
    assert moved(before, heads) == set()
    assert moved(backbone, policy.model) == set()
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_the_encoder_learns_which_words_mean_which_preference(policy: LanguageModel, prepared: CachedData) -> None:
    heads, length = make_heads(policy), {**LENGTH, "steps": 60}
    train_heads(HeadsStage(stage="heads", **length), heads, prepared)
    stage = EncoderStage(stage="encoder", hidden_size=16, dropout=0.0, **length)
    encoder, _ = train_encoder(stage, heads, policy, TEXTS, prepared)
    weights = encoder(stages.text_states(policy, [TEXTS["exes"][0], TEXTS["whys"][0]]))
    difference = weights[:, 0] - weights[:, 1]
    assert difference[0] > 0 > difference[1]


def test_training_starts_at_a_loss_of_log_2_and_the_loss_falls(
    policy: LanguageModel, prepared: CachedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads are zero at birth, so the first margin is 0 and -log sigmoid(0) = log 2."""
    seen: list[float] = []
    loss = loop.preference_loss

    def remember(*sums: torch.Tensor, **settings: float) -> torch.Tensor:
        seen.append(loss(*sums, **settings).item())
        return loss(*sums, **settings)

    monkeypatch.setattr(loop, "preference_loss", remember)
    train_heads(HeadsStage(stage="heads", **{**LENGTH, "steps": 30}), make_heads(policy), prepared)
    assert seen[0] == pytest.approx(0.6931, abs=1e-3)
    assert len(seen) == 30
    assert sum(seen[-5:]) < sum(seen[:5])


def test_the_likelihood_loss_is_that_of_chosen_answers_and_of_rejected_ones_under_the_opposite(
    policy: LanguageModel, prepared: CachedData
) -> None:
    """LM-Steer maximises log pi(chosen | w) + log pi(rejected | -w); a preference loss only their difference."""
    heads, seen = make_heads(policy), list[dict[str, float]]()
    how = HeadsStage(stage="heads", loss="likelihood", **{**LENGTH, "steps": 40})
    history = train_heads(how, heads, prepared)
    assert history[-1]["loss"] < min(0.0, history[0]["loss"])
    weights = prepared.pairs.weights(NAMES)
    cache = prepared.rewards.cache
    for answers, sign in ((prepared.pairs.chosen, 1.0), (prepared.pairs.rejected, -1.0)):
        positions, owners = cache.positions(answers)
        own, opposite = (prepared.rewards.rewards(heads, positions, s * weights[owners]).mean() for s in (sign, -sign))
        seen.append({"own": float(own), "opposite": float(opposite)})
    assert all(each["own"] > 0 > each["opposite"] for each in seen)


@pytest.mark.parametrize(("epochs", "steps"), [(1.0, 3), (1.1, 4), (2.0, 6), (0.01, 1)])
def test_epochs_are_passes_over_the_pairs(
    policy: LanguageModel,
    prepared: CachedData,
    monkeypatch: pytest.MonkeyPatch,
    epochs: float,
    steps: int,
) -> None:
    """24 pairs in batches of 8; one pass sees every pair once."""
    batches: list[list[int]] = []
    answers = PairTable.answers

    def remember(pairs: PairTable, batch: torch.Tensor) -> torch.Tensor:
        batches.append(batch.tolist())
        return answers(pairs, batch)

    monkeypatch.setattr(PairTable, "answers", remember)
    stage = HeadsStage(stage="heads", epochs=epochs, batch_size=8)
    train_heads(stage, make_heads(policy), prepared)
    assert len(batches) == steps
    for start in range(0, steps - 2, 3):
        assert sorted(itertools.chain(*batches[start : start + 3])) == list(range(24))


def test_a_loss_that_is_no_number_names_the_stage_and_the_step(
    policy: LanguageModel, prepared: CachedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 1.0, float("nan")])
    real = loop.preference_loss
    monkeypatch.setattr(loop, "preference_loss", lambda *a, **k: next(losses) * real(*a, **k))
    with pytest.raises(TrainingError, match=r"heads, step 3 of 5: the loss is nan") as caught:
        train_heads(HeadsStage(stage="heads", **LENGTH), make_heads(policy), prepared)
    assert caught.value.hint


def test_calibration_brings_every_principle_to_the_same_strength(policy: LanguageModel, prepared: CachedData) -> None:
    """Heads of very different sizes steer equally after it; the states are few enough that all are drawn."""
    heads = make_reward_model(policy).heads
    heads.up.mul_(torch.tensor([1.0, 4.0, 0.2])[:, None, None])
    before = reward_scales(heads, prepared.rewards)
    assert before.max() > 10 * before.min()
    normalise_heads(heads, before)
    hidden = hidden_of(prepared)
    candidates = policy.head(hidden).topk(10, dim=-1).indices
    for k in range(3):
        change = policy.head(hidden + hidden @ (heads.up[k] @ heads.down[k]).T) - policy.head(hidden)
        strength = change.gather(1, candidates).std(-1).square().mean().sqrt().item()
        assert strength == pytest.approx(STRENGTH, rel=1e-3)
    assert global_scale(reward_scales(heads, prepared.rewards)) == pytest.approx(1.0, rel=1e-3)


def test_one_factor_brings_the_mean_square_of_strengths_to_the_same(
    policy: LanguageModel, prepared: CachedData
) -> None:
    heads = make_reward_model(policy).heads
    before = global_scale(reward_scales(heads, prepared.rewards))
    heads.up.mul_(4.0)
    assert global_scale(reward_scales(heads, prepared.rewards)) == pytest.approx(before / 4, rel=1e-4)


def test_heads_that_reward_nothing_are_not_scaled(policy: LanguageModel, prepared: CachedData) -> None:
    heads = make_heads(policy)
    found = reward_scales(heads, prepared.rewards)
    assert found.tolist() == [0.0, 0.0]
    assert global_scale(found) == 1.0
    normalise_heads(heads, found)
    assert not heads.up.any()


def test_policy_accuracy_judges_the_guided_distribution_per_token(policy: LanguageModel, tmp_path: Path) -> None:
    """A calibration of 0 leaves the policy alone: the share of pairs whose chosen answer it finds likelier itself.

    Half of the chosen answers are three times as long, so that a sum over tokens would judge otherwise.
    """
    book = SequenceBook()
    pairs = tabulate([replace(p, chosen=p.chosen * (1 + 2 * (n % 2))) for n, p in enumerate(PAIRS)], book)
    sequences, _ = book.tokenised(policy.tokenizer, 512, 512)
    rewards = make_rewards(policy, sequences, tmp_path)
    heads = make_heads(policy)
    metrics = measure(heads, rewards, pairs, pairs.weights(NAMES), calibration=0.0)
    cache, likelier = rewards.cache, []
    hidden = cache.gather("hidden", torch.arange(len(cache)))
    tokens = policy.head(hidden).log_softmax(-1).gather(1, cache.targets[:, None])[:, 0]
    means = [tokens[s : s + n].mean().item() for s, n in zip(cache.starts, cache.lengths, strict=True)]
    for chosen, rejected in zip(pairs.chosen.tolist(), pairs.rejected.tolist(), strict=True):
        likelier.append(means[chosen] > means[rejected])
    assert metrics["policy_accuracy"] == pytest.approx(sum(likelier) / len(likelier), abs=1e-4)
    assert metrics["pairs"] == len(PAIRS)


def test_an_answer_that_occurs_in_several_pairs_is_numbered_once(policy: LanguageModel) -> None:
    book = SequenceBook()
    prompt, other = as_messages("Hi"), as_messages("Why?")
    pairs = [
        PreferencePair(prompt, {"exes": 1.0}, "x", "y"),
        PreferencePair(prompt, {"whys": 1.0}, "y", "x"),
        PreferencePair(other, {"exes": 0.5, "whys": -2.0}, "x", "z"),
    ]
    table = tabulate(pairs, book)
    assert (table.chosen.tolist(), table.rejected.tolist()) == ([0, 1, 2], [1, 0, 3])
    assert table.weights(NAMES).tolist() == [[1.0, 0.0], [0.0, 1.0], [0.5, -2.0]]
    sequences, _ = book.tokenised(policy.tokenizer, 512, 512)
    assert len(sequences) == 4


def test_shuffled_labels_swap_about_half_of_the_pairs_and_lose_none(policy: LanguageModel) -> None:
    plain, shuffled = (tabulate(PAIRS, SequenceBook(), seed) for seed in (None, 3))
    swapped = (plain.chosen == shuffled.rejected) & (plain.rejected == shuffled.chosen)
    kept = (plain.chosen == shuffled.chosen) & (plain.rejected == shuffled.rejected)
    assert (swapped ^ kept).all()
    assert 4 <= swapped.sum() <= 20


def test_an_equal_model_gives_an_equal_training(policy: LanguageModel, prepared: CachedData, tmp_path: Path) -> None:
    """Nothing but data, backbone, stage and seed decides the heads, not even torch's own random state."""
    results = []
    for number in range(2):
        torch.manual_seed(number)
        heads = make_heads(make_language_model(policy.tokenizer, seed=0))
        torch.manual_seed(number + 7)
        train_heads(HeadsStage(stage="heads", **LENGTH), heads, prepared)
        results.append(tensors(heads))
    assert torch.equal(results[0]["up"], results[1]["up"])
