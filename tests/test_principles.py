"""Ready principles and everyday prompts: what ships keeps its promises, and a user's own file is read or refused."""

from __future__ import annotations

import json
import re
from collections import Counter
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from pad_cli.errors import DataError, PreferenceError, RecipeError
from pad_cli.pairs.splits import read_paraphrases
from pad_cli.preference import parse_preference
from pad_cli.principles import (
    Principle,
    find_principle,
    instructed,
    instructions_of,
    load_principles,
    principle_of,
    read_library,
    shipped_principles,
)
from pad_cli.prompts.prompt_sets import load_shipped
from pad_cli.system.resources import shipped
from tests.cli.test_commands import NO_TORCH, pad, refused, shell

LIBRARY = shipped_principles()
PAPER = {"helpful", "harmless", "humorous", "expert", "informative", "creative"}
NEGATION = re.compile(r"\b(no|not|never|without|avoid|don't|nobody|nothing)\b", re.IGNORECASE)


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "principles.yaml"
    path.write_text("parrot: {instruction: Answer like a parrot., description: Repeats itself}\n", encoding="utf-8")
    return path


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def test_every_shipped_principle_is_complete() -> None:
    assert len(LIBRARY) >= 26
    assert set(LIBRARY) >= PAPER | {"concise", "step-by-step", "storytelling", "socratic", "sceptical", "pirate"}
    for name, each in LIBRARY.items():
        assert (len(each.wordings), len(each.held_out)) == (8, 4), name
        assert each.opposite, name
        assert 0 < len(each.description) <= 56, name
        assert max(len(each.instruction), len(each.opposite)) <= 120, name


def test_an_instruction_and_its_opposite_share_their_sentences_and_differ_in_the_principle() -> None:
    for name, each in LIBRARY.items():
        first, second = each.instruction, each.opposite or ""
        begun = [[sentence.split()[0] for sentence in text.split(". ")] for text in (first, second)]
        assert begun[0] == begun[1], name
        assert 0.4 <= SequenceMatcher(None, words(first), words(second), autojunk=False).ratio() < 0.9, name


def test_an_opposite_asks_for_something_else_and_does_not_forbid() -> None:
    """A small model does what a negated instruction names."""
    assert not [name for name, each in LIBRARY.items() if NEGATION.search(each.opposite or "")]


def test_wordings_are_whole_texts_that_differ_by_more_than_their_punctuation() -> None:
    texts = [text for each in LIBRARY.values() for text in (*each.wordings, *each.held_out)]
    assert max(Counter(" ".join(words(text)) for text in texts).values()) == 1
    assert all(text == text.strip() and len(words(text)) <= 12 for text in texts)


def test_held_out_wordings_share_no_run_of_three_words_with_those_to_train_on() -> None:
    def runs(texts: tuple[str, ...]) -> set[tuple[str, ...]]:
        return {tuple(words(text)[n : n + 3]) for text in texts for n in range(len(words(text)) - 2)}

    shared = {name: runs(each.wordings) & runs(each.held_out) for name, each in LIBRARY.items()}
    assert not {name: found for name, found in shared.items() if found}


def test_a_name_can_be_typed_as_a_preference() -> None:
    for name in LIBRARY:
        assert parse_preference([f"not {name}=2"], list(LIBRARY), accepts_text=False).weights == {name: -2.0}


def test_ones_own_principles_come_behind_those_that_ship_and_replace_them_by_name(own: Path) -> None:
    assert list(read_library()) == [*LIBRARY, "parrot"]
    own.write_text("Pirate:\n  instruction: |\n    Say\n    arr.\n  wordings: [sail  with me]\n", encoding="utf-8")
    library = read_library(own)
    assert "pirate" not in library
    assert find_principle("PIRATE", library) == (
        "Pirate",
        Principle(instruction="Say arr.", wordings=("sail with me",)),
    )
    with pytest.raises(PreferenceError, match="no principle 'pirat'") as caught:
        find_principle("pirat", LIBRARY)
    assert caught.value.hint == "Did you mean pirate?"


