"""Pairs that a model writes: the embedded policy that follows preferences answers under our instructions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pad_cli.contrast import teachers
from pad_cli.contrast.answers import PLAIN
from pad_cli.contrast.source import ContrastOptions, _prompts, make_answers
from pad_cli.errors import DataError, PreferenceError, RecipeError
from pad_cli.models.language_model import LanguageModel
from pad_cli.pairs import load_pairs
from pad_cli.recipe import DataSettings
from tests.contrast.conftest import STYLES, options


def test_every_answer_wins_under_its_own_principle_against_the_others_to_its_prompt(teacher: LanguageModel) -> None:
    made = make_answers(STYLES, options(), lambda: teacher, seed=0)
    report = made.report
    assert report.rows == 12 * 4
    assert report.rows_used == sum(map(len, made.answers.values()))
    assert report.rows == report.rows_used + sum(each.count for each in report.dropped)
    assert report.rows_used > 0.6 * report.rows
    pairs = list(made.pairs())
    for prompt, answers in made.answers.items():
        own = [pair for pair in pairs if pair.prompt[0]["content"] == prompt[0][1]]
        styled = set(answers) - {PLAIN}
        assert len(own) == len(styled) * (len(answers) - 1)
        for pair in own:
            ((name, weight),) = pair.preference.items()
            assert (pair.chosen, weight) == (answers[name], 1.0)
            assert pair.rejected in answers.values()


def test_the_opposite_of_a_principle_asks_for_less_of_it(teacher: LanguageModel) -> None:
    made = make_answers(STYLES, options(opposites=True), lambda: teacher, seed=0)
    assert made.preferences["not formal"] == {"formal": -1.0}
    assert "not humorous" not in made.preferences  # it has none
    assert any(pair.preference == {"formal": -1.0} for pair in made.pairs())


def test_each_prompt_can_be_answered_under_some_principles_all_equally_often(teacher: LanguageModel) -> None:
    every, (one, two) = (
        options(keep_weak=True, min_contrast=None),
        (
            make_answers(
                STYLES, options(keep_weak=True, min_contrast=None, principles_per_prompt=n), lambda: teacher, seed=0
            )
            for n in (1, 2)
        ),
    )
    whole = make_answers(STYLES, every, lambda: teacher, seed=0)
    assert (one.report.rows, two.report.rows, whole.report.rows) == (12 * 2, 12 * 3, 12 * 4)
    for made in (one, two):
        for prompt, answers in made.answers.items():
            assert answers.items() <= whole.answers[prompt].items(), "what is drawn does not depend on the others"
    dealt = [name for answers in one.answers.values() for name in answers if name != PLAIN]
    assert max(map(dealt.count, STYLES)) <= 12 / len(STYLES)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_answers(
    teacher: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_answers(STYLES, options(), lambda: teacher, seed=3)
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "other"))
    generate, calls = teachers.PadEngine.generate, []

    def broken(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(len(arguments[0]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(teachers.PadEngine, "generate", broken)
        with pytest.raises(KeyboardInterrupt):
            make_answers(STYLES, options(), lambda: teacher, seed=3)
        again = make_answers(STYLES, options(), lambda: teacher, seed=3)
    assert again.answers == whole.answers
    assert sum(calls) - calls[1] == 12 * 4  # what was written before the interruption was not written again


def test_the_seed_decides_prompts_and_answers(teacher: LanguageModel) -> None:
    first, other = (make_answers(STYLES[:1], options(limit=6, keep_weak=True), lambda: teacher, s) for s in (0, 1))
    assert set(first.answers) != set(other.answers)


def test_a_contrast_that_no_answer_has_leaves_none(teacher: LanguageModel) -> None:
    with pytest.raises(DataError, match="humorous: No answer is left") as caught:
        make_answers(STYLES[:1], options(min_contrast=1e6), lambda: teacher, seed=0)
    assert "no likelier under its instruction" in caught.value.message


def test_rows_written_as_a_file_give_the_same_pairs(teacher: LanguageModel) -> None:
    asked = {"source": "contrast", "options": {"prompts": "prompts.jsonl", "limit": 12, "opposites": True}}
    direct = load_pairs(DataSettings.model_validate(asked), 0, STYLES, lambda: teacher)
    made = make_answers(STYLES, options(batch_size=48, opposites=True), lambda: teacher, seed=0)
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made.rows()), encoding="utf-8")
    read = {"path": "pairs.jsonl", "format": "per_preference", "options": {"neutral": [PLAIN]}}
    from_file = load_pairs(DataSettings.model_validate({"train": read, "contrast": False}), 0, STYLES)

    def content(pairs: Any) -> set[str]:
        return {json.dumps(pair.content(), sort_keys=True, default=dict) for pair in pairs}

    assert content(from_file.train) == content(direct.train)
    assert direct.texts == {"humorous": (), "formal": ("in a suit",), "concise": ()}
    (report,) = direct.report.sources
    assert report.rows == 12 * 5


def test_more_principles_take_more_prompts_unless_a_number_is_given() -> None:
    found = [_prompts(ContrastOptions(), 0, principles) for principles in (1, 4, 12)]
    assert [len(prompts) for prompts in found] == [54, 72, 120]
    assert found[2][:54] == found[0]
    assert len(_prompts(ContrastOptions(limit=7), 0, 12)) == 7


@pytest.mark.parametrize(
    ("principles", "changed", "error", "words"),
    [
        ((), {}, RecipeError, "needs principles"),
        (("plain",), {}, RecipeError, "answers without an instruction are called 'plain'"),
        (("formul",), {}, PreferenceError, "no principle 'formul'"),
        (STYLES, {"prompts": "missing.jsonl"}, DataError, "missing.jsonl"),
    ],
)
def test_wrong_input_is_refused_before_a_model_is_loaded(
    principles: tuple[str, ...], changed: dict[str, Any], error: type[Exception], words: str
) -> None:
    def load() -> LanguageModel:
        raise AssertionError("loaded a model")

    with pytest.raises(error, match=words):
        make_answers(principles, options(**changed), load, seed=0)


def test_a_principle_that_the_teacher_cannot_do_is_left_out_unless_asked_for(teacher: LanguageModel) -> None:
    """At a high temperature answers without an instruction differ from each other, and so they are no duplicates."""
    with Path("principles.yaml").open("a", encoding="utf-8") as file:
        file.write("plainly:\n  instruction: '?'\n")
    asked, hot = (*STYLES, "plainly"), {"limit": 24, "temperature": 1.5, "min_contrast": None}
    made = make_answers(asked, options(**hot), lambda: teacher, seed=2)
    assert "plainly" in made.left_out
    assert "humorous" not in made.left_out
    assert "answers told from plain ones" in made.left_out["plainly"]
    assert not any("plainly" in answers for answers in made.answers.values())
    assert made.report.rows_used == sum(map(len, made.answers.values()))
    assert made.report.rows == made.report.rows_used + sum(each.count for each in made.report.dropped)
    kept = make_answers(asked, options(**hot, keep_weak=True), lambda: teacher, seed=2)
    assert kept.left_out == {}
    assert any("plainly" in answers for answers in kept.answers.values())
