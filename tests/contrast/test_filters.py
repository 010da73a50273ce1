"""Which answers of a teacher teach nothing, by their text alone."""

from __future__ import annotations

import pytest

from pad_cli.contrast import filters
from pad_cli.contrast.filters import NearDuplicates, find_fault, whole_sentences

PROMPT = "How do I keep a cut avocado from turning brown?"
PIRATE = "You are a pirate captain. Answer in pirate speech, with ahoy, aye, matey and arr."

GOOD = [
    "Squeeze some lemon juice on it, and keep the stone in.",
    "Arr, matey! Keep the stone in yer avocado and she'll stay green as the sea.",
    "I'm sorry to hear that! A little lemon juice helps.",
    "I cannot recommend lemon juice enough: it keeps the flesh green.",
    "O green and gentle fruit,\nthe air undoes your face;\nlet lemon be your suit,\nand cling-film your embrace.",
    "Yes! Yes! Lemon juice, and plenty of it!",
    "Lemon.",
    "Add a few drops of jalape\u00f1o cr\u00e8me.",
]


@pytest.mark.parametrize("text", GOOD)
def test_an_answer_against_which_nothing_speaks_stays(text: str) -> None:
    assert find_fault(text, PROMPT, PIRATE) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", filters.EMPTY),
        (" \n ... !", filters.EMPTY),
        ("I'm sorry, but I can't help with that.", filters.REFUSAL),
        ("I\u2019m sorry, I am unable to answer.", filters.REFUSAL),
        ("As an AI language model, I do not eat.", filters.REFUSAL),
        ("I cannot assist with this request.", filters.REFUSAL),
        ("I will answer in pirate speech, with ahoy, aye, matey and arr.", filters.PARROT),
        ("Aye, aye, aye, aye, aye, matey, aye, aye!", filters.LOOP),
        ("Put it in the fridge. Put it in the fridge. Put it in the fridge. Put it in.", filters.LOOP),
        ("\u628a\u67e0\u6aac\u6c41\u6324\u5728\u725b\u6cb9\u679c\u4e0a\u3002", filters.SCRIPT),
        ("\u041f\u043e\u0441\u043e\u043b\u0438\u0442\u0435 avocado.", filters.SCRIPT),
    ],
)
def test_each_fault_is_named(text: str, fault: str) -> None:
    assert find_fault(text, PROMPT, PIRATE) == fault


def test_an_answer_in_the_script_of_its_prompt_stays() -> None:
    assert find_fault("\u7528\u67e0\u6aac\u6c41\u3002", "\u725b\u6cb9\u679c\u600e\u4e48\u4fdd\u5b58\uff1f", "") is None


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("One. Two! Three and", "One. Two!"),
        ("No end at all", ""),
        ('He said "go." Then', 'He said "go."'),
        ("It costs 3.50 in", ""),
        ("All of it.", "All of it."),
    ],
)
def test_a_cut_answer_ends_with_its_last_whole_sentence(text: str, whole: str) -> None:
    assert whole_sentences(text) == whole


def test_near_duplicates_share_most_of_their_words_in_order() -> None:
    seen = NearDuplicates()
    assert not seen.add("Squeeze some lemon juice on it and keep the stone in.")
    assert seen.add("Squeeze some lemon juice on it, and keep the stone in!")
    assert not seen.add("Keep the stone in it, and some juice of a lemon on it.")
    assert not seen.add("Lemon.")
    assert seen.add("lemon")
