"""A preference in a row: names, lists, weights, and, where principles are known, whatever a user may type."""

from __future__ import annotations

from typing import Any

import pytest

from pad_cli.errors import DataError
from tests.pairs.conftest import Write, load, make_pair

KNOWN = ["humorous", "concise", "formal"]


def read(write: Write, preference: Any, principles: list[str] | None) -> tuple[dict[str, float], dict[str, float]]:
    (pair,) = load(write(make_pair("How?", preference, "Ha.", "So.")), principles=principles).train
    return dict(pair.preference), dict(pair.texts)


@pytest.mark.parametrize(
    ("preference", "weights"),
    [
        ("not formal, a = 3 and b", {"not formal, a = 3 and b": 1.0}),
        (" humorous ", {"humorous": 1.0}),
        (["humorous", "concise"], {"humorous": 1.0, "concise": 1.0}),
        ({"humorous": 2, "formal": -0.5, "concise": 0}, {"humorous": 2.0, "formal": -0.5}),
    ],
)
def test_without_principles_every_name_is_one_whatever_it_looks_like(
    write: Write, preference: Any, weights: dict[str, float]
) -> None:
    assert read(write, preference, None) == (weights, {})


@pytest.mark.parametrize(
    ("preference", "weights", "texts"),
    [
        ("Humorous", {"humorous": 1.0}, {}),
        ("humorous, concise=0.5", {"humorous": 1.0, "concise": 0.5}, {}),
        ("not formal", {"formal": -1.0}, {}),
        ("something to laugh about", {}, {"something to laugh about": 1.0}),
        (["humorous", "like a pirate"], {"humorous": 1.0}, {"like a pirate": 1.0}),
        ({"humorous": 2, "like a pirate": -1}, {"humorous": 2.0}, {"like a pirate": -1.0}),
        ({"not formal": 2}, {"formal": -2.0}, {}),
        ({"humorous": 1, "not humorous": 0.5}, {"humorous": 0.5}, {}),
    ],
)
def test_with_principles_a_row_says_what_a_user_may_type(
    write: Write, preference: Any, weights: dict[str, float], texts: dict[str, float]
) -> None:
    assert read(write, preference, KNOWN) == (weights, texts)


def test_without_any_principle_everything_is_free_text(write: Write) -> None:
    assert read(write, "humorous", []) == ({}, {"humorous": 1.0})


def test_a_misspelt_principle_is_a_bad_row_that_names_the_right_one(write: Write) -> None:
    with pytest.raises(DataError, match="'humorus'") as caught:
        read(write, "humorus", KNOWN)
    assert (caught.value.line, caught.value.field) == (1, "preference")
    assert "humorous" in caught.value.hint


@pytest.mark.parametrize("preference", [{"humorous": 0}, {"humorous": 1, "not humorous": 1}])
def test_weights_that_cancel_ask_for_nothing_and_are_refused(write: Write, preference: Any) -> None:
    with pytest.raises(DataError, match="no weight other than zero"):
        read(write, preference, KNOWN)


def test_more_than_64_names_are_no_principles(write: Write) -> None:
    rows = [make_pair(f"prompt {number}", f"wish {number}", "a", "b") for number in range(65)]
    assert len(load(write(*rows[:64])).train) == 64
    with pytest.raises(DataError, match="65 distinct preferences") as caught:
        load(write(*rows))
    assert "heads.principles" in caught.value.hint
    assert len(load(write(*rows), principles=KNOWN).train) == 65
