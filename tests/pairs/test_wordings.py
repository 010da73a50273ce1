"""Wordings of principles: inline, from a file, or those of the package; the held-out ones are never trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pad_cli.errors import DataError
from pad_cli.pairs import load_pairs
from pad_cli.pairs.splits import SHIPPED, read_paraphrases
from pad_cli.recipe import DataSettings

ROWS = [
    {"prompt": f"Question {n}", "preference": name, "chosen": f"{name} {n}", "rejected": f"other {n}"}
    for n in range(4)
    for name in ("humorous", "formal")
]


def settings(directory: Path, texts: Any, extra: list[dict[str, Any]] | None = None) -> DataSettings:
    train, dev = directory / "train.jsonl", directory / "dev.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:6]))
    dev.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS[6:], *(extra or [])]))
    return DataSettings.model_validate({"train": str(train), "validation": {"dev": str(dev)}, "texts": texts})


def wordings_file(directory: Path, content: Any) -> str:
    path = directory / "wordings.yaml"
    path.write_text(json.dumps(content))
    return str(path)


def test_shipped_wordings_are_distinct_and_none_is_held_out_and_trained_on() -> None:
    train, held_out = read_paraphrases(SHIPPED)
    everything = [text.lower() for part in (train, held_out) for texts in part.values() for text in texts]
    assert len(set(everything)) == len(everything)
    assert train.keys() == held_out.keys() >= {"helpful", "harmless", "humorous"}
    assert all(len(train[name]) >= 8 and len(held_out[name]) >= 4 for name in train)


def test_held_out_wordings_make_a_second_split_of_the_pairs_that_ask_for_one_principle(tmp_path: Path) -> None:
    """A combination stays out of it, and so does a principle without held-out wordings."""
    both = {**ROWS[6], "prompt": "Both", "preference": {"humorous": 1, "formal": 1}}
    humorous = {"instruction": "Be funny.", "wordings": ["be funny"], "held_out": ["a joke"]}
    formal = {"instruction": "Be formal.", "wordings": ["stiff"]}
    path = wordings_file(tmp_path, {"humorous": humorous, "formal": formal})
    data = load_pairs(settings(tmp_path, path, [both]), seed=0)
    assert [split.name for split in data.validation] == ["dev", "dev_wordings"]
    assert data.texts == {"humorous": ("be funny",), "formal": ("stiff",)}
    assert [dict(pair.preference) for pair in data.validation[1].pairs] == [{"humorous": 1.0}]
    assert data.validation[1].texts == {"humorous": ("a joke",)}


def test_inline_wordings_are_all_for_training(tmp_path: Path) -> None:
    data = load_pairs(settings(tmp_path, {"humorous": ["be funny"]}), seed=0)
    assert data.texts == {"humorous": ("be funny",)}
    assert [split.name for split in data.validation] == ["dev"]


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"humorous": ["be funny"]},
        {"humorous": {"train": ["be funny"]}},
        {"humorous": {"instruction": "Be funny.", "wordings": [" "]}},
    ],
)
def test_a_file_of_another_form_is_refused_by_name(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match=r"wordings\.yaml") as caught:
        load_pairs(settings(tmp_path, wordings_file(tmp_path, content)), seed=0)
    assert caught.value.hint


def test_a_missing_file_and_one_of_json_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.yaml"):
        load_pairs(settings(tmp_path, str(tmp_path / "nowhere.yaml")), seed=0)
    with pytest.raises(DataError, match=r"wordings\.json: paraphrases in JSON") as caught:
        load_pairs(settings(tmp_path, str(tmp_path / "wordings.json")), seed=0)
    assert "`wordings` (for `train`)" in caught.value.hint
