"""Few-shot examples that are drawn: the question's own preference first, then the nearest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pad_cli.errors import DataError
from pad_cli.evaluation.untrained_methods import Examples, Prompt, load_examples
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.preference import Preference, parse_preference
from pad_cli.records import BenchmarkItem, PreferencePair, as_messages
from tests.evaluation.methods.subjects import HOW, make_items, make_subject
from tests.tiny import PRINCIPLES

STYLES = ("humorous", "formal", "not formal", "humorous, formal", "humorous, concise")


def read(text: str) -> Preference:
    return parse_preference([text], PRINCIPLES, accepts_text=True)


def example(style: str, number: int) -> PreferencePair:
    return PreferencePair(as_messages(f"Question {number}?"), read(style).weights, f"{style} {number}", "no")


def pool(shots: int, seed: int = 0) -> Examples:
    return Examples(tuple(example(style, number) for style in STYLES for number in range(5)), shots, seed)


def item(style: str, name: str = "a", prompt: str = "Why?") -> BenchmarkItem:
    return BenchmarkItem(name, "single", style, as_messages(prompt), (style,))


def styles(examples: Sequence[PreferencePair]) -> list[str]:
    return [Preference(dict(each.preference), {}).describe() for each in examples]


@pytest.mark.parametrize("style", STYLES)
def test_examples_of_the_same_preference_are_drawn_first(style: str) -> None:
    assert styles(pool(5).of(item(style), read(style))) == [read(style).describe()] * 5


def test_the_strength_of_a_preference_does_not_count_but_its_sign_does() -> None:
    assert styles(pool(3).of(item("formal=0.5"), read("formal=0.5"))) == ["formal"] * 3
    assert styles(pool(3).of(item("not formal=2"), read("not formal=2"))) == ["not formal"] * 3


def test_a_combination_without_examples_gets_those_that_differ_least() -> None:
    """Of "formal, concise" only "formal" lacks no more than one word; "humorous, concise" lacks one and adds one."""
    wanted = read("formal, concise")
    drawn = styles(pool(7).of(item("formal, concise"), wanted))
    assert drawn[:5] == ["formal"] * 5
    assert set(drawn[5:]) <= {"humorous, formal", "humorous, concise"}


def test_the_questions_own_prompt_is_never_shown() -> None:
    drawn = pool(5).of(item("formal", prompt="Question 3?"), read("formal"))
    assert "Question 3?" not in [each.prompt[0]["content"] for each in drawn]
    assert styles(drawn)[:4] == ["formal"] * 4


def test_the_draw_is_decided_by_seed_and_item() -> None:
    asked = read("formal")
    first = pool(3).of(item("formal"), asked)
    assert pool(3).of(item("formal"), asked) == first
    assert any(pool(3, seed).of(item("formal"), asked) != first for seed in range(1, 4))
    assert any(pool(3).of(item("formal", name), asked) != first for name in "bcd")


def test_all_there_are_is_all_that_is_shown() -> None:
    assert len(pool(100).of(item("formal"), read("formal"))) == 25


def test_examples_stand_before_the_question_and_after_its_system_message() -> None:
    system = {"role": "system", "content": "Be kind."}
    shown = Examples((PreferencePair((system, *as_messages("Why?")), {"formal": 1.0}, "So.", "no"),), 1, 0)
    asked = BenchmarkItem("a", "single", "humorous", (system, *as_messages("How?")), ("humorous",))
    conversation = shown.before(asked, read("humorous"))
    assert [(message["role"], message["content"]) for message in conversation] == [
        ("system", "Be kind."),
        ("user", "Why? Write in this style: formal"),
        ("assistant", "So."),
        ("user", "How? Write in this style: humorous"),
    ]


def test_chosen_answers_of_a_file_of_pairs_are_examples(
    tmp_path: Path, policy: LanguageModel, reward_model: PersonalizedRewardModel
) -> None:
    rows = [
        {"prompt": f"Q{number}?", "preference": style, "chosen": f"{style} yes {number}", "rejected": f"no {number}"}
        for style in ("humorous", "not formal")
        for number in range(3)
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    subject = make_subject(policy, reward_model)
    method = Prompt(examples=str(file), shots=2)
    first, second, *_ = method.prompts(subject, make_items(), HOW)
    assert [message["content"].split(" yes")[0] for message in first[1::2]] == ["humorous"] * 2
    assert [message["content"].split(" yes")[0] for message in second[1::2]] == ["not formal"] * 2
    key = method.key(subject)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]), encoding="utf-8")
    assert Prompt(examples=str(file), shots=2).key(subject) != key
    assert Prompt(examples=str(file), shots=3).key(subject) != Prompt(examples=str(file), shots=2).key(subject)


def test_a_registered_source_of_pairs_gives_examples() -> None:
    drawn = load_examples("embedded", PRINCIPLES, shots=2, seed=0)
    assert styles(drawn.of(item("humorous"), read("humorous"))) == ["humorous"] * 2


def test_a_missing_file_is_named(policy: LanguageModel, reward_model: PersonalizedRewardModel) -> None:
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        Prompt(examples="nowhere.jsonl").key(make_subject(policy, reward_model))
