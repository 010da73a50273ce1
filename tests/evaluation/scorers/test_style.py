"""Scorer `style`: which principle an answer was written for, by a classifier fitted to labelled answers."""

from __future__ import annotations

import json
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pad_cli.errors import DataError
from pad_cli.evaluation.contract import Answer, load_scorer
from pad_cli.evaluation.scorers.style import ceilings, read_labelled
from pad_cli.recipe import ScorerSettings
from pad_cli.records import BenchmarkItem, as_messages

WORDS = {"pirate": "arr matey ahoy ship", "formal": "furthermore therefore regarding sincerely", "plain": "so it is ok"}
CONTEXT: Any = SimpleNamespace(reward_model=SimpleNamespace(principles=("pirate", "formal", "silent")))


def write(path: Path, prompts: int, *, silent: bool = False) -> str:
    """Answers of a few words, each name's from its own; `silent` adds a name whose answers are like plain ones."""
    rng = random.Random(0)

    def answer(words: str) -> str:
        return " ".join(rng.choices(words.split(), k=5)) + "."

    named = {**WORDS, "silent": WORDS["plain"]} if silent else WORDS
    rows = [
        {"prompt": f"Question {number}?", "answers": {name: answer(words) for name, words in named.items()}}
        for number in range(prompts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def scores(path: str, text: str, *preference: str) -> float:
    scorer = load_scorer(ScorerSettings(scorer="style", options={"answers": path}))
    item = BenchmarkItem("1", "single", "label", as_messages("Why?"), preference)
    (score,) = scorer.score([Answer(item, text)], cast("Any", CONTEXT))
    return score.value


def test_an_answer_is_taken_for_the_principle_whose_words_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "answers.jsonl", 10)
    assert scores(path, "Ahoy, matey, arr!", "pirate") == 1
    assert scores(path, "Ahoy, matey, arr!", "formal") == 0
    assert scores(path, "Ahoy, matey, arr, sincerely, furthermore!", "pirate, formal") == 1
    assert scores(path, "Ahoy, matey, so it is ok!", "pirate, formal") == 0
    assert scores(path, "Ahoy, matey, arr!", "not pirate") == 0
    assert scores(path, "So it is.", "not pirate") == 1


def test_a_name_that_looks_like_another_has_a_low_ceiling(tmp_path: Path) -> None:
    found = ceilings(read_labelled(Path(write(tmp_path / "answers.jsonl", 20, silent=True))))
    assert found["pirate"] == found["formal"] == 1
    assert found["plain"] + found["silent"] < 1.5


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"prompt": "a", "answers": ["b"]}\n', "no map of names to answers"),
        ('{"prompt": "a", "answers": {"x": 1}}\n', "no map of names to answers"),
        ('{"prompt": "a", "answers": {"x": "b", "y": "c"}}\n', "at least"),
        ("", "at least"),
    ],
)
def test_a_file_without_labelled_answers_is_refused(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        read_labelled(path)
