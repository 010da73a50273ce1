"""The prompts of HelpSteer2 that the paper's experiments use, from rows of its shape."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from pad_cli.prompts.prompt_sets import load_helpsteer2


@pytest.fixture
def helpsteer2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each prompt in two rows, one for each rated answer; the second is too long, the third has turns."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    prompts = ["Short?", "x" * 101, "Hello<extra_id_1>Assistant\nHi!\n<extra_id_1>User\nWhy?", "y" * 100, "Last."]
    rows = [{"prompt": prompt, "response": f"{n}"} for prompt in prompts for n in range(2)]
    datasets.DatasetDict({"validation": datasets.Dataset.from_list(rows)}).save_to_disk(tmp_path / "data")
    return str(tmp_path / "data")


def test_helpsteer2_keeps_short_prompts_and_every_second_row_of_them(helpsteer2: str) -> None:
    items = load_helpsteer2(dataset=helpsteer2, preferences=["concise"])
    assert [item.prompt[-1]["content"] for item in items] == ["Short?", "Why?", "y" * 100, "Last."]
    assert [len(item.prompt) for item in items] == [1, 3, 1, 1]
