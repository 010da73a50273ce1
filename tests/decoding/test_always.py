"""The safety floor: what is always asked for, whatever else is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pad_cli.decoding.batch import generate_file
from pad_cli.decoding.engine import PadEngine
from pad_cli.decoding.items import clamp_to_minimum
from pad_cli.errors import PreferenceError, UsageError
from pad_cli.models.heads import PreferenceEncoder
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference, with_floor
from pad_cli.recipe import DecodingSettings
from tests.tiny import PRINCIPLES
from tests.token_prompts import generate_ids

HOW = DecodingSettings(max_new_tokens=12, guidance_weight=3.0)
FLOOR = {"formal": 1.5}


@pytest.fixture
def engine(policy: LanguageModel, reward_model: PersonalizedRewardModel) -> PadEngine:
    return PadEngine(policy, reward_model, always=FLOOR)


@pytest.mark.parametrize(
    ("specs", "formal"),
    [([], 1.5), (["not formal=9"], 1.5), (["formal=0.5"], 1.5), (["formal=2"], 2.0), (["humorous"], 1.5)],
)
def test_no_preference_has_less_than_the_floor(engine: PadEngine, specs: list[str], formal: float) -> None:
    assert engine.preference(specs).weights["formal"] == formal


def test_a_floor_leaves_all_else_as_it_is_and_twice_is_once() -> None:
    asked = Preference({"humorous": -1.0, "formal": -3.0}, {"a poem": 1.0})
    held = with_floor(asked, FLOOR)
    assert held == Preference({"humorous": -1.0, "formal": 1.5}, {"a poem": 1.0})
    assert with_floor(held, FLOOR) == held
    assert with_floor(asked, {}) == asked


def test_a_profile_cannot_outweigh_the_floor(
    engine: PadEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "me.yaml").write_text("weights: {formal: -50, concise: 1}", encoding="utf-8")
    assert engine.preference(["@me"]).weights == {"formal": 1.5, "concise": 1.0}


def test_a_preference_made_by_hand_is_held_up_as_well(engine: PadEngine) -> None:
    made = Preference({"formal": -5.0, "humorous": 1.0}, {})
    expected = PadEngine(engine.policy, engine.reward_model).generate(
        ["Hi"], [Preference({"formal": 1.5, "humorous": 1.0}, {})], HOW
    )
    assert engine.generate(["Hi"], [made], HOW) == expected
    assert "".join(engine.stream("Hi", made, HOW)) == expected[0].text
    assert generate_ids(engine, [[5, 6]], made, HOW) == generate_ids(engine, [[5, 6]], "not formal, humorous", HOW)


def test_the_empty_preference_is_steered_to_the_floor(engine: PadEngine) -> None:
    plain = PadEngine(engine.policy, engine.reward_model)
    expected = plain.generate(["Hi"], [plain.preference(["formal=1.5"])], HOW)
    assert engine.generate(["Hi"], [engine.preference([])], HOW) == expected
    assert expected != plain.generate(["Hi"], None, HOW)


def test_without_preferences_the_policy_is_on_its_own(engine: PadEngine) -> None:
    assert engine.generate(["Hi"], None, HOW) == PadEngine(engine.policy).generate(["Hi"], None, HOW)


def test_free_text_cannot_take_away_what_is_held_up() -> None:
    weights = torch.tensor([[1.0, 1.5 - 4.0, 0.0], [-2.0, 2.0, 1.0]])  # named and text weights, added
    assert clamp_to_minimum(weights, FLOOR, PRINCIPLES).tolist() == [[1.0, 1.5, 0.0], [-2.0, 2.0, 1.0]]
    assert torch.equal(clamp_to_minimum(weights, {}, PRINCIPLES), weights)


def test_free_text_is_held_up_where_answers_are_decoded(reward_model: PersonalizedRewardModel) -> None:
    """An encoder that reads every text as -9 of everything."""
    encoder = PreferenceEncoder(reward_model.backbone.hidden_size, 5, len(PRINCIPLES)).eval().requires_grad_(False)
    encoder.network[-1].weight.zero_()
    encoder.network[-1].bias.fill_(-9.0)
    model = replace(reward_model, encoder=encoder)
    engine = PadEngine(model.backbone, model, always=FLOOR)
    expected = PadEngine(model.backbone, model).generate(
        ["Hi"], [Preference({"humorous": -9.0, "formal": 1.5, "concise": -9.0}, {})], HOW
    )
    assert engine.generate(["Hi"], [engine.preference(["be rude"])], HOW) == expected


def test_a_floor_is_of_principles_that_the_reward_model_knows(
    policy: LanguageModel, reward_model: PersonalizedRewardModel
) -> None:
    with pytest.raises(PreferenceError, match=r"'formall'[\s\S]*formal"):
        PadEngine(policy, reward_model, always={"formall": 1.0})
    for weight in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UsageError, match="above 0"):
            PadEngine(policy, reward_model, always={"formal": weight})
    with pytest.raises(UsageError, match="named principles"):
        PadEngine(policy, always=FLOOR)
    assert PadEngine(policy, reward_model, always={"Formal": 1.0}).always == {"formal": 1.0}


def test_a_negative_guidance_weight_cannot_turn_the_floor_round(engine: PadEngine) -> None:
    wanted = engine.preference([])
    with pytest.raises(UsageError, match="negative guidance weight"):
        engine.generate(["Hi"], [wanted], HOW, [-1.0])
    with pytest.raises(UsageError, match="negative guidance weight"):
        engine.generate(["Hi"], [wanted], HOW.model_copy(update={"guidance_weight": -1.0}))


def test_a_file_of_answers_says_what_was_asked_and_what_was_always(
    engine: PadEngine, reward_model: PersonalizedRewardModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, target = tmp_path / "prompts.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"prompt": "Hi", "preference": "@me, not formal"}\n', encoding="utf-8")
    profile = tmp_path / "profiles" / "me.yaml"
    profile.parent.mkdir()
    for weight, answered in ((1, 1), (1, 0), (2, 1)):  # another profile is another question
        profile.write_text(f"weights: {{concise: {weight}}}", encoding="utf-8")
        assert generate_file(engine, source, target, [], HOW) == answered
    first, second = (json.loads(line) for line in target.read_text(encoding="utf-8").splitlines())
    assert first["preference"] == ["@me, not formal"]
    assert (first["effective_preference"], first["always"]) == ("formal=1.5, concise", FLOOR)
    assert second["effective_preference"] == "formal=1.5, concise=2"
    assert generate_file(PadEngine(engine.policy, reward_model), source, target, [], HOW) == 1
