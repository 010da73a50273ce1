"""An exported preference is the same guidance in plain PEFT."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from pad_cli import DecodingSettings, PadEngine, export_preference
from pad_cli.errors import UsageError
from pad_cli.models.checkpoint import save_reward_model
from pad_cli.models.prompts import encode_prompt
from pad_cli.preference import Preference
from pad_cli.recipe import ModelSettings
from pad_cli.records import as_messages
from pad_cli.server.lora_export import METADATA, PreferenceAdapter
from tests.agreement import alone, assert_agree
from tests.cli.test_commands import pad, refused
from tests.tiny import make_reward_model

BOTH = Preference({"humorous": 1.0, "formal": -0.5}, {})
pytestmark = [
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),  # peft's own call
]

PROMPTS = ("How?", "Why should I try chess?", "x")


def unrestricted(engine: PadEngine) -> DecodingSettings:
    return DecodingSettings(candidates=engine.policy.vocabulary_size, reward_ngram=0, max_new_tokens=24)


def peft_answers(model_directory: Path, adapter: Path, engine: PadEngine) -> list[list[int]]:
    """Greedy answers of plain transformers and PEFT."""
    model: Any = AutoModelForCausalLM.from_pretrained(model_directory, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(adapter)).eval()
    answers = []
    for prompt in PROMPTS:
        tokens = torch.tensor([encode_prompt(engine.policy.tokenizer, as_messages(prompt))])
        made = model.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=24, do_sample=False
        )
        answers.append(made[0, tokens.shape[1] :].tolist())
    return answers


def engine_answers(engine: PadEngine, preference: Preference, weight: float) -> list[list[int]]:
    count = len(PROMPTS)
    made = engine.generate(PROMPTS, [preference] * count, unrestricted(engine), [weight] * count)
    return [list(answer.token_ids) for answer in made]


def agree(engine: PadEngine, weight: float, first: list[list[int]], second: list[list[int]]) -> None:
    """Answers are the same but for near ties."""
    count = len(PROMPTS)
    assert_agree(first, second, alone(engine, PROMPTS, [BOTH] * count, unrestricted(engine), [weight] * count))


@pytest.mark.parametrize(("calibration", "weight"), [(1.0, 1.0), (0.4, 1.5), (1.0, -1.0)])
def test_its_greedy_answers_are_those_of_the_engine(
    policy: Any, reward_model: Any, model_directory: Path, tmp_path: Path, calibration: float, weight: float
) -> None:
    engine = PadEngine(policy, replace(reward_model, calibration=calibration))
    export_preference(engine, BOTH, weight, tmp_path / "adapter")
    steered = engine_answers(engine, BOTH, weight)
    agree(engine, weight, steered, peft_answers(model_directory, tmp_path / "adapter", engine))
    assert steered != engine_answers(engine, BOTH, 0.0)


def test_the_safety_floor_is_in_the_adapter(
    policy: Any, reward_model: Any, model_directory: Path, tmp_path: Path
) -> None:
    engine = PadEngine(policy, reward_model, always={"formal": 1.0})
    export_preference(engine, BOTH, 1.0, tmp_path / "adapter")
    agree(engine, 1.0, engine_answers(engine, BOTH, 1.0), peft_answers(model_directory, tmp_path / "adapter", engine))
    assert json.loads((tmp_path / "adapter" / METADATA).read_text())["weights"]["formal"] >= 1.0
    with pytest.raises(UsageError, match="always"):
        export_preference(engine, BOTH, -1.0, tmp_path / "negative")


def test_a_reduced_adapter_is_the_nearest_change_of_its_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    whole = PreferenceAdapter(torch.randn(6, 20, generator=generator), torch.randn(50, 6, generator=generator))
    change = whole.up @ whole.down
    errors = []
    for rank in range(1, 7):
        reduced = whole.reduced(rank)
        assert reduced.rank == rank
        left = torch.linalg.norm(change - reduced.up @ reduced.down) / torch.linalg.norm(change)
        assert reduced.error == pytest.approx(float(left), abs=1e-5)
        errors.append(reduced.error)
    assert errors == sorted(errors, reverse=True)
    assert (errors[0] > 0.1, errors[-1]) == (True, 0.0)


def test_what_cannot_be_exported_is_refused(policy: Any, other_policy: Any, reward_model: Any, tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    capped = replace(policy, head=replace(policy.head, cap=30.0))
    refusals = [
        (PadEngine(other_policy, reward_model), BOTH, 1.0, "backbone"),
        (PadEngine(capped, reward_model), BOTH, 1.0, "caps"),
        (PadEngine(policy, reward_model), BOTH, 0.0, "changes nothing"),
        (PadEngine(policy, reward_model), Preference({}, {}), 1.0, "changes nothing"),
        (PadEngine(policy), BOTH, 1.0, "no reward model"),
    ]
    for engine, preference, weight, words in refusals:
        with pytest.raises(UsageError, match=words):
            export_preference(engine, preference, weight, out)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def models(policy: Any, model_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rm").mkdir()
    save_reward_model(make_reward_model(policy), tmp_path / "rm", ModelSettings(model=str(model_directory)))
    return ["--policy", str(model_directory), "--reward-model", "rm", "-q"]


def test_the_command_writes_an_adapter_with_its_card(models: list[str], tmp_path: Path) -> None:
    arguments = ["export", "--pref", "humorous", "--pref", "concise=0.5", "--weight", "1.5", "--out", "adapter"]
    result = pad(*arguments, *models)
    assert (result.exit_code, result.stdout) == (0, "adapter  (rank 4)\n")
    assert pad(*arguments, "--rank", "1", *models).stdout.startswith("adapter  (rank 1, relative error ")
    facts = json.loads((tmp_path / "adapter" / METADATA).read_text())
    assert facts["weights"] == {"humorous": 1.0, "concise": 0.5}
    assert (facts["guidance_weight"], facts["rank"]) == (1.5, 1)
    assert "humorous, concise=0.5" in (tmp_path / "adapter" / "README.md").read_text()


def test_other_things_in_the_directory_are_left_alone(models: list[str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    said = refused("export", "--pref", "humorous", "--out", "mine", *models)
    assert "mine exists and is no exported adapter" in said
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    assert "Give --pref or --users" in refused("export", "--out", "adapter", *models)
    assert "humorus" in refused("export", "--pref", "humorus", "--out", "adapter", *models)
    assert not (tmp_path / "adapter").exists()


def test_a_table_of_users_becomes_an_adapter_each(models: list[str], tmp_path: Path) -> None:
    rows = [
        {"user": "ann", "weights": {"humorous": 1.2, "formal": -0.4, "concise": 0}},
        {"user": "b.2", "weights": {"formal": 1}},
        {"user": "nobody", "weights": {"formal": 0}},
    ]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = pad("export", "--users", "users.jsonl", "--out", "adapters", "--weight", "1.5", *models[:-1])
    assert done.stdout == "2 adapters in adapters\n"
    assert "nobody" in done.stderr
    assert sorted(path.name for path in (tmp_path / "adapters").iterdir()) == ["ann", "b.2"]
    pad("export", "--pref", "humorous=1.2, formal=-0.4", "--out", "alone", "--weight", "1.5", *models)
    name = "adapter_model.safetensors"
    assert (tmp_path / "adapters/ann" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"user": "../up", "weights": {}}, "not a directory name"),
        ({"user": "ann", "weights": {}}, "is duplicated"),
        ({"user": "x", "weights": [1]}, "not a map of principles"),
        ({"user": "x", "weights": {"humorus": 1}}, "Did you mean humorous?"),
        ({"user": "x", "weights": {"humorous": "much"}}, "not a finite number"),
        ({"user": "x", "weights": {}, "reward_model": "other"}, "belongs to another reward model"),
    ],
)
def test_a_wrong_table_is_refused_before_anything_is_written(
    models: list[str], tmp_path: Path, row: dict[str, Any], words: str
) -> None:
    rows = [{"user": "ann", "weights": {"humorous": 1}}, row]
    (tmp_path / "users.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    said = refused("export", "--users", "users.jsonl", "--out", "adapters", *models)
    assert words in said
    assert "users.jsonl:2" in said
    assert not (tmp_path / "adapters").exists()
