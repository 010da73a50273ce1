"""Every pair format on rows in the true schema of its data set; the text is ours."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import pytest

from pad_cli.errors import DataError, RecipeError, UsageError
from pad_cli.records import Dropped, PairData
from tests.pairs.conftest import Write, load, texts_of


def load_as(write: Write, format_: str, rows: list[Any], options: Mapping[str, Any] = {}, **data: Any) -> PairData:
    source = {"path": str(write(*rows)), "format": format_, "options": dict(options)}
    return load(source, **data)


def dropped(data: PairData) -> dict[str, tuple[str, int]]:
    return {entry.reason: (entry.what, entry.count) for entry in data.report.sources[0].dropped}


# pairs


def test_columns_may_have_other_names_and_the_preference_may_be_given(write: Write) -> None:
    row = {"question": "How?", "good": "Ha.", "bad": "So."}
    columns = {"prompt": "question", "chosen": "good", "rejected": "bad"}
    data = load_as(write, "pairs", [row], {"columns": columns, "preference": {"humorous": 2}})
    assert texts_of(data) == [("How?", "humorous", "Ha.", "So.")]
    assert data.train[0].preference == {"humorous": 2.0}


def test_a_bad_value_is_reported_under_the_name_that_the_data_have(write: Write) -> None:
    with pytest.raises(DataError) as caught:
        load_as(write, "pairs", [{"question": ""}], {"columns": {"prompt": "question"}})
    assert caught.value.field == "question"


def test_conversations_without_a_prompt_begin_with_it(write: Write) -> None:
    shared = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    shared.append({"role": "user", "content": "How?"})
    answers = [[*shared, {"role": "assistant", "content": text}] for text in ("Ha.", "So.")]
    data = load_as(write, "pairs", [{"preference": "humorous", "chosen": answers[0], "rejected": answers[1]}])
    (pair,) = data.train
    assert list(pair.prompt) == shared
    assert (pair.chosen, pair.rejected) == ("Ha.", "So.")


def test_conversations_without_a_prompt_that_part_too_early_are_bad_rows(write: Write) -> None:
    answers = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": "x"}] for question in ("How?", "Why?")
    ]
    row = {"preference": "humorous", "chosen": answers[0], "rejected": answers[1]}
    with pytest.raises(DataError, match="differ before their last message"):
        load_as(write, "pairs", [row])
    with pytest.raises(DataError, match="'prompt': missing"):
        load_as(write, "pairs", [{**row, "chosen": answers[0][1:]}])


# per_preference

DSP = {"query": "How?", "responses": {"academy": "Thus.", "business": "Synergy.", "fun": "Ha.", "normal": "So."}}
DSP_COLUMNS = {"prompt": "query", "answers": "responses"}


def test_an_answer_per_preference_gives_all_ordered_pairs(write: Write) -> None:
    data = load_as(write, "per_preference", [{"prompt": "How?", "answers": {"a": "A", "b": "B", "c": "C", "d": "D"}}])
    expected = {("How?", winner, winner.upper(), loser.upper()) for winner, loser in permutations("abcd", 2)}
    assert set(texts_of(data)) == expected
    assert len(data.train) == 12


def test_the_domain_specific_preference_data_read_as_they_are(write: Write) -> None:
    options = {"columns": DSP_COLUMNS, "neutral": ["normal"]}
    data = load_as(write, "per_preference", [DSP], options)
    assert len(data.train) == 3 * 2 + 3
    assert {pair.rejected for pair in data.train} == set(DSP["responses"].values())
    assert {name for pair in data.train for name in pair.preference} == {"academy", "business", "fun"}


def test_answers_may_stand_in_columns_and_preferences_have_other_names(write: Write) -> None:
    row = {"prompt": "How?", "x": "X", "y": "Y", "z": None}
    options = {"preferences": {"x": "academic", "y": {"fun": 2}, "z": "none"}}
    data = load_as(write, "per_preference", [row], options)
    assert [(dict(pair.preference), pair.chosen) for pair in data.train] == [
        ({"academic": 1.0}, "X"),
        ({"fun": 2.0}, "Y"),
    ]


def test_answers_that_the_options_leave_out_do_not_occur(write: Write) -> None:
    options = {"columns": DSP_COLUMNS, "preferences": {"academy": "academic", "fun": "fun"}}
    data = load_as(write, "per_preference", [DSP], options)
    assert texts_of(data) == [("How?", "academic", "Thus.", "Ha."), ("How?", "fun", "Ha.", "Thus.")]


def test_a_single_answer_gives_no_pair_and_is_counted(write: Write) -> None:
    rows = [{"prompt": "Why?", "answers": {"a": "A", "b": None}}, {"prompt": "How?", "answers": {"a": "A", "b": "B"}}]
    assert dropped(load_as(write, "per_preference", rows)) == {"fewer than two answers": ("row", 1)}


def test_an_answer_that_is_no_text_is_named(write: Write) -> None:
    with pytest.raises(DataError) as caught:
        load_as(write, "per_preference", [{"prompt": "How?", "answers": {"a": "A", "b": 3}}])
    assert caught.value.field == "b"


# helpsteer2


def steer(prompt: str, response: str, *ratings: int) -> dict[str, Any]:
    names = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
    return {"prompt": prompt, "response": response, **dict(zip(names, ratings, strict=True))}


def test_ratings_give_a_pair_under_every_attribute_that_tells_two_responses_apart(write: Write) -> None:
    rows = [steer("How?", "long", 4, 4, 4, 2, 3), steer("How?", "short", 3, 4, 4, 2, 4)]
    data = load_as(write, "helpsteer2", rows)
    assert texts_of(data) == [("How?", "helpfulness", "long", "short"), ("How?", "verbosity", "short", "long")]
    source = data.report.sources[0]
    assert (source.rows, source.rows_used, source.contrast_pairs) == (2, 2, 0)


def test_rows_of_one_prompt_belong_together(write: Write) -> None:
    rows = [
        *(steer("How?", "a", 4, 4, 4, 2, 2), steer("How?", "b", 2, 4, 4, 2, 2)),
        *(steer("Why?", "c", 4, 4, 4, 2, 2), steer("Who?", "d", 1, 4, 4, 2, 2)),
        *(steer("What?", "e", 4, 4, 4, 2, 2), steer("What?", "f", 4, 4, 4, 2, 2)),
        steer("How?", "g", 0, 4, 4, 2, 2),
    ]
    data = load_as(write, "helpsteer2", rows)
    assert texts_of(data) == [("How?", "helpfulness", *pair) for pair in ("ab", "ag", "bg")]
    assert dropped(data) == {
        "only one answer to the prompt": ("row", 2),
        "ratings that do not differ enough": ("row", 2),
    }


def test_attributes_are_chosen_renamed_and_need_a_least_difference(write: Write) -> None:
    rows = [steer("How?", "a", 4, 3, 4, 2, 0), steer("How?", "b", 2, 4, 4, 2, 4)]
    options = {"attributes": {"helpfulness": "helpful", "correctness": "correct"}, "minimum_difference": 2}
    assert texts_of(load_as(write, "helpsteer2", rows, options)) == [("How?", "helpful", "a", "b")]


def test_a_prompt_of_several_turns_becomes_a_conversation(write: Write) -> None:
    prompt = "Hi\n<extra_id_1>Assistant\nYes?\n<extra_id_1>User\nHow?"
    data = load_as(write, "helpsteer2", [steer(prompt, "a", 4, 4, 4, 2, 2), steer(prompt, "b", 1, 4, 4, 2, 2)])
    assert [(message["role"], message["content"]) for message in data.train[0].prompt] == [
        ("user", "Hi"),
        ("assistant", "Yes?"),
        ("user", "How?"),
    ]


@pytest.mark.parametrize("rating", [None, "4", True, float("nan")])
def test_a_rating_that_is_none_names_its_attribute(write: Write, rating: Any) -> None:
    rows = [steer("How?", "a", 4, 4, 4, 2, 2), {**steer("How?", "b", 4, 4, 4, 2, 1), "coherence": rating}]
    with pytest.raises(DataError) as caught:
        load_as(write, "helpsteer2", rows)
    assert (caught.value.line, caught.value.field) == (2, "coherence")


# ultrafeedback


def completion(response: Any, *ratings: Any) -> dict[str, Any]:
    names = ("helpfulness", "honesty", "instruction_following", "truthfulness")
    annotations = {name: {"Rating": rating, "Rationale": "..."} for name, rating in zip(names, ratings, strict=True)}
    return {"model": "m", "response": response, "annotations": annotations, "overall_score": 7.5}


def ultra(*completions: dict[str, Any]) -> dict[str, Any]:
    return {"source": "ours", "instruction": "How?", "models": ["m"], "completions": list(completions)}


def test_completions_give_a_pair_for_every_two_and_aspect_that_differs(write: Write) -> None:
    row = ultra(completion("a", "5", "3", "4", "4"), completion("b", "4", "4", "4", "4"), completion("c", *"1344"))
    assert set(texts_of(load_as(write, "ultrafeedback", [row]))) == {
        *(("How?", "helpfulness", winner, loser) for winner, loser in ("ab", "ac", "bc")),
        *(("How?", "honesty", "b", loser) for loser in "ac"),
    }


def test_ratings_that_are_none_and_empty_responses_are_skipped_and_counted(write: Write) -> None:
    second = completion("b", "4", "4", 10**400, "4")
    row = ultra(completion("a", "5", "N/A", "4", "4"), second, completion("", *"1111"))
    data = load_as(write, "ultrafeedback", [row])
    assert texts_of(data) == [("How?", "helpfulness", "a", "b")]
    assert dropped(data) == {
        "no rating for honesty": ("part", 1),
        "no rating for instruction_following": ("part", 1),
        "a completion without a response": ("part", 1),
    }


def test_a_row_without_completions_gives_no_pair(write: Write) -> None:
    good = ultra(completion("a", *"5444"), completion("b", *"4444"))
    data = load_as(write, "ultrafeedback", [good, ultra(), {**ultra(completion("x", *"4444"))}])
    assert dropped(data) == {"only one answer to the prompt": ("row", 2)}


def test_an_aspect_that_is_missing_is_counted_and_a_row_without_a_list_is_bad(write: Write) -> None:
    row = ultra({"response": "a", "annotations": {"helpfulness": {"Rating": "5"}}}, completion("b", *"4444"))
    data = load_as(write, "ultrafeedback", [row])
    assert texts_of(data) == [("How?", "helpfulness", "a", "b")]
    assert dropped(data)["no rating for honesty"] == ("part", 1)
    with pytest.raises(DataError) as caught:
        load_as(write, "ultrafeedback", [{"instruction": "How?", "completions": None}])
    assert caught.value.field == "completions"


# ric


def ric(prompt: str, response: str, *scores: float) -> dict[str, Any]:
    numbered = {f"score{number}": score for number, score in enumerate(scores, start=1)}
    return {"prompt": prompt, "response": response, "query": prompt + response, "prompt_with_score": "...", **numbered}


RIC = {"scores": {"score1": "harmless", "score2": "helpful"}}


def test_responses_to_one_prompt_are_paired_however_far_apart(write: Write) -> None:
    first, second = "\n\nHuman: How? \n\nAssistant:", "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Why? \n\nAssistant:"
    rows = [
        ric(first, "a", 0.5, -1.0),
        ric(second, "c", 0.1, 0.1),
        ric(first, "b", -0.5, 1.0),
        ric(second, "d", 0.1, 0.0),
    ]
    data = load_as(write, "ric", rows, RIC)
    assert texts_of(data) == [
        *(("How?", "harmless", "a", "b"), ("How?", "helpful", "b", "a")),
        ("Why?", "helpful", "c", "d"),
    ]
    assert [message["role"] for message in data.train[2].prompt] == ["user", "assistant", "user"]


def test_scores_must_be_named_be_numbers_and_differ_enough(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"data\.train: options of the format 'ric': scores: is missing"):
        load_as(write, "ric", [ric("How?", "a", 0.5, 1)])
    with pytest.raises(DataError) as caught:
        load_as(write, "ric", [ric("How?", "a", 0.5)], RIC)
    assert caught.value.field == "score2"
    for odd in (10**400, float("nan"), float("inf"), True):
        with pytest.raises(DataError, match="no number"):
            load_as(write, "ric", [ric("How?", "a", 0.5, odd)], RIC)
    rows = [ric("How?", "a", 0.5, 0.0), ric("How?", "b", 0.4, 2.0)]
    assert texts_of(load_as(write, "ric", rows, {**RIC, "minimum_difference": 1})) == [("How?", "helpful", "b", "a")]


# safe_rlhf


def safe(better: Any, safer: Any) -> dict[str, Any]:
    return {
        "prompt": "How?",
        "response_0": "zero",
        "response_1": "one",
        "is_response_0_safe": True,
        "is_response_1_safe": False,
        "better_response_id": better,
        "safer_response_id": safer,
        "response_0_severity_level": 0,
    }


def test_the_better_answer_is_helpful_and_the_safer_one_harmless(write: Write) -> None:
    data = load_as(write, "safe_rlhf", [safe(1, 0)])
    assert texts_of(data) == [("How?", "helpful", "one", "zero"), ("How?", "harmless", "zero", "one")]


def test_a_question_can_be_left_out_or_named_otherwise(write: Write) -> None:
    data = load_as(write, "safe_rlhf", [safe(1, 0)], {"names": {"safer": "safe"}})
    assert texts_of(data) == [("How?", "safe", "zero", "one")]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        (safe(2, 0), "better_response_id"),
        (safe(1, "0"), "safer_response_id"),
        (safe(True, 0), "better_response_id"),
        ({**safe(1, 0), "response_1": None}, "response_1"),
    ],
)
def test_rows_of_another_schema_name_the_field(write: Write, row: dict[str, Any], field: str) -> None:
    with pytest.raises(DataError) as caught:
        load_as(write, "safe_rlhf", [row])
    assert caught.value.field == field


# hh_rlhf

HH = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: How?\n\nAssistant: "


def test_conversations_in_one_text_are_taken_apart(write: Write) -> None:
    data = load_as(write, "hh_rlhf", [{"chosen": HH + "Ha.", "rejected": HH + "So."}], {"preference": "helpful"})
    assert texts_of(data) == [("How?", "helpful", "Ha.", "So.")]
    assert [(message["role"], message["content"]) for message in data.train[0].prompt] == [
        ("user", "Hi"),
        ("assistant", "Yes?"),
        ("user", "How?"),
    ]


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (HH + "Ha.", HH.replace("Hi", "Hello") + "So."),
        (HH + "Ha.", HH),
        (HH + "Ha.", HH + "So.\n\nHuman: Oh"),
        (HH + "Ha.\n\nHuman: Thanks", HH + "So.\n\nHuman: Thanks"),
        ("\n\nHuman: Oh\n\nHuman: A", "\n\nHuman: Oh\n\nHuman: B"),
    ],
)
def test_rows_that_compare_nothing_are_counted(write: Write, chosen: str, rejected: str) -> None:
    rows = [{"chosen": HH + "Ha.", "rejected": HH + "So."}, {"chosen": chosen, "rejected": rejected}]
    data = load_as(write, "hh_rlhf", rows, {"preference": "helpful"})
    assert len(data.train) == 1
    assert dropped(data) == {"the conversations do not end with two answers to the same prompt": ("row", 1)}


@pytest.mark.parametrize("text", ["How?", "", None, [{"role": "user", "content": "How?"}]])
def test_a_text_without_speakers_is_a_bad_row(write: Write, text: Any) -> None:
    with pytest.raises(DataError, match="begins with") as caught:
        load_as(write, "hh_rlhf", [{"chosen": HH + "Ha.", "rejected": text}], {"preference": "helpful"})
    assert caught.value.field == "rejected"


# all of them


@pytest.mark.parametrize(
    "format_", ["pairs", "per_preference", "helpsteer2", "ultrafeedback", "ric", "safe_rlhf", "hh_rlhf"]
)
def test_rows_of_nothing_are_bad_rows_of_every_format(write: Write, format_: str) -> None:
    options = {"ric": RIC, "hh_rlhf": {"preference": "helpful"}}.get(format_, {})
    with pytest.raises(DataError, match="2 rows cannot be read"):
        load_as(write, format_, [{}, {"prompt": None, "completions": 3}], options)
    with pytest.raises(DataError, match="no training pairs are left") as caught:
        load_as(write, format_, [{}], options, bad_rows="drop")
    assert "1 row: " in caught.value.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum_differnce": 1}, "minimum_differnce: no such key. Did you mean minimum_difference"),
        ({"minimum_difference": "much"}, r"minimum_difference: .*\(found 'much'\)"),
        ({"attributes": 3}, r"attributes: .*\(found 3\)"),
    ],
)
def test_options_that_do_not_fit_are_recipe_errors_with_their_key(
    write: Write, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RecipeError, match=r"data\.train\.1: options of the format 'helpsteer2': " + message):
        load([str_source(write), {**str_source(write), "format": "helpsteer2", "options": options}])


def str_source(write: Write) -> dict[str, Any]:
    row = {"prompt": "How?", "preference": "humorous", "chosen": "Ha.", "rejected": "So."}
    return {"path": str(write(row))}


def test_an_unknown_format_is_answered_with_the_closest(write: Write) -> None:
    with pytest.raises(UsageError, match="pair_formats") as caught:
        load_as(write, "helpster2", [{}])
    assert "helpsteer2" in caught.value.hint


def test_examples_of_what_is_dropped_are_three_at_most(write: Write) -> None:
    rows = [{"prompt": f"{n}?", "answers": {"a": "A"}} for n in range(5)]
    good = {"prompt": "How?", "answers": {"a": "A", "b": "B"}}
    (entry,) = load_as(write, "per_preference", [*rows, good]).report.sources[0].dropped
    assert isinstance(entry, Dropped)
    assert (entry.count, [place.rpartition(":")[2] for place in entry.examples]) == (5, ["1", "2", "3"])
