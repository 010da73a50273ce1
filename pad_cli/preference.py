"""What a user wants (floor 1): the one place that reads preferences and the one template that words them.

A preference is typed as one or more specifications:

    humorous            a named principle, weight 1
    concise=0.5         a named principle with a weight
    not formal          weight -1 ("no", "less", "avoid" and "without" read the same)
    something to laugh  free text, for a reward model with a preference encoder
    humorous, concise   several in one specification; "and", "but", ";" and "+" separate as well
    @me, @me=0.5        a profile: the weights in a file of that name, scaled; see `pad_cli.profiles`

A clause that is exactly a known name is that principle; every other clause is free text. `text:` in front of a
clause says that it is free text, whatever it looks like, an @ included.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pad_cli.errors import DataError, PreferenceError, did_you_mean
from pad_cli.records import Messages

_SEPARATOR = re.compile(r"\s*[,;+]\s*(?:(?:and|but)\s+)?|\s+(?:and|but)\s+")
_NEGATION = re.compile(r"^(?:not|no|less|avoid|without)\s+(.+)$", re.IGNORECASE)
_WEIGHT = re.compile(r"^(.*?)\s*=\s*([^=]*)$")
LARGEST = 1e9
"""No weight is larger: the numbers of models end not far beyond."""
_TYPO_RATIO = 0.8  # similarity at which a single unknown word is taken for a misspelt principle
_SLIGHTLY, _STRONGLY = 0.5, 2.0  # up to and from which a weight is put into words

Profiles = Callable[[str], Mapping[str, float]]
"""Name of a profile to its weights."""


@dataclass(frozen=True)
class Preference:
    """Signed weights of named principles and of free texts; `w_p` is the sum of the two."""

    weights: Mapping[str, float]  # principle name to weight; never zero
    texts: Mapping[str, float]  # free text to weight; never zero

    def describe(self) -> str:
        """The preference in words that `parse_preference` reads back."""
        parts = []
        for name, weight in [*self.weights.items(), *((f"text:{text}", w) for text, w in self.texts.items())]:
            word = name if weight > 0 else f"not {name}"
            number = repr(abs(weight)).replace("e+", "e").removesuffix(".0")  # a plus would separate
            parts.append(word if number == "1" and "=" not in word else f"{word}={number}")
        return ", ".join(parts)

    def phrase(self) -> str:
        """The preference in words for a language model: "humorous, not formal, concise (slightly)".

        A negative weight is "not". An absolute weight up to 0.5 is "slightly", and one from 2 on is "strongly". The
        words tell no other weights apart.
        """
        words = []
        for text, weight in [*self.weights.items(), *self.texts.items()]:
            size = abs(weight)
            degree = " (strongly)" if size >= _STRONGLY else " (slightly)" if size <= _SLIGHTLY else ""
            words.append(f"{text if weight > 0 else f'not {text}'}{degree}")
        return ", ".join(words)

    def __bool__(self) -> bool:
        return bool(self.weights or self.texts)


def instruction(text: str) -> str:
    """The one wording of a preference as an instruction to a language model."""
    return f"Write in this style: {text}"


def prompted(conversation: Messages, preference: Preference) -> Messages:
    """A conversation whose last question asks for the preference in words, too; unchanged when that is empty.

    The instruction follows on the question's last line if a sentence ends there, else on a line of its own.

    Raises:
        DataError: there is no user message, or it is empty.
    """

    def ask(question: str) -> str:
        question = question.rstrip()
        space = " " if question.endswith((".", "?", "!")) else "\n"
        return f"{question}{space}{instruction(preference.phrase())}"

    return rewrite_question(conversation, ask) if preference else conversation


def rewrite_question(conversation: Messages, rewrite: Callable[[str], str]) -> Messages:
    """A conversation with another last user message, the one to answer; whatever stands around it stays as it is.

    Raises:
        DataError: there is no user message, or it is empty.
    """
    last = max((place for place, message in enumerate(conversation) if message["role"] == "user"), default=None)
    if last is None or not conversation[last]["content"].strip():
        raise DataError("The prompt has no user message, or an empty one.", hint="Say what to answer.")
    question = {**conversation[last], "content": rewrite(conversation[last]["content"])}
    return (*conversation[:last], question, *conversation[last + 1 :])


def with_floor(preference: Preference, always: Mapping[str, float]) -> Preference:
    """A preference with no weight of these principles below its minimum: max(w_k, always_k).

    Idempotent. Free text adds to weights later; `PadEngine` clamps a reward model's table of weights.
    """
    clamped = {name: max(preference.weights.get(name, 0.0), least) for name, least in always.items()}
    return Preference({**preference.weights, **clamped}, preference.texts) if clamped else preference


def expand_profiles(specs: Iterable[str], profiles: Profiles) -> list[str]:
    """Specifications with the weights of profiles in place of `@NAME` and `@NAME=NUMBER`, to be stored as text.

    Raises:
        PreferenceError: a profile's weight is not a number.
    """

    def expand(clause: str) -> str:
        if "@" not in clause:
            return clause
        name, scale = _signed(clause, clause, {})
        if not name.startswith("@"):
            return clause
        weights = {key: weight * scale for key, weight in profiles(name[1:]).items() if weight * scale}
        return Preference(weights, {}).describe() or ","  # a comma: still a separator

    separator = re.compile(f"({_SEPARATOR.pattern})")
    split = (separator.split(" ".join(spec.split())) if "@" in spec else [spec] for spec in specs)
    expanded = ["".join(map(expand, parts)) for parts in split]
    return [spec for spec in expanded if spec.strip(" ,") or not spec]


def parse_preference(
    specs: Iterable[str], principles: Sequence[str], *, accepts_text: bool, profiles: Profiles | None = None
) -> Preference:
    """Read specifications as a user types them. Without any, the preference is empty: weight 0 everywhere.

    Args:
        specs: the specifications.
        principles: the names that the reward model knows.
        accepts_text: whether it has a preference encoder for free text.
        profiles: name to weights, which add to the others; None: `@NAME` has no meaning.

    Raises:
        PreferenceError: an empty specification, a weight that is not a number or too large, an unknown name.
    """
    weights: dict[str, float] = {}
    texts: dict[str, float] = {}
    by_lower = {name.lower(): name for name in principles}
    clauses = [clause for spec in specs for clause in _clauses(spec, by_lower, profiles)]
    for clause, weight in clauses:
        if (name := by_lower.get(clause.lower())) is not None:
            weights[name] = weights.get(name, 0.0) + weight
        else:
            text = _free_text(clause, principles, accepts_text)
            texts[text] = texts.get(text, 0.0) + weight
    for name, weight in [*weights.items(), *texts.items()]:
        if not abs(weight) <= LARGEST:
            raise PreferenceError(f"The weights of '{name}' add up to {weight:g}.", f"Stay below {LARGEST:g}.")
    return Preference({k: w for k, w in weights.items() if w}, {t: w for t, w in texts.items() if w})


def _clauses(spec: str, by_lower: Mapping[str, str], profiles: Profiles | None) -> list[tuple[str, float]]:
    """Split one specification into (clause, signed weight), with the weights of profiles behind the others."""
    if not spec.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in spec):
        raise PreferenceError(f"Preference {spec!r} is not UTF-8 text.", "Type it in UTF-8.")
    parts = [part for part in _split(" ".join(spec.split()), by_lower) if part]
    if not parts:
        raise PreferenceError("A preference is empty.", "Name a principle, for example: --pref humorous")
    clauses, of_profiles = [], []
    for clause, weight in (_signed(part, spec, by_lower) for part in parts):
        if profiles is not None and clause.startswith("@") and clause.lower() not in by_lower:
            of_profiles += [(name, weight * own) for name, own in profiles(clause[1:]).items() if weight * own]
        else:
            clauses.append((clause, weight))
    return [*clauses, *of_profiles]


def _split(spec: str, by_lower: Mapping[str, str]) -> list[str]:
    """Cut at separators, but never inside a known name, which may itself contain "and" or a comma."""
    joined = sorted((name for name in by_lower if _SEPARATOR.search(name)), key=len, reverse=True)
    whole = [rf"(?<!\w){re.escape(name)}(?!\w)" for name in joined]
    pattern = re.compile("|".join([*whole, f"(?P<cut>{_SEPARATOR.pattern})"]), re.IGNORECASE)
    parts, start = [], 0
    for match in pattern.finditer(spec):
        if match["cut"] is not None:
            parts.append(spec[start : match.start()])
            start = match.end()
    return [part.strip() for part in [*parts, spec[start:]]]


def _signed(clause: str, spec: str, by_lower: Mapping[str, str]) -> tuple[str, float]:
    text, weight = clause, 1.0
    if text.lower() in by_lower:  # a known name may look like a negation or a weight
        return text, weight
    if match := _WEIGHT.match(text):
        text = match.group(1).strip()
        try:
            weight = float(match.group(2))
        except ValueError:
            weight = math.nan
        if not text or not math.isfinite(weight):
            raise PreferenceError(
                f"Preference '{spec}': '{match.group(2)}' is not a weight.",
                "Write NAME=NUMBER, for example concise=0.5",
            )
    if text.lower() not in by_lower and (match := _NEGATION.match(text)):
        text, weight = match.group(1), -weight
    return text, weight


def _free_text(clause: str, principles: Sequence[str], accepts_text: bool) -> str:
    text = clause
    if clause.lower().startswith("text:"):
        text = clause[5:].strip()
        if not text:
            raise PreferenceError("A preference is empty after 'text:'.", "Write what you want, in words.")
    elif " " not in text:
        lower = [name.lower() for name in principles]
        if typo := difflib.get_close_matches(text.lower(), lower, n=1, cutoff=_TYPO_RATIO):
            hint = f"Did you mean {typo[0]}? (text:{text} takes it as free text.)"
            raise PreferenceError(f"Unknown preference '{text}'.", hint)
    if not accepts_text:
        reason = f"Unknown preference '{text}': this reward model has no preference encoder for free text."
        raise PreferenceError(reason, did_you_mean(text, principles))
    return text
