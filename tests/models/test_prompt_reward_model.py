"""The authors' released form: their score from the formula, their prompt to the letter, and what cannot be loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from pad_cli.equation import guided_scores, select_candidates
from pad_cli.errors import CheckpointError, DataError, ModelLoadError, PreferenceError
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.checkpoint_files import VALUE_HEAD
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import PromptRewardModel
from pad_cli.preference import Preference
from pad_cli.records import Messages, as_messages

WEIGHT, BIAS = "v_head.summary.weight", "v_head.summary.bias"
QUESTIONS = ("How do I bake bread?", "Explain tides.", "Why sail?", "Name a bird.")
CANDIDATES = 10


def make_head(size: int, *, spread: float = 0.3, seed: int = 0) -> torch.nn.Linear:
    """A dense head as far from the identity as `spread`; at 0 it is the authors' head at birth."""
    generator = torch.Generator().manual_seed(seed)
    head = torch.nn.Linear(size, size)
    with torch.no_grad():
        head.weight.copy_(torch.eye(size) + spread * torch.randn(size, size, generator=generator) / size**0.5)
        head.bias.copy_(spread * torch.randn(size, generator=generator))
    return head.eval().requires_grad_(False)


def tensors_of(head: torch.nn.Linear) -> dict[str, torch.Tensor]:
    return {WEIGHT: head.weight.detach().clone(), BIAS: head.bias.detach().clone()}


@pytest.fixture
def model(other_policy: LanguageModel) -> PromptRewardModel:
    return PromptRewardModel(other_policy, make_head(other_policy.hidden_size))


@pytest.fixture
def saved(model: PromptRewardModel, tmp_path: Path) -> Path:
    """The files that the authors' program leaves: a language model, and the head beside it."""
    directory = tmp_path / "released"
    model.backbone.model.save_pretrained(directory)
    model.backbone.tokenizer.save_pretrained(directory)
    save_file(tensors_of(model.head), directory / VALUE_HEAD)
    return directory


def load(location: Path | str, **options: Any) -> PromptRewardModel:
    model = load_reward_model(str(location), device="cpu", **options)
    assert isinstance(model, PromptRewardModel)
    return model


def prompt_tokens(model: PromptRewardModel, question: str) -> torch.Tensor:
    messages = model.prompt(as_messages(question), model.preference(["harmless and humor"]))
    return torch.tensor([encode_prompt(model.backbone.tokenizer, messages)])


