"""`pad generate` on a tiny local policy and a tiny local reward model."""

from __future__ import annotations

import ast
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pad_cli.models.checkpoint import save_reward_model
from pad_cli.recipe import ModelSettings
from tests.cli.test_commands import pad, refused
from tests.tiny import make_language_model, make_reward_model, make_tokenizer

ALONE = ["--set", "decoding.batch_size=1"]
"""For the same answers to the last token: in other batches a near tie could fall otherwise."""


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def reward_directory(policy: Any, model_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("reward-model")
    save_reward_model(make_reward_model(policy), directory, ModelSettings(model=str(model_directory)))
    return directory


@pytest.fixture
def models(model_directory: Path, reward_directory: Path) -> list[str]:
    """The options that every command here needs."""
    return ["--policy", str(model_directory), "--reward-model", str(reward_directory), "--max-new-tokens", "12", "-q"]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    rows: list[dict[str, Any]] = [
        {"prompt": "How?"},
        {"prompt": [{"role": "user", "content": "Why?"}], "preference": ["concise=2", "not formal"]},
        {"prompt": "How?", "preference": "formal"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer(*arguments: str, stdin: str | None = None) -> dict[str, Any]:
    result = pad("generate", *arguments, "--json", stdin=stdin)
    assert result.exit_code == 0, result.stderr
    (line,) = result.stdout.splitlines()
    return json.loads(line)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def test_the_answer_and_nothing_else_goes_to_stdout(models: list[str]) -> None:
    text = answer("How?", "--pref", "humorous", *models)["text"]
    result = pad("generate", "How?", "--pref", "humorous", *models)
    assert (result.exit_code, result.stdout) == (0, text + "\n")


def test_json_is_one_object_with_stable_keys(models: list[str], model_directory: Path) -> None:
    row = answer("How?", "--pref", "humorous", "--pref", "concise=0.5", "--weight", "2", *models)
    assert list(row) == [
        "prompt",
        "preference",
        "always",
        "guidance_weight",
        "text",
        "finish_reason",
        "tokens",
        "policy",
    ]
    assert row["prompt"] == "How?"
    assert row["preference"] == "humorous, concise=0.5"
    assert row["guidance_weight"] == 2.0
    assert row["policy"] == str(model_directory)
    assert row["tokens"] <= 12
    assert row["finish_reason"] in ("stop", "length")


def test_compare_shows_the_policys_own_answer_beside_the_steered_one(models: list[str]) -> None:
    row = answer("How?", "--pref", "humorous", "--weight", "5", "--compare", *models)
    assert row["base"] == answer("How?", *models)["text"]
    assert row["text"] == answer("How?", "--pref", "humorous", "--weight", "5", *models)["text"]
    assert row["base"] != row["text"], "the tiny reward model steers nothing; this test would show nothing"
    shown = pad("generate", "How?", "--pref", "humorous", "--weight", "5", "--compare", *models)
    assert shown.exit_code == 0
    assert "base" in shown.stdout
    assert "humorous (weight 5)" in shown.stdout


def test_a_streamed_answer_is_the_answer(models: list[str]) -> None:
    asked = ["generate", "How?", "--pref", "humorous", *models]
    assert pad(*asked, "--stream").stdout == pad(*asked).stdout


def test_explained_tokens_make_up_the_answer_in_a_table_and_on_a_page(models: list[str], tmp_path: Path) -> None:
    asked = ["generate", "How?", "--pref", "humorous", *models]
    chosen = re.findall(r"^(['\"].*?['\"]) +['\"]", pad(*asked, "--explain", "-").stdout, re.MULTILINE)
    assert "".join(map(ast.literal_eval, chosen)) == answer(*asked[1:])["text"]
    result = pad(*asked, "--explain", str(tmp_path / "map.html"))
    assert result.stdout == pad(*asked).stdout
    assert "map.html" in pad(*asked[:-1], "--explain", str(tmp_path / "map.html")).stderr  # -1: not quiet
    assert "<html" in (tmp_path / "map.html").read_text(encoding="utf-8")


def test_an_answer_has_one_form_and_a_file_of_prompts_has_a_place_for_its_answers(
    models: list[str], prompts: Path
) -> None:
    assert "Only --compare and --json can be combined" in refused("generate", "How?", "--stream", "--json", *models)
    assert "go together" in refused("generate", "--file", str(prompts), *models)


def test_weight_0_is_the_policys_own_answer(models: list[str]) -> None:
    plain = answer("How?", *models)["text"]
    assert answer("How?", "--pref", "humorous", "--weight", "0", *models)["text"] == plain


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_the_prompt_may_come_from_standard_input(models: list[str], arguments: list[str]) -> None:
    row = answer(*arguments, "--pref", "formal", *models, stdin="How?\n")
    assert row == answer("How?", "--pref", "formal", *models)


def test_sampling_is_decided_by_the_seed(models: list[str]) -> None:
    draw = ["How?", "--temperature", "3", "--candidates", "100", *models]
    assert answer(*draw, "--seed", "1") == answer(*draw, "--seed", "1")
    assert len({answer(*draw, "--seed", str(seed))["text"] for seed in range(3)}) > 1


def test_flags_win_over_set_and_set_over_the_recipe(models: list[str], tmp_path: Path) -> None:
    recipe = {"kind": "generate", "policy": {"model": "x"}, "reward_model": "y", "decoding": {"guidance_weight": 3}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    arguments = ["How?", "--recipe", "r.yaml", "--pref", "formal", *models]
    assert answer(*arguments)["guidance_weight"] == 3
    assert answer(*arguments, "--set", "decoding.guidance_weight=4")["guidance_weight"] == 4
    assert answer(*arguments, "--set", "decoding.guidance_weight=4", "--weight", "5")["guidance_weight"] == 5


def test_a_file_of_prompts_is_answered_in_order_each_under_its_own_preference(
    models: list[str], prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "answers.jsonl"
    result = pad("generate", "--file", str(prompts), "--out", str(out), "--pref", "humorous", *ALONE, *models)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "3 answered now" in result.stderr
    rows = rows_of(out)
    assert [row["line"] for row in rows] == [1, 2, 3]
    assert [row["preference"] for row in rows] == [["humorous"], ["concise=2", "not formal"], ["formal"]]
    assert rows[0]["text"] == answer("How?", "--pref", "humorous", *models)["text"]
    assert rows[1]["prompt"] == [{"role": "user", "content": "Why?"}]


def test_running_again_appends_nothing_and_new_lines_only_are_answered(
    models: list[str], prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    command = ["generate", "--file", str(prompts), "--out", str(out), *models]
    pad(*command)
    before = out.read_bytes()
    again = pad(*command)
    assert again.exit_code == 0
    assert "0 answered now" in again.stderr
    assert out.read_bytes() == before
    with prompts.open("a") as file:
        file.write('{"prompt": "When?"}\n')
    assert "1 answered now" in pad(*command).stderr
    assert out.read_bytes().startswith(before)
    assert len(rows_of(out)) == 4


def test_an_interrupted_file_is_continued_as_if_never_interrupted(
    models: list[str], prompts: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    command = ["generate", "--file", str(prompts), "--out", str(out), "--temperature", "2", *ALONE, *models]
    pad(*command)
    whole = out.read_bytes()
    out.write_bytes(whole[: whole.index(b"\n") + 20])
    assert "2 answered now" in pad(*command).stderr
    assert out.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ('{"prompt": ""}', "field 'prompt'"),
        ('{"prompt": "x", "preference": 3}', "field 'preference'"),
        ('{"prompt": "x", "preference": "humourous"}', "Did you mean humorous"),
        ('{"prompt": "\\ud800"}', "field 'prompt'"),
    ],
)
def test_a_wrong_line_exits_2_before_anything_is_answered(
    models: list[str], prompts: Path, tmp_path: Path, line: str, reason: str
) -> None:
    with prompts.open("a") as file:
        file.write(line + "\n")
    out = tmp_path / "answers.jsonl"
    assert reason in refused("generate", "--file", str(prompts), "--out", str(out), *models)
    assert not out.exists()


def test_a_missing_file_of_prompts_exits_2(models: list[str]) -> None:
    assert "cannot be read" in refused("generate", "--file", "missing.jsonl", "--out", "out.jsonl", *models)


def test_an_unknown_preference_exits_2_with_a_suggestion(models: list[str]) -> None:
    said = refused("generate", "How?", "--pref", "humourous", *models)
    assert "Unknown preference 'humourous'" in said
    assert "Did you mean humorous?" in said


@pytest.mark.parametrize("spec", ["", "humorous=much", "something to laugh"])
def test_a_preference_that_cannot_be_understood_exits_2(models: list[str], spec: str) -> None:
    assert "reference" in refused("generate", "How?", "--pref", spec, *models)


@pytest.mark.parametrize(
    "flag", [["--weight", "nan"], ["--candidates", "0"], ["--top-p", "2"], ["--temperature", "-1"]]
)
def test_a_flag_out_of_bounds_exits_2(models: list[str], flag: list[str]) -> None:
    assert f"decoding.{flag[0][2:].replace('-', '_').replace('weight', 'guidance_weight')}" in refused(
        "generate", "How?", "--pref", "formal", *models, *flag
    )


def test_a_prompt_with_half_a_character_exits_2(models: list[str]) -> None:
    """Bytes in argv that are no UTF-8 reach Python as lone surrogates."""
    assert "prompt" in refused("generate", "caf\udce9", *models)


def test_a_missing_policy_exits_1(models: list[str]) -> None:
    assert "./nowhere" in refused("generate", "How?", *models, "--policy", "./nowhere", code=1)


def test_a_missing_reward_model_exits_1(models: list[str], model_directory: Path) -> None:
    assert "No reward model at 'nowhere'" in refused("generate", "x", *models, "--reward-model", "./nowhere", code=1)
    said = refused("generate", "x", *models, "--reward-model", str(model_directory), code=1)
    assert "is no reward model" in said


@pytest.mark.parametrize("change", ["weights", "size", "gone"])
def test_a_reward_model_whose_backbone_changed_exits_1(
    change: str, policy: Any, model_directory: Path, tmp_path: Path
) -> None:
    backbone, reward = tmp_path / "backbone", tmp_path / "reward-model"
    shutil.copytree(model_directory, backbone)
    reward.mkdir()
    save_reward_model(make_reward_model(policy), reward, ModelSettings(model=str(backbone)))
    arguments = ["generate", "How?", "--policy", str(backbone), "--reward-model", str(reward), "-q"]
    assert pad(*arguments, "--max-new-tokens", "2").exit_code == 0
    if change == "gone":
        shutil.rmtree(backbone)
        arguments[3] = str(model_directory.parent / "nothing")
    else:
        other = make_language_model(policy.tokenizer, seed=7, hidden_size=32 if change == "weights" else 24)
        other.model.save_pretrained(backbone)
    said = refused(*arguments, code=1)
    assert {"weights": "its weights have changed", "size": "hidden size", "gone": "No model directory"}[change] in said


def test_a_policy_with_another_vocabulary_is_steered_too(models: list[str], tmp_path: Path) -> None:
    other = make_language_model(make_tokenizer(extra=("<new>",)), seed=3)
    other.model.save_pretrained(tmp_path / "other")
    other.tokenizer.save_pretrained(tmp_path / "other")
    arguments = ["How?", *models, "--policy", str(tmp_path / "other"), "--pref", "formal"]
    assert answer(*arguments, "--weight", "20")["text"] != answer(*arguments, "--weight", "0")["text"]
