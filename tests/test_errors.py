"""Errors say what was found, where, and what to do."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli import errors
from pad_cli.errors import DataError, PadError, did_you_mean

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, PadError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_the_exit_code_that_the_module_promises(kind: type[PadError]) -> None:
    assert errors.__doc__ is not None
    line = next(line for line in errors.__doc__.splitlines() if f" {kind.__name__} " in line)
    assert f"exit {kind.exit_code}" in line


def test_an_error_reads_as_its_message_then_its_hint() -> None:
    assert str(PadError("It broke.", "Mend it.")) == "It broke.\nMend it."
    assert str(PadError("It broke.")) == "It broke."


def test_a_data_error_names_file_line_and_field() -> None:
    error = DataError("is wrong", path="a.jsonl", line=3, field="chosen", hint="Look.")
    assert str(error) == "a.jsonl:3, field 'chosen': is wrong\nLook."
    assert (error.path, error.line, error.field) == ("a.jsonl", 3, "chosen")


def test_a_data_error_about_a_whole_file_names_no_line() -> None:
    assert str(DataError("is wrong", path="a.jsonl")) == "a.jsonl: is wrong"
    assert str(DataError("is wrong")) == "is wrong"


def test_did_you_mean_offers_the_closest_names() -> None:
    assert did_you_mean("humourous", ["formal", "humorous"]) == "Did you mean humorous?"


def test_did_you_mean_lists_all_names_when_none_is_close() -> None:
    assert did_you_mean("xyz", ["formal", "casual"]) == "Known: casual, formal."


def test_did_you_mean_says_nothing_when_nothing_is_known() -> None:
    assert did_you_mean("anything", []) == ""


@given(st.text(), st.lists(st.text(min_size=1), min_size=1))
def test_did_you_mean_only_offers_known_names(name: str, known: list[str]) -> None:
    hint = did_you_mean(name, known)
    assert any(entry in hint for entry in known)
