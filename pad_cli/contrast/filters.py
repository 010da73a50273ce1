"""Reasons to leave out an answer that a teacher wrote, judged by its text."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

EMPTY, CUT, REFUSAL = "empty", "cut off before its first sentence ended", "a refusal"
PARROT, LOOP, SCRIPT = "repeats its instruction", "repeats itself", "in another script than its prompt"
DUPLICATE = "nearly the same as another answer"

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_SENTENCE_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019)*_]*(?=\s|$)")
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) (?:sorry|afraid)\b.{0,40}\b(?:can(?:'t|not)|unable|won't)|i (?:can(?:'t|not)|won't) "
    r"(?:help|assist|answer|provide|comply|do that)|as an? (?:ai|artificial|language model))",
    re.IGNORECASE | re.DOTALL,
)
_OPENING = 200  # characters in which a refusal is looked for
_PARROTED_WORDS = 6  # in a row, taken from the instruction
_LOOP_WORDS = 4
_LOOP_SHARE = 0.2  # of an answer's 4-grams of words that it has written before
_WORD_SHARE, _FEW_WORDS = 0.4, 8  # of a text of at least 8 words that may be one word
_FOREIGN_LETTERS = 0.2  # share of letters in scripts that the prompt does not use
_SHINGLE = 3
_SAME = 0.7  # Jaccard similarity of two answers' 3-grams of words


def whole_sentences(text: str) -> str:
    """A text that was cut off, up to the end of its last whole sentence; empty if none ended."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    return text[: ends[-1]].rstrip() if ends else ""


def find_fault(text: str, prompt: str, instruction: str) -> str | None:
    """Why an answer teaches nothing about its principle; None if nothing speaks against it.

    Args:
        text: the answer; empty also if it was cut off before its first sentence ended.
        prompt: the prompt that it answers.
        instruction: what the teacher was told; empty for a plain answer.
    """
    words = _words(text)
    if not words:
        return EMPTY
    if _REFUSAL.search(text[:_OPENING].replace("\u2019", "'")):
        return REFUSAL
    if set(_ngrams(words, _PARROTED_WORDS)) & set(_ngrams(_words(instruction), _PARROTED_WORDS)):
        return PARROT
    if _loops(words):
        return LOOP
    if _foreign_share(text, prompt) > _FOREIGN_LETTERS:
        return SCRIPT
    return None


class NearDuplicates:
    """Finds answers that share most of their 3-grams of words with an earlier one."""

    def __init__(self) -> None:
        self._known: list[frozenset[tuple[str, ...]]] = []

    def add(self, text: str) -> bool:
        """Remember an answer, unless it is nearly the same as an earlier one; was it?"""
        words = _words(text)
        shingles = frozenset(_ngrams(words, _SHINGLE)) or frozenset([tuple(words)])
        if any(len(shingles & other) >= _SAME * len(shingles | other) for other in self._known):
            return True
        self._known.append(shingles)
        return False


def _words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _ngrams(words: Sequence[str], size: int) -> Iterable[tuple[str, ...]]:
    return zip(*(words[start:] for start in range(size)), strict=False)


def _loops(words: Sequence[str]) -> bool:
    """Does a text repeat its 4-grams, or one word ("aye, aye, matey, aye")?"""
    counts = Counter(_ngrams(words, _LOOP_WORDS))
    if sum(count - 1 for count in counts.values()) > _LOOP_SHARE * counts.total():
        return True
    return len(words) >= _FEW_WORDS and max(Counter(words).values()) > _WORD_SHARE * len(words)


def _foreign_share(text: str, prompt: str) -> float:
    """Share of an answer's letters in scripts that neither the prompt nor plain English uses."""
    known = {*map(_script, filter(str.isalpha, prompt)), "LATIN"}
    letters = [character for character in text if character.isalpha()]
    return sum(_script(letter) not in known for letter in letters) / len(letters) if letters else 0.0


def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]
