"""`control-vector`: what its directions are, and that they are added and taken away again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pad_cli.errors import RecipeError
from pad_cli.evaluation.contract import EvalContext, load_method
from pad_cli.evaluation.control_vector import ControlVector
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_answer, encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import MethodSettings
from pad_cli.records import BenchmarkItem, as_messages
from tests.architectures import make_architecture
from tests.evaluation.methods.subjects import HOW, QUESTIONS, make_items, make_subject
from tests.evaluation.methods.test_competitors import write_pairs


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "home"))


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    return {"data": write_pairs(tmp_path / "pairs.jsonl")["data"], "depth": 0.5}


@pytest.fixture
def subject(policy: LanguageModel, reward_model: PersonalizedRewardModel) -> EvalContext:
    return make_subject(policy, reward_model)


def answers(method: ControlVector, subject: EvalContext, preference: str, weight: float) -> list[tuple[int, ...]]:
    """The tokens of the answers to every question under one preference."""
    asked = [BenchmarkItem(str(n), "g", "l", as_messages(q), (preference,)) for n, q in enumerate(QUESTIONS)]
    return [each.token_ids for each in method.answer(subject, asked, HOW, weight)]


def test_a_direction_is_the_mean_difference_of_the_layers_own_output(
    subject: EvalContext, options: dict[str, Any]
) -> None:
    """transformers lists the output of layer l as hidden state l."""
    method, policy = ControlVector(**options), subject.policy
    cost = method.prepare(subject)
    layer = round(0.5 * policy.model.config.num_hidden_layers)
    differences: list[torch.Tensor] = []
    for pair in method._pairs:
        if "formal" in pair.preference:
            means = []
            for text in (pair.chosen, pair.rejected):
                prompt, answer = encode_prompt(policy.tokenizer, pair.prompt), encode_answer(policy.tokenizer, text)
                states = policy.model(torch.tensor([[*prompt, *answer]]), output_hidden_states=True).hidden_states
                means.append(states[layer][0, len(prompt) - 1 : -1].mean(0))
            differences.append((means[0] - means[1]) * pair.preference["formal"])
    found = method._vectors[policy.fingerprint]
    torch.testing.assert_close(found[0], torch.stack(differences).mean(0), atol=1e-5, rtol=1e-4)
    assert (cost.models, cost.parameters) == (2, 2 * policy.hidden_size)


def test_it_answers_by_the_weights_times_the_guidance_weight(subject: EvalContext, options: dict[str, Any]) -> None:
    method = ControlVector(**options)
    plain = [each.token_ids for each in subject.engine.generate(QUESTIONS, None, HOW)]
    steered = answers(method, subject, "formal", 20.0)
    assert steered != plain
    assert answers(method, subject, "formal=2", 10.0) == steered
    assert answers(method, subject, "not formal", -20.0) == steered
    assert answers(method, subject, "humorous", 20.0) != steered
    for preference, weight in (("formal", 0.0), ("text:as a poem", 20.0), ("concise", 20.0)):
        assert answers(method, subject, preference, weight) == plain
    assert [each.token_ids for each in subject.engine.generate(QUESTIONS, None, HOW)] == plain


def test_items_of_several_preferences_are_answered_each_under_its_own(
    subject: EvalContext, options: dict[str, Any]
) -> None:
    method, items = ControlVector(**options), make_items(("formal", "humorous", "formal", "not formal"))
    together = method.answer(subject, items, HOW, 20.0)
    assert together == [method.answer(subject, [item], HOW, 20.0)[0] for item in items]


def test_it_is_read_once(subject: EvalContext, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = ControlVector(**options).prepare(subject)
    monkeypatch.setattr(ControlVector, "_directions", None)
    again = ControlVector(**options)
    assert again.prepare(subject) == first
    assert answers(again, subject, "formal", 20.0)


@pytest.mark.parametrize("name", ["gpt2", "opt", "gemma2"])
def test_other_architectures_take_it(
    name: str, byte_tokenizer: Any, reward_model: PersonalizedRewardModel, options: dict[str, Any]
) -> None:
    subject = make_subject(make_architecture(name, byte_tokenizer), reward_model)
    method = ControlVector(**options)
    assert answers(method, subject, "formal", 20.0) != answers(method, subject, "formal", 0.0)


def test_pairs_that_name_no_principle_are_refused(subject: EvalContext, tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    row = {"prompt": "a", "preference": {"a": 1, "b": 1}, "chosen": "c", "rejected": "d"}
    path.write_text(json.dumps(row), encoding="utf-8")
    settings = MethodSettings(method="control-vector", options={"data": {"train": str(path), "contrast": False}})
    with pytest.raises(RecipeError, match="names one principle alone"):
        load_method(settings).prepare(subject)
