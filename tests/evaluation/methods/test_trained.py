"""`dpo`, `soup`, `morl-dpo`, `mod` and `sum`: where they are the same, and what they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pad_cli.decoding.mixture import Expert, _request, generate_mixture
from pad_cli.evaluation.contract import EvalContext
from pad_cli.evaluation.evaluate import evaluate
from pad_cli.evaluation.trained_methods import Dpo, Mod, MorlDpo, Soup, Sum, write_soup
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.checkpoint_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.prompts import encode_prompt
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import DecodingSettings, EvalRecipe, ModelSettings
from pad_cli.records import BenchmarkItem, as_messages
from tests.agreement import alone, assert_agree
from tests.evaluation.methods.subjects import HOW, QUESTIONS, attached, make_subject
from tests.evaluation.methods.test_competitors import write_pairs
from tests.tiny import make_reward_model

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""PEFT's PeftModel asks the model for it."""

METHODS: list[Any] = [Dpo, Soup, MorlDpo, Mod, Sum]
SAMPLED = HOW.model_copy(update={"temperature": 0.9, "candidates": 5})


@pytest.fixture(autouse=True)
def _same_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters are trained once for all tests here."""
    monkeypatch.setenv("PAD_HOME", str(tmp_path_factory.getbasetemp() / "home-trained"))


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_pairs(tmp_path_factory.mktemp("pairs") / "pairs.jsonl")


@pytest.fixture
def subject(policy: LanguageModel, reward_model: PersonalizedRewardModel) -> EvalContext:
    return make_subject(policy, reward_model)


def items(*preference: str) -> list[BenchmarkItem]:
    """Every question under one preference."""
    return [BenchmarkItem(str(n), "g", "l", as_messages(q), preference) for n, q in enumerate(QUESTIONS)]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """The first answer to each item; those that come later have to agree with it."""
    first: dict[str, list[int]] = {}

    def watched(voices: Sequence[Expert], how: DecodingSettings, names: Sequence[str]) -> list[list[int]]:
        made = generate_mixture(voices, how, names)
        for row, (name, answer) in enumerate(zip(names, made, strict=True)):
            request = _request([voice.part(row, row + 1) for voice in voices], how, [name])
            assert_agree([first.setdefault(name, answer)], [answer], [request])
        return made

    monkeypatch.setattr("pad_cli.evaluation.trained_methods.generate_mixture", watched)
    return first


def texts(method: Any, subject: EvalContext, *preference: str, how: DecodingSettings = HOW) -> list[str]:
    return [answer.text for answer in method.answer(subject, items(*preference), how, 0.0)]


def plain(subject: EvalContext, how: DecodingSettings = HOW) -> list[str]:
    return [answer.text for answer in subject.engine.generate(QUESTIONS, None, how)]


@pytest.mark.parametrize("how", [HOW, SAMPLED], ids=["greedy", "sampled"])
def test_of_one_principle_all_five_are_the_same(
    subject: EvalContext, options: dict[str, Any], how: DecodingSettings, answered: dict[str, list[int]]
) -> None:
    other = texts(Dpo(**options), subject, "formal", how=how)
    answered.clear()
    for method in METHODS:
        made = texts(method(**options), subject, "humorous", how=how)
        assert made not in (other, plain(subject, how))
    assert len(answered) == len(QUESTIONS)


def test_of_two_principles_all_five_differ(subject: EvalContext, options: dict[str, Any]) -> None:
    assert len({tuple(texts(method(**options), subject, "humorous", "formal")) for method in METHODS}) == 5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("preference", [["text:make me laugh"], ["text:a, text:b"], ["humorous=0"], []])
def test_what_names_no_principle_is_answered_by_the_plain_policy(
    method: Any, preference: list[str], subject: EvalContext, options: dict[str, Any]
) -> None:
    assert texts(method(**options), subject, *preference) == plain(subject)
    assert texts(method(**options), subject, *preference, how=SAMPLED) == plain(subject, SAMPLED)


def test_free_text_beside_a_name_has_no_effect(subject: EvalContext, options: dict[str, Any]) -> None:
    for method in METHODS:
        named, both = (texts(method(**options), subject, *specs) for specs in (["formal"], ["formal", "text:odd"]))
        assert named == both


def test_dpo_answers_for_the_strongest_principle_and_the_first_of_equal_ones(
    subject: EvalContext, options: dict[str, Any]
) -> None:
    method = Dpo(**options)
    humorous, formal = texts(method, subject, "humorous"), texts(method, subject, "formal")
    assert texts(method, subject, "humorous=0.5", "formal") == formal
    assert texts(method, subject, "humorous", "formal") == humorous
    assert texts(method, subject, "formal", "humorous") == formal
    assert texts(method, subject, "formal", "not humorous=3") == formal


def test_negative_weights_count_where_they_can(subject: EvalContext, options: dict[str, Any]) -> None:
    for method in METHODS:
        without = method in (Dpo, Soup)
        assert (texts(method(**options), subject, "not formal") == plain(subject)) == without


def test_weights_are_relative_for_all_but_sum(subject: EvalContext, options: dict[str, Any]) -> None:
    for method in METHODS[:-1]:
        once, twice = (texts(method(**options), subject, *specs) for specs in (["formal"], ["formal=2"]))
        assert once == twice
    assert texts(Sum(**options), subject, "formal=3") != texts(Sum(**options), subject, "formal")


def test_a_sum_with_hardly_any_weight_is_the_plain_policy(subject: EvalContext, options: dict[str, Any]) -> None:
    expected, requests = subject.engine.generate(QUESTIONS, None, HOW), alone(subject.engine, QUESTIONS, None, HOW)
    assert_agree(expected, texts(Sum(**options), subject, "humorous=1e-6", "formal=1e-6"), requests)
    assert texts(Mod(**options), subject, "humorous=1e-6", "formal=1e-6") != plain(subject)


@pytest.mark.parametrize(
    ("method", "preference", "shares"),
    [
        (Mod, ["humorous=3", "formal"], {"humorous": 0.75, "formal": 0.25}),
        (Mod, ["humorous", "not formal"], {"humorous": 0.5, "formal": -0.5}),
        (Sum, ["humorous=1.5", "formal"], {"humorous": 1.5, "formal": 1.0}),
        (Sum, ["humorous", "not formal"], {"humorous": 1.0, "formal": -1.0}),
    ],
)
def test_the_mixture_is_its_formula_step_by_step(
    method: Any,
    preference: list[str],
    shares: dict[str, float],
    subject: EvalContext,
    options: dict[str, Any],
    answered: dict[str, list[int]],
) -> None:
    """log p + sum_k v_k (log p_k - log p), from all logits, without a cache."""
    policy, mixed = subject.policy, method(**options)
    tokens = encode_prompt(policy.tokenizer, as_messages(QUESTIONS[1]))
    written: list[int] = []
    while len(written) < HOW.max_new_tokens and not set(written) & policy.end_tokens:
        base = log_probs(policy, [*tokens, *written])
        scores = base.clone()
        for name, share in shares.items():
            directory = mixed.adapter(policy, {name: 1.0}).directory
            with attached(policy, directory) as adapter, adapter.on_rows_from(0):
                scores += share * (log_probs(policy, [*tokens, *written]) - base)
        written.append(int(scores.argmax()))
    answered["1"] = written
    assert mixed.answer(subject, items(*preference), HOW, 0.0)[1].text != plain(subject)[1]


@torch.no_grad()
def log_probs(policy: LanguageModel, tokens: list[int]) -> torch.Tensor:
    read = torch.tensor([tokens])
    return policy.head(policy.hidden_states(read, torch.ones_like(read))[:, -1]).log_softmax(-1)[0]


def test_a_soup_averages_the_updates_not_their_factors(
    subject: EvalContext, options: dict[str, Any], tmp_path: Path
) -> None:
    trained = Soup(**options)
    wanted = {"humorous": 0.75, "formal": 0.25}
    parts = [(trained.adapter(subject.policy, {name: 1.0}).directory, share) for name, share in wanted.items()]
    write_soup(parts, tmp_path)
    one, two, mixed = (updates(directory) for directory in (parts[0][0], parts[1][0], tmp_path))
    assert one.keys() == mixed.keys()
    for name, update in mixed.items():
        assert update.abs().max() > 0
        assert torch.allclose(update, 0.75 * one[name] + 0.25 * two[name], atol=1e-7)


def updates(directory: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to each weight: alpha / r * B A."""
    tensors, config = (
        load_file(directory / ADAPTER_WEIGHTS),
        json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8")),
    )
    scale = config["lora_alpha"] / config["r"]
    return {
        name: scale * tensors[name.replace("lora_A", "lora_B")] @ down
        for name, down in tensors.items()
        if "lora_A" in name
    }


