"""A head for a new principle: it is learned from few pairs, and nothing else changes."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pad_cli.equation import STRENGTH
from pad_cli.errors import DataError, PadError, PreferenceError, UsageError
from pad_cli.learning.new_principle import add_principle
from pad_cli.models.checkpoint import load_reward_model, save_reward_model
from pad_cli.models.checkpoint_files import ENCODER, HEADS
from pad_cli.models.heads import PreferenceEncoder, text_states
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference
from pad_cli.recipe import ModelSettings
from pad_cli.records import as_messages
from pad_cli.training.token_rewards import reward_scales
from tests.tiny import PRINCIPLES
from tests.training.conftest import make_rewards

Add = Callable[..., Any]
OLD_TEXTS = ("make me laugh", "in a suit", "few words", "something else entirely")
NEW_TEXTS = ("ask back", "end with a question")


def make_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Both answers hold the same random letters; `?` is in the chosen one, `.` in the other."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        letters = "".join(rng.choice("abcdef") for _ in range(4))
        place = rng.randrange(5)
        chosen, rejected = (f"{letters[:place]}{mark * 2}{letters[place:]}" for mark in "?.")
        rows.append({"prompt": f"Write {number} of {seed}", "chosen": chosen, "rejected": rejected})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def old(policy: LanguageModel, reward_model: PersonalizedRewardModel, model_directory: Path, tmp_path: Path) -> Path:
    """A finished reward model with an encoder, on disk."""
    torch.manual_seed(0)
    encoder = PreferenceEncoder(policy.hidden_size, 6, len(PRINCIPLES), texts=len(OLD_TEXTS))
    encoder.remember(text_states(policy, OLD_TEXTS), torch.tensor([0, 1, 2, -1]))
    details = {"stages": [{"stage": "heads", "steps": 5}], "metrics": {"dev": {"pairs": 7, "pair_accuracy": 0.75}}}
    model = replace(reward_model, encoder=encoder.eval().requires_grad_(False), details=details)
    directory = tmp_path / "old"
    directory.mkdir()
    save_reward_model(model, directory, ModelSettings(model=str(model_directory)))
    return directory


@pytest.fixture
def add(old: Path, tmp_path: Path) -> Add:
    """Adds `asking`; keywords replace settings, `rows` the examples."""

    def run(rows: list[dict[str, Any]] | None = None, **changed: Any) -> Any:
        path = write(tmp_path / "examples.jsonl", make_rows(12, seed=1) if rows is None else rows)
        given = {"name": "asking", "examples": path, "reward_model": str(old), "out": tmp_path / "new"}
        return add_principle(**{**given, "device": "cpu", **changed})

    return run


def load(directory: Path, policy: LanguageModel) -> PersonalizedRewardModel:
    model = load_reward_model(str(directory), backbone=policy)
    assert isinstance(model, PersonalizedRewardModel)
    return model


def rewards_of(model: PersonalizedRewardModel, name: str, rows: list[dict[str, Any]]) -> torch.Tensor:
    """(N, 2) exact summed rewards of the chosen and of the rejected answers."""
    preference = Preference({name: 1.0}, {})
    return torch.tensor(
        [
            [
                model.token_rewards(as_messages(row["prompt"]), row[side], preference).sum()
                for side in row
                if side != "prompt"
            ]
            for row in rows
        ]
    )


def test_the_old_version_stays_byte_for_byte(add: Add, old: Path) -> None:
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    add(paraphrases=NEW_TEXTS)
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before


def test_the_other_heads_stay_bit_for_bit_and_so_do_their_rewards(add: Add, old: Path, policy: LanguageModel) -> None:
    directory = add().directory
    before, after = (load_file(place / HEADS) for place in (old, directory))
    for name in ("down", "up"):
        assert torch.equal(after[name][:-1], before[name])
    models = load(old, policy), load(directory, policy)
    for name in PRINCIPLES:
        earlier, later = (rewards_of(model, name, make_rows(4, seed=2)) for model in models)
        torch.testing.assert_close(later, earlier, rtol=0, atol=1e-5)


def test_the_new_head_tells_fresh_pairs_apart(add: Add, policy: LanguageModel) -> None:
    added = add(name=" asking ")
    model = load(added.directory, policy)
    assert model.principles == (*PRINCIPLES, "asking")
    chosen, rejected = rewards_of(model, "asking", make_rows(30, seed=3)).T
    assert (chosen > rejected).float().mean() >= 0.95
    assert (added.examples, added.pair_accuracy.n, added.pair_accuracy.value) == (12, 12, 1.0)


def test_examples_that_say_nothing_are_told_so(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    rng, rows = random.Random(0), make_rows(12, seed=1)
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    added = add([rng.choice(both) for both in zip(rows, swapped, strict=True)])
    assert added.pair_accuracy.low <= 0.5
    assert "may be chance" in capsys.readouterr().err


def test_a_pair_is_judged_by_a_head_that_never_saw_it(add: Add, tmp_path: Path) -> None:
    """Turned round, one pair of twelve that agree is the one that cross-validation gets wrong."""
    rows = make_rows(12, seed=1)
    rows[5] = {**rows[5], "chosen": rows[5]["rejected"], "rejected": rows[5]["chosen"]}
    assert add(rows).pair_accuracy.value == pytest.approx(11 / 12, abs=1e-4)


def test_the_new_head_is_as_strong_as_calibration_makes_the_others(
    add: Add, policy: LanguageModel, tmp_path: Path
) -> None:
    rows = make_rows(12, seed=1)
    model = load(add(rows).directory, policy)
    sequences = [_sequence(policy, row["prompt"], row[side]) for row in rows for side in ("chosen", "rejected")]
    found = reward_scales(model.heads, make_rewards(policy, sequences, tmp_path / "cache"))[-1]
    assert found * model.calibration == pytest.approx(STRENGTH, rel=1e-3)


def _sequence(policy: LanguageModel, prompt: str, answer: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    from pad_cli.models.prompts import encode_answer, encode_prompt

    return tuple(encode_prompt(policy.tokenizer, as_messages(prompt))), tuple(encode_answer(policy.tokenizer, answer))


def test_old_wordings_mean_what_they_meant(add: Add, old: Path, policy: LanguageModel) -> None:
    before, after = load(old, policy), load(add(paraphrases=NEW_TEXTS).directory, policy)
    wanted = [Preference({}, {text: 1.0}) for text in OLD_TEXTS]
    weights = after.weights(wanted)
    torch.testing.assert_close(weights[:, :-1], before.weights(wanted), rtol=0, atol=1e-6)
    assert torch.equal(weights[:, -1], torch.zeros(len(OLD_TEXTS)))


def test_name_and_paraphrases_mean_the_new_principle_and_nothing_else(add: Add, policy: LanguageModel) -> None:
    model = load(add(paraphrases=NEW_TEXTS).directory, policy)
    weights = model.weights([Preference({}, {text: 1.0}) for text in ("asking", *NEW_TEXTS)])
    assert torch.equal(weights, torch.tensor([[0.0, 0.0, 0.0, 1.0]] * 3))


def test_a_second_principle_is_added_to_the_first_ones_version(add: Add, policy: LanguageModel, tmp_path: Path) -> None:
    first = add(paraphrases=NEW_TEXTS[:1]).directory
    second = add(
        make_rows(6, seed=4),
        name="curious",
        reward_model=str(first),
        out=tmp_path / "second",
        paraphrases=NEW_TEXTS[1:],
    )
    model = load(second.directory, policy)
    assert model.principles == (*PRINCIPLES, "asking", "curious")
    weights = model.weights([Preference({}, {text: 1.0}) for text in NEW_TEXTS])
    assert torch.equal(weights, torch.eye(5)[3:])
    assert [each["name"] for each in inspect_reward_model(str(second.directory)).config["added"]] == [
        "asking",
        "curious",
    ]


def test_the_same_again_is_finished_and_anything_else_is_refused(add: Add, capsys: pytest.CaptureFixture[str]) -> None:
    added = add()
    before = (added.directory / HEADS).read_bytes()
    assert add() == added
    assert "is finished" in capsys.readouterr().err
    with pytest.raises(UsageError, match="exists already"):
        add(make_rows(12, seed=5))
    assert (added.directory / HEADS).read_bytes() == before


def test_the_new_version_says_what_was_added(add: Add, old: Path, policy: LanguageModel) -> None:
    added = add(paraphrases=NEW_TEXTS)
    found = inspect_reward_model(str(added.directory))
    assert found.config["added"][-1]["parent"] == load(old, policy).fingerprint
    assert found.config["added"][-1]["wordings"] == ["asking", *NEW_TEXTS]
    assert found.metrics["dev"] == {"pairs": 7, "pair_accuracy": 0.75}
    assert found.metrics["asking (cross-validated)"]["pairs"] == 12
    card = (added.directory / "README.md").read_text(encoding="utf-8")
    assert "stage `new principle`: principle asking, pairs 12" in card
    assert "`asking (cross-validated)`" in card


def test_without_an_encoder_paraphrases_are_left_out(
    add: Add,
    policy: LanguageModel,
    reward_model: PersonalizedRewardModel,
    model_directory: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    save_reward_model(reward_model, plain, ModelSettings(model=str(model_directory)))
    added = add(reward_model=str(plain), paraphrases=NEW_TEXTS)
    assert added.wordings == ()
    assert not (added.directory / ENCODER).exists()
    assert "reads no free text" in capsys.readouterr().err


ROWS = make_rows(4, seed=1)
TURNED = {"prompt": ROWS[0]["prompt"], "chosen": ROWS[0]["rejected"], "rejected": ROWS[0]["chosen"]}


@pytest.mark.parametrize(
    ("rows", "changed", "error", "words"),
    [
        (ROWS[:3], {}, DataError, "at least 4 pairs, here are 3"),
        ([*ROWS[:3], ROWS[0]], {}, DataError, "at least 4 pairs, here are 3"),
        ([], {}, DataError, "at least 4 pairs, here are 0"),
        ([*ROWS, TURNED], {}, DataError, r"jsonl:5: contradicts .*jsonl:1: "),
        (
            [*ROWS, {**ROWS[0], "chosen": ROWS[0]["rejected"] + " "}],
            {},
            DataError,
            r"jsonl:5: both answers are the same",
        ),
        ([*ROWS, {"prompt": "a", "chosen": "b"}], {}, DataError, r"jsonl:5, field 'rejected'"),
        (ROWS, {"examples": Path("/nowhere.jsonl")}, DataError, "cannot be read"),
        (ROWS, {"name": "Formal"}, UsageError, "knows 'Formal' already"),
        (ROWS, {"name": " "}, UsageError, "cannot be a principle's name"),
        (ROWS, {"name": "@me"}, UsageError, "cannot be a principle's name"),
        (ROWS, {"paraphrases": (" ",)}, PreferenceError, "paraphrase is empty"),
        (ROWS, {"paraphrases": ("in a suit",)}, PreferenceError, "'in a suit' means 'formal' already"),
    ],
)
def test_what_cannot_be_learned_is_refused_in_words(
    add: Add, tmp_path: Path, rows: list[dict[str, Any]], changed: dict[str, Any], error: type[PadError], words: str
) -> None:
    with pytest.raises(error, match=words):
        add(rows, **changed)
    assert not (tmp_path / "new").exists()
