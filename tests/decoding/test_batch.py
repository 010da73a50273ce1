"""`generate_file`: a file of prompts into a file of answers, continued where it was interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pad_cli.decoding.batch import generate_file
from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import DataError, PadError, PreferenceError
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.recipe import DecodingSettings
from tests.agreement import alone, assert_agree
from tests.decoding.conftest import PROMPTS
from tests.tiny import make_reward_model

SETTINGS = DecodingSettings(max_new_tokens=12, batch_size=2, temperature=0.8)


@pytest.fixture
def engine(stopping_policy: LanguageModel, stopping_reward_model: PersonalizedRewardModel) -> PadEngine:
    return PadEngine(stopping_policy, stopping_reward_model)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS])


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_line_is_answered_in_the_order_of_the_source(engine: PadEngine, source: Path, tmp_path: Path) -> None:
    assert generate_file(engine, source, tmp_path / "out.jsonl", ["humorous"], SETTINGS) == len(PROMPTS)
    rows = read(tmp_path / "out.jsonl")
    assert [row["line"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["prompt"][0]["content"] for row in rows] == list(PROMPTS)
    assert all(row["preference"] == ["humorous"] and row["guidance_weight"] == 1.0 for row in rows)
    assert all(row["finish_reason"] in ("stop", "length") and row["tokens"] > 0 for row in rows)


def test_the_answers_are_those_of_the_engine(engine: PadEngine, source: Path, tmp_path: Path) -> None:
    generate_file(engine, source, tmp_path / "out.jsonl", ["humorous"], SETTINGS)
    preferences = [engine.preference(["humorous"])] * len(PROMPTS)
    streams = [str(line) for line in range(1, len(PROMPTS) + 1)]
    answers = engine.generate(PROMPTS, preferences, SETTINGS, streams=streams)
    assert [row["text"] for row in read(tmp_path / "out.jsonl")] == [answer.text for answer in answers]


def test_each_line_may_have_its_own_preference(engine: PadEngine, tmp_path: Path) -> None:
    source = write(
        tmp_path / "prompts.jsonl",
        [
            {"prompt": "Hi", "preference": "formal"},
            {"prompt": "Hi", "preference": ["humorous", "concise=0.5"]},
            {"prompt": [{"role": "user", "content": "Hi"}]},
            {"prompt": "Hi", "preference": None},
        ],
    )
    greedy = DecodingSettings(max_new_tokens=12, guidance_weight=3.0)
    generate_file(engine, source, tmp_path / "out.jsonl", ["not formal"], greedy)
    specs = [["formal"], ["humorous", "concise=0.5"], ["not formal"], ["not formal"]]
    rows = read(tmp_path / "out.jsonl")
    assert [row["preference"] for row in rows] == specs
    expected = engine.generate(["Hi"] * 4, [engine.preference(spec) for spec in specs], greedy)
    assert [row["text"] for row in rows] == [answer.text for answer in expected]
    assert len({row["text"] for row in rows}) == 3


def test_a_finished_file_is_left_as_it_is(engine: PadEngine, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    generate_file(engine, source, target, ["humorous"], SETTINGS)
    before = target.read_bytes()
    assert generate_file(engine, source, target, ["humorous"], SETTINGS) == 0
    assert target.read_bytes() == before


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.55, 0.99], ids=lambda share: f"{share:.0%} written")
def test_an_interrupted_file_is_continued_to_the_same_lines(
    engine: PadEngine, source: Path, tmp_path: Path, kept: float
) -> None:
    """But for near ties: what is left is answered in other batches."""
    target = tmp_path / "out.jsonl"
    generate_file(engine, source, target, ["humorous"], SETTINGS)
    whole = target.read_bytes()
    before, cut = read(target), whole[: int(len(whole) * kept)]
    target.write_bytes(cut)
    assert generate_file(engine, source, target, ["humorous"], SETTINGS) == len(PROMPTS) - cut.count(b"\n")
    after, preferences = read(target), [engine.preference(["humorous"])] * len(PROMPTS)
    streams = [str(line) for line in range(1, len(PROMPTS) + 1)]
    answers = engine.generate(PROMPTS, preferences, SETTINGS, streams=streams)
    texts = [row["text"] for row in after]
    assert_agree(answers, texts, alone(engine, PROMPTS, preferences, SETTINGS, streams=streams))
    for ours, theirs in zip(after, before, strict=True):
        written = {"text", "tokens", "finish_reason"} if ours["text"] != theirs["text"] else set()
        assert {**ours, **{key: theirs[key] for key in written}} == theirs


def test_other_settings_preferences_and_prompts_are_answered_anew(
    engine: PadEngine, source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.jsonl"
    generate_file(engine, source, target, ["humorous"], SETTINGS)
    stronger = SETTINGS.model_copy(update={"guidance_weight": 2.0})
    assert generate_file(engine, source, target, ["humorous"], stronger) == len(PROMPTS)
    assert generate_file(engine, source, target, ["formal"], SETTINGS) == len(PROMPTS)
    write(source, [{"prompt": prompt} for prompt in (*PROMPTS[:5], "Something new")])
    assert generate_file(engine, source, target, ["humorous"], SETTINGS) == 1


def test_another_reward_model_answers_anew(engine: PadEngine, source: Path, tmp_path: Path) -> None:
    """Otherwise training again and running again would silently keep the old model's answers."""
    target = tmp_path / "out.jsonl"
    generate_file(engine, source, target, ["humorous"], SETTINGS)
    other = replace(make_reward_model(engine.policy, seed=9), details={"run": "another"})
    assert generate_file(PadEngine(engine.policy, other), source, target, ["humorous"], SETTINGS) == len(PROMPTS)


@pytest.mark.parametrize(
    ("bad", "error", "names"),
    [
        ({"prompt": ""}, DataError, "prompts.jsonl:4, field 'prompt'"),
        ({"preference": "formal"}, DataError, "prompts.jsonl:4, field 'prompt'"),
        ({"prompt": "Hi", "preference": 3}, DataError, "prompts.jsonl:4, field 'preference'"),
        ({"prompt": "Hi", "preference": ["formal", 3]}, DataError, "prompts.jsonl:4, field 'preference'"),
        (["Hi"], DataError, "prompts.jsonl:4"),
        ({"prompt": "Hi", "preference": "humourous"}, PreferenceError, "humourous"),
    ],
)
def test_one_bad_line_and_nothing_is_answered(
    engine: PadEngine, tmp_path: Path, bad: Any, error: type[PadError], names: str
) -> None:
    source = write(tmp_path / "prompts.jsonl", [{"prompt": prompt} for prompt in PROMPTS[:3]] + [bad])
    with pytest.raises(error) as caught:
        generate_file(engine, source, tmp_path / "out.jsonl", ["formal"], SETTINGS)
    assert names in str(caught.value)
    assert caught.value.hint
    assert not (tmp_path / "out.jsonl").exists()