@pytest.mark.parametrize(
    ("text", "field", "said"),
    [
        ("- a\n", "", "not a mapping of principles"),
        ("", "", "not a mapping of principles"),
        ("a: [\n", "", "not YAML"),
        ("a: {instruction: x}\na: {instruction: y}\n", "", "is duplicated"),
        ("yes: {instruction: x}\n", "1", "(found True)"),
        ('" ": {instruction: x}\n', " ", "not the name"),
        ('"a  b": {instruction: x}\n', "a  b", "not the name"),
        ("a: {instruction: x}\nA: {instruction: y}\n", "A", "already the name of 'a'"),
        ("a: x\n", "a", "(found 'x')"),
        ("a:\n", "a", "(found None)"),
        ("a: {description: x}\n", "a", "an `instruction` or `examples` are needed"),
        ("a: {instuction: x}\n", "a.instuction", "no such key"),
        ("a: {instruction: 3}\n", "a.instruction", "a valid string (found 3)"),
        ('a: {instruction: " "}\n', "a.instruction", "is empty"),
        ('a: {instruction: x, description: "b\\0"}\n', "a.description", "control character"),
        ('a: {instruction: x, opposite: "\\ud800"}\n', "a.opposite", "control character"),
        ("a: {instruction: x, opposite: X}\n", "a", "are the same"),
        ("a: {instruction: x, wordings: be brief}\n", "a.wordings", "a valid tuple (found 'be brief')"),
        ("a: {instruction: x, wordings: [b, 7]}\n", "a.wordings.1", "a valid string (found 7)"),
        ("a: {instruction: x, held_out: ['']}\n", "a.held_out.0", "is empty"),
        ("a: {instruction: x, wordings: [b, B]}\n", "a.wordings.1", "already in 'a.wordings'"),
        ("a: {instruction: x, wordings: [b], held_out: [b]}\n", "a.held_out.0", "already in 'a.wordings'"),
        ("a: {instruction: x, held_out: [b]}\nc: {instruction: y, wordings: [b]}\n", "c.wordings.0", "'a.held_out'"),
        ("a: {instruction: x}\nc: {instruction: y, wordings: [A]}\n", "c.wordings.0", "the name of 'a'"),
    ],
)
def test_a_wrong_file_is_refused_by_file_principle_and_key(own: Path, text: str, field: str, said: str) -> None:
    own.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        load_principles(own)
    assert (caught.value.path, caught.value.field) == (str(own), field)
    assert caught.value.hint


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"a: {instruction: caf\xe9}")
    for name in ("nowhere.yaml", "latin.yaml", "."):
        with pytest.raises(DataError, match=re.escape(str(tmp_path / name))):
            load_principles(tmp_path / name)


def test_wordings_of_principles_are_read_from_their_file(own: Path) -> None:
    own.write_text("a: {instruction: x, wordings: [b], held_out: [c]}\nd: {instruction: y}\n", encoding="utf-8")
    assert read_paraphrases(str(own)) == ({"a": ("b",), "d": ()}, {"a": ("c",), "d": ()})


def test_shipped_wordings_are_those_of_the_library_whatever_the_user_has(own: Path) -> None:
    train, held_out = read_paraphrases("shipped")
    for name, each in LIBRARY.items():
        assert (train[name], held_out[name]) == (each.wordings, each.held_out)
    assert "parrot" not in train


def test_the_library_is_listed_within_80_columns(own: Path) -> None:
    lines = pad("prefs", "library").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [*LIBRARY, "parrot"]
    assert max(map(len, lines)) <= 80
    assert all(each.description in line for each, line in zip(read_library().values(), lines[1:], strict=True))


def test_one_principle_is_shown_whole() -> None:
    text = " ".join(pad("prefs", "library", "Socratic").stdout.split())
    each = LIBRARY["socratic"]
    assert text.startswith("socratic instruction You are")
    for part in (each.instruction, each.opposite, each.description, *each.wordings, *each.held_out):
        assert part is not None
        assert part in text


def test_json_has_a_row_for_each_principle_with_all_its_keys(own: Path) -> None:
    rows = [json.loads(line) for line in pad("prefs", "library", "--json").stdout.splitlines()]
    assert [row["name"] for row in rows] == [*LIBRARY, "parrot"]
    assert all(set(row) == {"name", *Principle.model_fields} for row in rows)
    assert [json.loads(pad("prefs", "library", "parrot", "--json").stdout)] == rows[-1:]


def test_a_wrong_file_or_name_is_a_usage_error(own: Path) -> None:
    assert "Did you mean pirate?" in refused("prefs", "library", "pirat")
    own.write_text("parrot: {instruction: Answer., wordigns: [x]}\n", encoding="utf-8")
    for arguments in ([], ["--file", str(own)], ["parrot", "--json"]):
        said = refused("prefs", "library", *arguments)
        assert "principles.yaml, field 'parrot.wordigns': no such key" in said
        assert "Did you mean wordings?" in said
    assert "nowhere.yaml: cannot be read" in refused("prefs", "library", "--file", "nowhere.yaml")


