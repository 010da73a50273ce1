"""What stands before an answer is kept whole, wherever a row spells it, or the row is refused; changes are counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pad_cli.errors import DataError
from pad_cli.learning.choices import read_choices
from pad_cli.learning.effect import read_prompts
from pad_cli.learning.new_principle import read_examples
from pad_cli.pairs import describe, prompt_of, read_rows
from pad_cli.prompts import load_jsonl
from pad_cli.records import as_messages
from pad_cli.reports.document import plain_lines
from tests.pairs.conftest import Write, load


def say(*texts: str, first: str = "user") -> list[dict[str, Any]]:
    """Messages of two speakers in turns."""
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]


SYSTEM = {"role": "system", "content": "Be a pirate."}
TURNS = say("Where do swifts go?", "South.", "And in winter?")
A, B = say("Africa.", first="assistant"), say("No idea.", first="assistant")


def row(prompt: Any, chosen: Any, rejected: Any, **more: Any) -> dict[str, Any]:
    return {"preference": "calm", "prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected"),
    [
        (TURNS, "Africa.", "No idea."),
        (TURNS, A, B),
        (TURNS, A[0], B[0]),
        (TURNS, [*TURNS, *A], [*TURNS, *B]),
        (TURNS, [*TURNS, *A], [TURNS[-1], *B]),
        (TURNS, [*TURNS[-1:], *A], "No idea."),
        ("And in winter?", [*TURNS, *A], [*TURNS, *B]),
        ("And in winter? ", [*TURNS, *A], "No idea."),
        (TURNS[1:], [*TURNS, *A], [*TURNS, *B]),
        ("Where do swifts go?", [*TURNS, *A], [*TURNS, *B]),
        (None, [*TURNS, *A], [*TURNS, *B]),
    ],
)
def test_a_conversation_is_read_whole_however_prompt_and_answers_share_it(
    write: Write, prompt: Any, chosen: Any, rejected: Any
) -> None:
    (pair,) = load(write(row(prompt, chosen, rejected))).train
    assert list(pair.prompt) == TURNS
    assert (pair.chosen, pair.rejected) == ("Africa.", "No idea.")


QUESTION = say("How?")


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "more"),
    [
        ([SYSTEM, *QUESTION], "Africa.", "No idea.", {}),
        ("How?", [SYSTEM, *QUESTION, *A], [SYSTEM, *QUESTION, *B], {}),
        ("How?", [SYSTEM, *QUESTION, *A], "No idea.", {}),
        ([SYSTEM, *QUESTION], [*QUESTION, *A], [*QUESTION, *B], {}),
        ("How?", "Africa.", "No idea.", {"system": "Be a pirate."}),
        ("How?", [*QUESTION, *A], [*QUESTION, *B], {"system": "Be a pirate."}),
        ([SYSTEM, *QUESTION], "Africa.", "No idea.", {"system": "Be a pirate."}),
        ([{**SYSTEM, "role": "developer"}, *QUESTION], "Africa.", "No idea.", {"system": None}),
    ],
)
def test_a_system_message_is_kept_wherever_it_stands(
    write: Write, prompt: Any, chosen: Any, rejected: Any, more: dict[str, Any]
) -> None:
    (pair,) = load(write(row(prompt, chosen, rejected, **more))).train
    assert list(pair.prompt) == [SYSTEM, *QUESTION]


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        (row(TURNS, [*say("Hello", "Hi", "And in winter?"), *A], "No idea."), "chosen", "another conversation"),
        (row(TURNS, "Africa.", [*say("Hello", "Hi", "And in winter?"), *B]), "rejected", "another conversation"),
        (row("And?", [*TURNS, *A], [*TURNS, *B]), "chosen", "another conversation"),
        (row(TURNS, [*TURNS[:1], *A], [*TURNS, *B]), "chosen", "another conversation"),
        (row("How?", [SYSTEM, *QUESTION, *A], [*QUESTION, *B]), "rejected", "differ before their last message"),
        (row("And in winter?", [*TURNS, *A], [*TURNS[-1:], *B]), "rejected", "differ before their last message"),
        (row([SYSTEM, *QUESTION], "A", "B", system="Be a poet."), "system", "another system message"),
        (row("How?", "A", "B", system=["x"]), "system", "not a text"),
        (row("How?", [*QUESTION, *A, *QUESTION], "B"), "chosen", "does not end with the answer"),
        (row(None, "A", [*QUESTION, *B]), "prompt", "missing or empty"),
        (row([{"from": "human", "value": "How?"}], "A", "B"), "prompt", "neither a text nor a list"),
        (row([*QUESTION, {"role": "user", "content": " "}], "A", "B"), "prompt", "missing or empty"),
    ],
)
def test_contexts_that_differ_are_refused_with_line_and_field(
    write: Write, bad: dict[str, Any], field: str, reason: str
) -> None:
    path = write(row("How?", "A", "B"), bad)
    with pytest.raises(DataError, match=reason) as caught:
        load(path)
    assert (caught.value.path, caught.value.line, caught.value.field) == (str(path), 2, field)
    assert caught.value.hint


CALL = {"role": "assistant", "content": "", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "w"}}]}
IMAGE = {"type": "image_url", "image_url": {"url": "http://x"}}


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        (row([*QUESTION, CALL, {"role": "tool", "content": "strong"}], "A", "B"), "prompt", "tool calls"),
        (row([*QUESTION, {"role": "tool", "content": "strong"}], "A", "B"), "prompt", "turns of tools"),
        (row([*QUESTION, {"role": "function", "content": "strong"}], "A", "B"), "prompt", "turns of tools"),
        (row("How?", [*QUESTION, CALL], "B"), "chosen", "tool calls"),
        (row("How?", "A", {"role": "assistant", "content": "x", "function_call": {"name": "w"}}), "rejected", "tool"),
        (row("How?", "A", "B", tools=[{"type": "function"}]), "tools", "not read"),
        (row("How?", "A", "B", tools='[{"type": "function"}]'), "tools", "not read"),
        (row("How?", "A", "B", images=["a.png"]), "images", "not read"),
        (row("How?", "A", "B", history=[["Hi", "Hello"]]), "history", "not read"),
        (row([{"role": "user", "content": [IMAGE]}], "A", "B"), "prompt", "'image_url'"),
        (row("How?", {"role": "assistant", "content": [IMAGE]}, "B"), "chosen", "'image_url'"),
        (row([{"role": "user", "content": ["How?"]}], "A", "B"), "prompt", "without a type"),
        (row([{"role": "user", "content": [{"type": "text", "text": 3}]}], "A", "B"), "prompt", "without text"),
    ],
)
def test_what_is_no_text_is_refused_by_its_name_and_never_vanishes(
    write: Write, bad: dict[str, Any], field: str, reason: str
) -> None:
    path = write(row("How?", "A", "B"), bad)
    with pytest.raises(DataError, match=reason) as caught:
        load(path)
    assert (caught.value.line, caught.value.field) == (2, field)
    assert len(load(path, bad_rows="drop").train) == 1


def test_keys_that_say_nothing_are_no_tool_calls(write: Write) -> None:
    """A data set gives every message all keys, and null where a message has none."""
    empty = {"tool_calls": None, "function_call": None, "name": None, "audio": {"id": None}}
    message = {"role": "user", "content": [{"type": "text", "text": "How?", "image_url": None}], **empty}
    (pair,) = load(write(row([message], "A", "B", tools=[], images=None))).train
    assert list(pair.prompt) == QUESTION


def test_what_is_not_read_is_counted_and_shown(write: Write) -> None:
    parts = [{"type": "text", "text": "Ha."}, {"type": "text", "text": "So."}]
    path = write(
        row("How?", {"role": "assistant", "content": parts}, "B", system="Be kind.", score=3),
        row("Why?", {"role": "assistant", "content": "A", "reasoning_content": "Hm."}, "B", system="Be kind."),
        row("And in winter?", [*TURNS, *A], [*TURNS, *B], score=None),
    )
    data = load(path)
    assert data.train[0].chosen == "Ha.\nSo."
    (source,) = data.report.sources
    assert {change.change: (change.count, change.examples) for change in source.changes} == {
        "'reasoning_content' of a message is not read": (1, (f"{path}:2",)),
        "column 'score' is not read": (1, (f"{path}:1",)),
    }
    shown = "\n".join(plain_lines(describe(data.report)))
    assert all(change.change in shown for change in source.changes)


def test_a_system_column_may_have_another_name(write: Write) -> None:
    rows = [row("How?", "A", "B", persona="Be a pirate.")]
    source = {"path": str(write(*rows)), "options": {"columns": {"system": "persona"}}}
    (pair,) = load(source).train
    assert list(pair.prompt) == [SYSTEM, *QUESTION]


def test_answers_for_preferences_keep_their_context_too(write: Write) -> None:
    answers = {"a": [SYSTEM, *QUESTION, *A], "b": [SYSTEM, *QUESTION, *B]}
    path = write({"prompt": "How?", "answers": answers})
    pairs = load({"path": str(path), "format": "per_preference"}).train
    assert [list(pair.prompt) for pair in pairs] == [[SYSTEM, *QUESTION]] * 2


def choices(path: Path) -> list[Any]:
    return [choice.comparison.prompt for choice in read_choices(path)]


def examples(path: Path) -> list[Any]:
    return [pair.prompt for pair in read_examples(path, "calm")]


def benchmark(path: Path) -> list[Any]:
    return [item.prompt for item in load_jsonl(path=str(path), preferences=["x"])]


def prompts(path: Path) -> list[Any]:
    return list(read_prompts(path, 9))


def lines(path: Path) -> list[Any]:
    return [prompt_of(each) for each in read_rows(path)]


READERS = [choices, examples, benchmark, prompts, lines]


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_of_rows_keeps_the_context(write: Write, reader: Any, capsys: Any) -> None:
    rows = [row(f"{number}?", "A", "B", system="Be a pirate.", score=3) for number in range(4)]
    path = write(json.dumps(rows), name="rows.json")
    assert reader(path) == [(SYSTEM, {"role": "user", "content": f"{number}?"}) for number in range(4)]
    if reader is not lines:
        assert "rows.json: column 'score' is not read (4 rows)" in capsys.readouterr().err


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("more", "field"), [({"tools": ["x"]}, "tools"), ({"prompt": [*QUESTION, CALL]}, "prompt")])
def test_every_reader_of_rows_refuses_tools_with_the_line(
    write: Write, reader: Any, more: dict[str, Any], field: str
) -> None:
    path = write(*(row(f"{number}?", "A", "B") for number in range(4)), {**row("5?", "A", "B"), **more})
    with pytest.raises(DataError) as caught:
        reader(path)
    assert (caught.value.path, caught.value.line, caught.value.field) == (str(path), 5, field)


def test_the_api_reads_messages_as_files_do() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert as_messages([{"role": "user", "content": parts}]) == ({"role": "user", "content": "a\nb"},)
    for message, reason in ((CALL, "tool"), ({"role": "user", "content": [IMAGE]}, "image_url")):
        with pytest.raises(DataError, match=reason):
            as_messages([message])