def test_a_batch_of_several_preferences_equals_its_single_answers(
    subject: EvalContext, options: dict[str, Any], answered: dict[str, list[int]]
) -> None:
    wanted = [["humorous"], ["text:odd"], ["formal", "humorous"], ["humorous"]]
    batch = [item for n, specs in enumerate(wanted) for item in items(*specs)[n : n + 1]]
    for method in METHODS:
        answered.clear()
        method(**options).answer(subject, batch, SAMPLED, 0.0)
        assert len(answered) == len(batch)
        for item in batch:
            method(**options).answer(subject, [item], SAMPLED, 0.0)


@pytest.mark.parametrize(("method", "models"), [(Dpo, 1), (Soup, 2), (MorlDpo, 1), (Mod, 2), (Sum, 2)])
def test_the_cost_is_that_of_the_adapters_which_the_items_need(
    method: Any, models: int, policy: LanguageModel, reward_model: PersonalizedRewardModel, options: dict[str, Any]
) -> None:
    asked = (*items("humorous", "formal=0.5"), *items("text:odd"))
    engine = make_subject(policy, reward_model).engine
    subject = EvalContext("tiny", engine, asked)
    cost = method(**options).prepare(subject)
    assert cost.models == models
    assert cost.seconds > 0
    assert cost == method(**options).prepare(subject)