def test_listing_loads_no_torch() -> None:
    done = shell("prefs", "library", check=NO_TORCH)
    assert (done.returncode, done.stderr.decode()) == (0, "[]\n")


PROMPTS: list[dict[str, Any]] = [
    json.loads(line)
    for line in (shipped("data") / "prompts" / "everyday.jsonl").read_text(encoding="utf-8").splitlines()
]
OTHERS = [
    json.loads(line)["prompt"]
    for name in ("helpful-harmless-humorous", "expert-informative-creative")
    for line in (shipped("data") / "prompts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
]


def test_everyday_prompts_vary_in_kind_length_and_opening() -> None:
    assert all(set(row) == {"prompt", "kind"} for row in PROMPTS)
    assert len(PROMPTS) >= 320
    kinds = Counter(row["kind"] for row in PROMPTS)
    assert len(kinds) >= 20
    assert max(kinds.values()) <= 0.1 * len(PROMPTS)
    lengths = sorted(len(row["prompt"].split()) for row in PROMPTS)
    assert (lengths[0], lengths[-1]) >= (4, 60)
    assert lengths[len(lengths) // 10] <= 8
    assert lengths[-len(lengths) // 10] >= 24
    openings = Counter(" ".join(words(row["prompt"])[:2]) for row in PROMPTS)
    assert max(openings.values()) <= 0.1 * len(PROMPTS)


def test_no_two_prompts_of_ours_are_near_duplicates() -> None:
    """At most a third of the 4-grams of the shorter of two prompts occur in the other one."""

    def grams(text: str) -> set[tuple[str, ...]]:
        found = words(text)
        return {tuple(found[n : n + 4]) for n in range(max(1, len(found) - 3))}

    texts = [*(row["prompt"] for row in PROMPTS), *OTHERS]
    all_grams = [grams(text) for text in texts]
    for (first, left), (second, right) in combinations(zip(texts, all_grams, strict=True), 2):
        assert len(left & right) <= min(len(left), len(right)) / 3 or first in OTHERS, (first, second)


def test_the_documents_count_right() -> None:
    documents = Path(__file__).parent.parent / "docs"
    assert f"# {len(LIBRARY)} principles, each with a line" in (documents / "preferences.md").read_text(
        encoding="utf-8"
    )
    kinds = len({row["kind"] for row in PROMPTS})
    assert f"`everyday`: {len(PROMPTS)} of {kinds} kinds" in (documents / "evaluation.md").read_text(encoding="utf-8")


def test_everyday_prompts_are_asked_under_given_preferences(capsys: pytest.CaptureFixture[str]) -> None:
    items = load_shipped(name="everyday", preferences=["formal", "pirate"])
    assert len(items) == 2 * len(PROMPTS)
    assert capsys.readouterr().err == "", "the column `kind` is ours"
    with pytest.raises(RecipeError, match="preferences"):
        load_shipped(name="everyday")


def test_any_text_is_a_principle_and_a_name_is_the_ready_one() -> None:
    assert principle_of("Pirate", LIBRARY) == LIBRARY["pirate"]
    assert "like a cookery book" in principle_of("  like a\ncookery book", LIBRARY).instruction
    told = instructions_of(["formal", "like a cookery book"], LIBRARY)
    assert list(told) == ["formal", "like a cookery book", "not formal"]
    assert told["not formal"] == LIBRARY["formal"].opposite


def test_examples_are_part_of_what_asks_for_a_principle(own: Path) -> None:
    own.write_text("me: {examples: [Right then., Two eggs!]}\nshort: {instruction: Be brief., examples: [No.]}\n")
    told = instructions_of(["me", "short"], read_library())
    assert told["me"].splitlines()[1:] == ["- Right then.", "- Two eggs!"]
    assert told["short"].startswith("Be brief. ")
    assert told["short"].endswith("\n- No.")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("formul", "no principle 'formul'"), (" ", "is empty"), ("a\x00b", "control character")],
)
def test_a_text_that_can_be_no_principle_is_refused(text: str, problem: str) -> None:
    with pytest.raises(PreferenceError, match=problem):
        principle_of(text, LIBRARY)


def test_an_instruction_is_the_first_paragraph_of_the_system_text() -> None:
    question = {"role": "user", "content": "Why?"}
    assert instructed((question,), "Be kind.") == ({"role": "system", "content": "Be kind."}, question)
    system = {"role": "system", "content": "You are Ada."}
    assert instructed((system, question), "Be kind.")[0]["content"] == "Be kind.\n\nYou are Ada."
    assert instructed((system, question), "") == (system, question)
