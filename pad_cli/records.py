"""The nouns that travel between floors (floor 1): plain, frozen, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pad_cli.errors import DataError

Messages = tuple[Mapping[str, str], ...]
"""A conversation: messages with `role` and `content`, the field's standard form."""


def as_messages(prompt: str | Sequence[Mapping[str, Any]]) -> Messages:
    """A plain prompt becomes one user message; of a conversation, every message is read by `as_message`."""
    if isinstance(prompt, str):
        return ({"role": "user", "content": prompt},)
    return tuple(as_message(message) for message in prompt)


_TOOL_ROLES = ("tool", "function", "ipython")
_TOOL_KEYS = ("tool_calls", "function_call", "tool_call_id")


def as_message(message: Mapping[str, Any]) -> dict[str, str]:
    """A message's role and text: parts become lines, a developer is the system; other keys are left out.

    Raises:
        DataError: it calls a tool or is a tool's turn, or its content is not text.
    """
    role, content = message["role"], message.get("content")
    if role in _TOOL_ROLES or any(message.get(key) for key in _TOOL_KEYS):
        hint = "Write into the texts what was called and what came back, or leave such conversations out."
        raise DataError("tool calls and the turns of tools are not supported", hint=hint)
    if isinstance(content, list | tuple):
        content = "\n".join(_text_of(part) for part in content)
    if content is not None and not isinstance(content, str):
        hint = 'Write "content": "...", or a list of {"type": "text", "text": "..."}.'
        raise DataError("a message whose content is neither a text nor a list of parts", hint=hint)
    return {"role": "system" if role == "developer" else role, "content": content or ""}


def _text_of(part: Any) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    named = f"of type '{kind}'" if isinstance(kind, str) else "without a type"
    reason = "a text part without text" if kind == "text" else f"a content part {named}; only text is read"
    raise DataError(reason, hint='Write {"type": "text", "text": "..."}, or leave such conversations out.')


@dataclass(frozen=True)
class PreferencePair:
    """Two answers to one prompt, and the preference under which the first is better."""

    prompt: Messages  # the conversation so far
    preference: Mapping[str, float]  # weights of named principles, signed
    chosen: str  # the better answer under that preference
    rejected: str  # the worse answer
    texts: Mapping[str, float] = field(default_factory=dict)  # weights of free text, which add to the named ones
    place: str = field(default="", compare=False)  # where it was read, `file:line` or `dataset[row]`; or empty

    def content(self) -> dict[str, Any]:
        """What it says, wherever it was read: for fingerprints."""
        return {name: value for name, value in asdict(self).items() if name != "place"}


@dataclass(frozen=True)
class PairSplit:
    """A named set of preference pairs."""

    name: str  # the key under which metrics are reported, for example `held_out_topics`
    pairs: tuple[PreferencePair, ...]  # its preference pairs
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # principle to paraphrases to use for its name


@dataclass
class Dropped:
    """A part of a source that gives no pair: a row, a part of a row that gave others, or a pair removed by cleaning."""

    what: Literal["row", "part", "pair"]
    reason: str
    count: int = 0
    examples: tuple[str, ...] = ()  # places of the first three, `file:line` or `dataset[row]`


@dataclass
class Change:
    """Something that was not read in `count` rows of a source."""

    change: str
    count: int = 0
    examples: tuple[str, ...] = ()


@dataclass
class SourceReport:
    """What came of one source: rows = rows_used + dropped rows, pairs_made = pairs_kept + dropped pairs.

    It counts while its source is read and cleaned; every row and pair that is not used has a reason.
    """

    name: str  # file or data set
    split: str  # what it is for: `train`, or the name of a validation split
    rows: int = 0  # rows read, except blank lines
    rows_used: int = 0
    pairs_made: int = 0
    pairs_kept: int = 0
    contrast_pairs: int = 0  # pairs added because every answer was written for one preference
    weight: float = 1.0  # how often each pair is trained on
    dropped: Sequence[Dropped] = ()
    changes: Sequence[Change] = ()  # what of the rows used was not read

    def drop(self, what: Literal["row", "part", "pair"], reason: str, place: str) -> None:
        """Count one row, part or pair that is not used."""
        if what == "pair":
            self.pairs_kept -= 1
        entry = next((entry for entry in self.dropped if (entry.what, entry.reason) == (what, reason)), None)
        if entry is None:
            self.dropped = (*self.dropped, entry := Dropped(what, reason))
        _count(entry, place)

    def change(self, change: str, place: str) -> None:
        """Count one row of which something was not read."""
        entry = next((entry for entry in self.changes if entry.change == change), None)
        if entry is None:
            self.changes = (*self.changes, entry := Change(change))
        _count(entry, place)

    def sort(self) -> None:
        """What was dropped: rows first, the most frequent reason first."""
        order = ("row", "part", "pair")
        self.dropped = sorted(self.dropped, key=lambda entry: (order.index(entry.what), -entry.count, entry.reason))


def _count(entry: Dropped | Change, place: str) -> None:
    entry.count += 1
    if len(entry.examples) < 3 and place not in entry.examples:
        entry.examples = (*entry.examples, place)


@dataclass(frozen=True)
class PreferenceReport:
    """The pairs of one preference, and the share whose chosen answer is longer (ties count half)."""

    pairs: int
    chosen_longer: float


@dataclass(frozen=True)
class SplitReport:
    """What a split holds, as it is trained or measured on: distinct prompts and answers, mean lengths in characters."""

    name: str  # `train`, or the validation split's name
    pairs: int
    prompts: int
    answers: int
    mean_prompt: float
    mean_answer: float
    preferences: Mapping[str, PreferenceReport]  # the most frequent preferences in words, to what their pairs look like
    more_preferences: int = 0  # how many further preferences there are


@dataclass(frozen=True)
class DataReport:
    """One report for each file or data set (none where a registered source wrote the pairs), and for each split."""

    sources: tuple[SourceReport, ...] = ()
    splits: tuple[SplitReport, ...] = ()


@dataclass(frozen=True)
class PairData:
    """What a reward model is trained and measured on."""

    train: tuple[PreferencePair, ...]  # the training pairs
    validation: tuple[PairSplit, ...]  # named splits, never trained on
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # principle to paraphrases to train the encoder
    report: DataReport = DataReport()  # where the pairs came from and what they are like; `load_pairs` writes it
    left_out: Mapping[str, str] = field(default_factory=dict)  # principle that is asked for and has no pairs, to why


@dataclass(frozen=True)
class BenchmarkItem:
    """One thing to answer: a prompt, the preference as a user would type it, and what a scorer needs to know."""

    id: str  # unique in its benchmark, stable between runs
    group: str  # which question the item helps to answer, for example `single` or `combination`
    label: str  # the preference's name in a report
    prompt: Messages  # the conversation to answer
    preference: tuple[str, ...]  # preference specifications as typed after `--pref`
    # Ground truth for scorers, for example `{"topic": "chess", "asked": ["humorous"]}`
    facts: Mapping[str, Any] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()  # names of profiles whose weights the preference holds in their place
    place: str = field(default="", compare=False)  # where the prompt was read, `file:line` or `dataset[row]`; or empty


@dataclass(frozen=True)
class Generation:
    """One answer."""

    text: str  # the answer, special tokens removed
    token_ids: tuple[int, ...]  # the generated tokens, the end-of-sequence token included when there was one
    finish_reason: Literal["stop", "length"]  # `stop` at end of sequence, `length` at the token limit
    prompt_tokens: int = 0  # that the policy read for it, in all of its prompts