def test_an_evaluation_states_the_cost_again_when_it_runs_again(
    policy: LanguageModel, model_directory: Path, options: dict[str, Any], tmp_path: Path
) -> None:
    settings = ModelSettings(model=str(model_directory), device="cpu")
    (tmp_path / "reward-model").mkdir()
    save_reward_model(make_reward_model(policy), tmp_path / "reward-model", settings)
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "Hi"}\n{"prompt": "Why?"}\n', encoding="utf-8")
    asked = {"path": str(tmp_path / "prompts.jsonl"), "preferences": ["humorous", "formal, humorous"]}

    def run(output: str) -> list[dict[str, Any]]:
        evaluate(
            EvalRecipe.model_validate(
                {
                    "kind": "eval",
                    "output": str(tmp_path / output),
                    "policies": {"home": settings.model_dump()},
                    "reward_model": str(tmp_path / "reward-model"),
                    "methods": [{"method": name, "options": options} for name in ("dpo", "morl-dpo")],
                    "benchmarks": [{"benchmark": "jsonl", "options": asked}],
                    "scorers": ["words"],
                    "decoding": {"max_new_tokens": 4},
                }
            )
        )
        rows: list[dict[str, Any]] = json.loads((tmp_path / output / "costs.json").read_text(encoding="utf-8"))
        return [{key: row[key] for key in ("method", "models", "parameters", "training_seconds")} for row in rows]

    first = run("first")
    assert [(row["method"], row["models"]) for row in first] == [("dpo", 2), ("morl-dpo", 2)]
    assert all(row["parameters"] > 0 for row in first)
    assert run("second") == run("first") == first
