"""Effects of preferences on heads whose relations are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import DataError
from pad_cli.evaluation.sequence_rewards import answer_tokens, sequence_rewards
from pad_cli.learning.effect import measure_effect, read_prompts
from pad_cli.models.language_model import LanguageModel
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import as_messages
from tests.tiny import make_reward_model

HOW = DecodingSettings(max_new_tokens=10, guidance_weight=3.0)
PROMPTS = [as_messages(text) for text in ("Hi", "Why?", "How do I bake bread?", "Tell me.", "A word on trees", "And?")]


@pytest.fixture
def engine(policy: LanguageModel) -> PadEngine:
    """`formal` is the opposite of `humorous`, and `concise` rewards what `humorous` does."""
    model = make_reward_model(policy)
    with torch.no_grad():
        model.heads.down.copy_(model.heads.down[:1].expand_as(model.heads.down).clone())
        up = model.heads.up[:1].clone()
        model.heads.up.copy_(torch.cat([up, -up, up]))
    return PadEngine(policy, model)


def test_a_part_is_lost_beside_its_opposite_and_kept_beside_its_companion(engine: PadEngine) -> None:
    def gains(*specs: str) -> dict[str, tuple[float, float]]:
        rewards = measure_effect(engine, engine.preference(specs), PROMPTS, HOW).rewards
        return {each.preference: (each.alone - each.plain, each.steered - each.plain) for each in rewards[:2]}

    for specs, kept in ((("humorous", "concise"), True), (("humorous=2", "formal"), False)):
        alone, together = gains(*specs)[specs[1]]
        assert alone > 0
        assert (together > alone / 2) is kept


def test_only_parts_are_answered_for_alone(engine: PadEngine) -> None:
    (one, *others) = measure_effect(engine, engine.preference(["not formal"]), PROMPTS, HOW).rewards
    assert (one.preference, one.alone) == ("not formal", one.steered)
    assert [(each.preference, each.alone) for each in others] == [("humorous", None), ("concise", None)]


def test_an_effect_is_the_engines_answers_and_their_mean_rewards(engine: PadEngine) -> None:
    wanted = engine.preference(["humorous=2"])
    effect = measure_effect(engine, wanted, PROMPTS, HOW)
    steered = engine.generate(PROMPTS, [wanted] * len(PROMPTS), HOW)
    assert effect.plain == tuple(each.text for each in engine.generate(PROMPTS, None, HOW))
    assert effect.steered == tuple(each.text for each in steered)
    assert [each.preference for each in effect.rewards] == ["humorous=2", "formal", "concise"]
    model, unit = engine.reward_model, Preference({"humorous": 2.0}, {})
    assert model is not None
    tokens = [answer_tokens(model, each.text, ended=each.finish_reason == "stop") for each in steered]
    rewards = sequence_rewards(model, engine.policy, PROMPTS, [unit] * len(PROMPTS), tokens)
    assert effect.rewards[0].steered == pytest.approx(rewards.mean().item(), abs=1e-5)
    assert effect.rewards[0].steered > effect.rewards[0].plain


def test_prompts_are_read_once_each_and_so_many(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("a", "b", "a", "c")), encoding="utf-8")
    assert [prompt[0]["content"] for prompt in read_prompts(path, 9)] == ["a", "b", "c"]
    assert len(read_prompts(path, 2)) == 2
    path.write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="no rows"):
        read_prompts(path, 2)


def test_the_embedded_prompts_are_distinct() -> None:
    assert len({prompt[0]["content"] for prompt in read_prompts(None, 16)}) == 16