def authors_scores(
    policy: LanguageModel, model: PromptRewardModel, tokens: torch.Tensor, rm_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """inference/PAD.py on one prompt, from transformers' own modules: the policy's candidates and their scores."""
    policy_logits, candidates = policy.model(tokens).logits[0, -1].topk(CANDIDATES)
    reward_model = model.backbone.model
    h = reward_model.model(tokens).last_hidden_state[0, -1]
    logits = reward_model.lm_head(model.head.weight @ h + model.head.bias)
    rewards = logits[candidates].log_softmax(-1) - policy_logits.log_softmax(-1)
    return candidates, policy_logits + rm_weight * rewards


@pytest.mark.parametrize("weight", [0.5, 0.8, 1.5])
def test_guided_scores_are_the_authors_up_to_a_constant_of_the_state(
    policy: LanguageModel, model: PromptRewardModel, weight: float
) -> None:
    moved = 0
    for question in QUESTIONS:
        tokens = prompt_tokens(model, question)
        mask = torch.ones_like(tokens)
        candidates, log_probs = select_candidates(policy.head(policy.hidden_states(tokens, mask)[:, -1]), CANDIDATES)
        hidden = model.backbone.hidden_states(tokens, mask)[:, -1]
        shifted = hidden + model.shift(hidden, model.weights([Preference({}, {})]))
        rewards = model.backbone.head.at(shifted, candidates) - log_probs
        scores = guided_scores(log_probs, rewards, torch.tensor([weight]))[0]
        expected_candidates, expected = authors_scores(policy, model, tokens, weight)
        assert torch.equal(candidates[0], expected_candidates)
        torch.testing.assert_close(scores - scores.mean(), expected - expected.mean(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(scores.softmax(-1), expected.softmax(-1), atol=1e-4, rtol=1e-4)
        assert scores.argmax() == expected.argmax()
        moved += int(expected.argmax() != 0)
    assert moved, "or the reward model chose nothing that the policy would not have chosen alone"


def test_the_head_at_birth_shifts_nothing(other_policy: LanguageModel) -> None:
    model = PromptRewardModel(other_policy, make_head(other_policy.hidden_size, spread=0.0))
    hidden = torch.randn(5, other_policy.hidden_size)
    assert not model.shift(hidden, model.weights([Preference({}, {})] * 5)).any()


def test_weights_have_a_row_for_each_preference_and_no_columns(model: PromptRewardModel) -> None:
    weights = model.weights([model.preference(["humor"]), Preference({}, {}), Preference({}, {})])
    assert weights.shape == (3, 0)
    assert weights.device == model.backbone.device
    assert model.principles == ()


def test_a_round_trip_keeps_every_shift(model: PromptRewardModel, saved: Path) -> None:
    loaded = load(saved)
    hidden = torch.randn(4, model.backbone.hidden_size)
    nothing = model.weights([Preference({}, {})] * 4)
    assert torch.equal(loaded.shift(hidden, nothing), model.shift(hidden, nothing))
    assert loaded.fingerprint == model.fingerprint
    assert (loaded.calibration, loaded.adapter) == (1.0, None)


def test_a_loaded_model_is_frozen(saved: Path) -> None:
    loaded = load(saved)
    modules = (loaded.head, loaded.backbone.model)
    assert not any(module.training for module in modules)
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())


def test_loading_draws_no_random_numbers(saved: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load(saved)
    assert torch.equal(torch.rand(3), expected)


def test_the_head_keeps_its_precision_on_a_backbone_of_sixteen_bits(saved: Path, model: PromptRewardModel) -> None:
    """A step of 1e-4 from the identity is far below a bfloat16's resolution at 1, and steers all the same."""
    head = make_head(model.backbone.hidden_size, spread=1e-4)
    save_file(tensors_of(head), saved / VALUE_HEAD)
    loaded = load(saved, dtype="bfloat16")
    assert loaded.backbone.head.weight.dtype == torch.bfloat16
    hidden = torch.randn(6, loaded.backbone.hidden_size).bfloat16()
    difference = head.weight.double() - torch.eye(loaded.backbone.hidden_size)
    expected = hidden.double() @ difference.T + head.bias.double()
    shift = loaded.shift(hidden, loaded.weights([Preference({}, {})] * 6))
    torch.testing.assert_close(shift.double(), expected, atol=2e-6, rtol=0.0)


def test_a_head_stored_in_sixteen_bits_is_read_as_it_is(saved: Path, model: PromptRewardModel) -> None:
    halved = {name: tensor.bfloat16() for name, tensor in tensors_of(model.head).items()}
    save_file(halved, saved / VALUE_HEAD)
    loaded = load(saved)
    assert torch.equal(loaded.head.weight, halved[WEIGHT].float())
    assert torch.equal(loaded.head.bias, halved[BIAS].float())


def test_the_fingerprint_is_of_backbone_head_and_calibration(model: PromptRewardModel, policy: LanguageModel) -> None:
    same = PromptRewardModel(model.backbone, make_head(model.backbone.hidden_size))
    assert same.fingerprint == model.fingerprint
    others = [
        PromptRewardModel(model.backbone, make_head(model.backbone.hidden_size, seed=1)),
        PromptRewardModel(policy, make_head(model.backbone.hidden_size)),
        replace(model, calibration=2.0),
    ]
    assert len({each.fingerprint for each in (model, *others)}) == 4
    with torch.no_grad():
        same.head.bias[-1] += 1e-3
    assert replace(same).fingerprint != model.fingerprint


def give(**tensors: torch.Tensor) -> Callable[[Path], None]:
    """Other tensors in the head's file; names with underscores for dots."""
    return lambda directory: save_file(
        {k.replace("_S_", ".summary."): v for k, v in tensors.items()}, directory / VALUE_HEAD
    )


def pickle_only(directory: Path) -> None:
    """The form that would run code: here, code that the test would notice."""
    (directory / VALUE_HEAD).unlink()
    (directory / "value_head.bin").write_bytes(b"cbuiltins\nexit\n(I3\ntR.")


def cut_short(directory: Path) -> None:
    content = (directory / VALUE_HEAD).read_bytes()
    (directory / VALUE_HEAD).write_bytes(content[: len(content) // 2])


SQUARE, ROW = torch.eye(24), torch.zeros(24)


@pytest.mark.parametrize(
    ("damage", "names"),
    [
        pytest.param(lambda d: (d / VALUE_HEAD).unlink(), "no pad_config.json", id="no head"),
        pytest.param(pickle_only, "value_head.bin only: a pickle", id="pickle only"),
        pytest.param(lambda d: shutil.rmtree(d), "No reward model", id="no directory"),
        pytest.param(give(v_head_S_weight=SQUARE), f"{BIAS} missing", id="no bias"),
        pytest.param(give(v_head_S_bias=ROW), f"{WEIGHT} missing", id="no weight"),
        pytest.param(give(), f"{BIAS} missing", id="no tensors"),
        pytest.param(
            give(v_head_S_weight=SQUARE, v_head_S_bias=ROW, w_head_S_bias=ROW.clone()),
            "w_head.summary.bias (24,) for none",
            id="a second head",
        ),
        pytest.param(
            give(v_head_S_weight=torch.zeros(1, 24), v_head_S_bias=torch.zeros(1)),
            f"{BIAS} (1,) for (24,), {WEIGHT} (1, 24) for (24, 24)",
            id="a scalar value head",
        ),
        pytest.param(give(v_head_S_weight=torch.eye(32), v_head_S_bias=torch.zeros(32)), "(32, 32)", id="other size"),
        pytest.param(give(v_head_S_weight=SQUARE, v_head_S_bias=torch.zeros(1)), f"{BIAS} (1,)", id="other bias"),
        pytest.param(cut_short, "damaged", id="cut short"),
        pytest.param(lambda d: (d / VALUE_HEAD).write_bytes(b""), "damaged", id="empty"),
    ],
)
def test_a_head_that_does_not_fit_is_refused_and_named(saved: Path, damage: Callable[[Path], None], names: str) -> None:
    damage(saved)
    with pytest.raises(CheckpointError) as caught:
        load(saved)
    assert names in caught.value.message
    assert str(saved) in caught.value.message
    assert caught.value.hint


def test_a_head_without_a_language_model_is_a_load_error(saved: Path) -> None:
    (saved / "config.json").unlink()
    with pytest.raises(ModelLoadError):
        load(saved)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, without the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("location", ["owner/name", "name", "a/b/c", "./name", "~/name", "/name", "", "no such/thing?"])
def test_what_cannot_be_found_is_not_the_released_form(hub_cache: Path, location: str) -> None:
    with pytest.raises(CheckpointError):
        load(location)


def cache(source: Path, repository: Path) -> None:
    """Put a directory into the hub's cache as it lies there after a download."""
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(source, repository / "snapshots" / ("0" * 40))


def test_a_hub_repository_that_was_fetched_before_loads_without_network(
    hub_cache: Path, saved: Path, model: PromptRewardModel
) -> None:
    cache(saved, hub_cache / "models--owner--name")
    loaded = load("owner/name")
    assert loaded.fingerprint == model.fingerprint
    assert loaded.backbone.name == "owner/name"


def test_a_name_without_an_owner_is_no_hub_id(hub_cache: Path, saved: Path) -> None:
    """As everywhere in this program: `name` is a directory, and the hub is not asked for one that is missing."""
    cache(saved, hub_cache / "models--name")
    with pytest.raises(CheckpointError, match="No reward model at 'name'"):
        load("name")


AUTHORS = "[Guidelines] Your task is to generate response by considering the following principle. [Principles] "


@pytest.mark.parametrize(
    ("specs", "principles"),
    [
        (["humor"], "humor"),
        (["harmless and helpfulness and humor"], "harmless and helpfulness and humor"),
        (["harmless", "helpfulness", "humor"], "harmless and helpfulness and humor"),
        (["harmless, humor"], "harmless and humor"),
        (["humor", "harmless"], "humor and harmless"),
        (["text:not formal"], "not formal"),
        (["as a pirate {would} talk"], "as a pirate {would} talk"),
    ],
)
def test_the_prompt_is_the_authors_to_the_letter(model: PromptRewardModel, specs: list[str], principles: str) -> None:
    prompt = model.prompt(as_messages("Why {sail}?\n"), model.preference(specs))
    assert prompt == ({"role": "user", "content": f"{AUTHORS}{principles} [Instruction] Why {{sail}}?\n"},)


def test_the_last_user_message_of_a_conversation_is_wrapped_and_no_other(model: PromptRewardModel) -> None:
    system = {"role": "system", "content": "Be kind."}
    turns = ({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."})
    question, begun = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because"}
    wrapped = {"role": "user", "content": f"{AUTHORS}humor [Instruction] Why?"}
    preference = model.preference(["humor"])
    assert model.prompt((system, *turns, question), preference) == (system, *turns, wrapped)
    assert model.prompt((question, begun), preference) == (wrapped, begun)
    assert question["content"] == "Why?", "the conversation given is left as it was"


def test_an_empty_preference_leaves_the_conversation_alone(model: PromptRewardModel) -> None:
    conversation = as_messages("Why?")
    assert model.prompt(conversation, model.preference([])) == conversation
    assert model.prompt(conversation, model.preference(["humor=0"])) == conversation


@pytest.mark.parametrize(
    "conversation",
    [(), as_messages(""), as_messages(" \n"), ({"role": "system", "content": "Be kind."},)],
)
def test_a_conversation_without_a_question_is_refused(model: PromptRewardModel, conversation: Messages) -> None:
    with pytest.raises(DataError, match="no user message") as caught:
        model.prompt(conversation, model.preference(["humor"]))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("specs", "names"),
    [
        (["not formal"], "'formal' the weight -1"),
        (["humor=0.5"], "'humor' the weight 0.5"),
        (["harmless, without jargon"], "'jargon' the weight -1"),
        (["humor", "humor"], "'humor' the weight 2"),
    ],
)
def test_a_weight_that_text_cannot_carry_is_refused(model: PromptRewardModel, specs: list[str], names: str) -> None:
    with pytest.raises(PreferenceError, match=names) as caught:
        model.preference(specs)
    assert caught.value.hint


def test_the_hint_for_a_refused_negation_can_be_followed(model: PromptRewardModel) -> None:
    with pytest.raises(PreferenceError) as caught:
        model.preference(["not formal"])
    followed = caught.value.hint.rpartition("write: ")[2]
    assert model.preference([followed]) == Preference({}, {"not formal": 1.0})


def test_a_preference_read_for_another_reward_model_is_worded_or_refused(model: PromptRewardModel) -> None:
    """Its principles are names there and words here; their weights are no less refused."""
    conversation = as_messages("Why?")
    named = model.prompt(conversation, Preference({"humorous": 1.0}, {"short": 1.0}))
    assert named[0]["content"] == f"{AUTHORS}humorous and short [Instruction] Why?"
    with pytest.raises(PreferenceError, match="'humorous' the weight -1"):
        model.prompt(conversation, Preference({"humorous": -1.0}, {}))
