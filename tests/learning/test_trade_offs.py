"""Conflicts and effects on heads whose relations are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import DataError, UsageError
from pad_cli.evaluation.sequence_rewards import answer_tokens, sequence_rewards
from pad_cli.learning.trade_offs import count_answers, measure_effect, measure_trade_offs, parts_of, read_prompts
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


def test_opposites_conflict_and_companions_do_not(engine: PadEngine) -> None:
    parts = parts_of(engine.preference(["humorous, formal, concise"]))
    found = {
        frozenset((pair.first.preference, pair.second.preference)): pair
        for pair in measure_trade_offs(engine, parts, PROMPTS, HOW)
    }
    conflicts = {names for names, pair in found.items() if pair.conflict}
    assert conflicts == {frozenset(("humorous", "formal")), frozenset(("formal", "concise"))}
    companions = found[frozenset(("humorous", "concise"))]
    assert companions.left > 0.5
    assert not companions.first.lost
    assert not companions.second.lost


def test_the_worst_conflict_comes_first_and_every_pair_is_there(engine: PadEngine) -> None:
    pairs = measure_trade_offs(engine, parts_of(engine.preference(["humorous, formal, concise"])), PROMPTS, HOW)
    assert [pair.conflict for pair in pairs] == [True, True, False]
    assert pairs[0].left <= pairs[1].left


def test_what_is_avoided_conflicts_as_what_is_wanted_does(engine: PadEngine) -> None:
    (pair,) = measure_trade_offs(engine, parts_of(engine.preference(["humorous, not concise"])), PROMPTS, HOW)
    assert pair.conflict
    (pair,) = measure_trade_offs(engine, parts_of(engine.preference(["humorous, not formal"])), PROMPTS, HOW)
    assert not pair.conflict


def test_without_guidance_nothing_is_gained_and_so_nothing_lost(engine: PadEngine) -> None:
    weak = HOW.model_copy(update={"guidance_weight": 0.0})
    (pair,) = measure_trade_offs(engine, parts_of(engine.preference(["humorous, formal"])), PROMPTS, weak)
    assert (pair.first.alone, pair.second.alone, pair.conflict, pair.first.share) == (0.0, 0.0, False, None)


def test_as_many_answers_are_given_as_were_counted(engine: PadEngine) -> None:
    done: list[int] = []
    measure_trade_offs(engine, parts_of(engine.preference(["humorous, formal, concise"])), PROMPTS, HOW, done.append)
    assert sum(done) == count_answers(3, len(PROMPTS)) == 7 * len(PROMPTS)


def test_few_prompts_tell_of_no_conflict(engine: PadEngine) -> None:
    with pytest.raises(UsageError, match="4 prompts are too few"):
        measure_trade_offs(engine, parts_of(engine.preference(["humorous, formal"])), PROMPTS[:4], HOW)


def test_an_effect_is_the_engines_answers_and_their_mean_rewards(engine: PadEngine) -> None:
    wanted = engine.preference(["humorous=2"])
    effect = measure_effect(engine, wanted, PROMPTS, HOW)
    steered = engine.generate(PROMPTS, [wanted] * len(PROMPTS), HOW)
    assert effect.plain == tuple(each.text for each in engine.generate(PROMPTS, None, HOW))
    assert effect.steered == tuple(each.text for each in steered)
    assert [each.principle for each in effect.rewards] == ["humorous", "formal", "concise"]
    model, unit = engine.reward_model, Preference({"humorous": 1.0}, {})
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
