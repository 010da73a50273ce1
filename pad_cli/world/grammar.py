"""The grammar of the embedded world: topics, intents, principles, and the parser that accepts a sentence.

`load_world().parse("Imagine framing as a conversation between your hands and the moon.")` is
`Sentence(kind="creative", template="imagine {skill} as ...")`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import yaml

from pad_cli.system.resources import shipped

Register = Literal["neutral", "formal", "casual"]
REGISTERS: tuple[Register, ...] = ("neutral", "formal", "casual")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Topic:
    name: str
    tool: str
    skill: str
    detail: str
    risky: bool = False
    held_out: bool = False

    @property
    def slots(self) -> dict[str, str]:
        return {"topic": self.name, "tool": self.tool, "skill": self.skill, "detail": self.detail}


@dataclass(frozen=True)
class Intent:
    name: str
    prompts: tuple[str, ...]
    cores: Mapping[tuple[Register, bool], tuple[str, ...]]  # (register, short) -> templates


@dataclass(frozen=True)
class Principle:
    """One named value; `words` and `held_out_words` are ways to ask for it."""

    name: str
    place: Literal["opener", "core", "closer"]
    sentences: tuple[str, ...]
    words: tuple[str, ...]
    held_out_words: tuple[str, ...]
    untrained: bool


@dataclass(frozen=True)
class Sentence:
    """A sentence the grammar accepts: of a principle (`kind`), or a core sentence with its register and length."""

    kind: str
    template: str  # topic words are replaced by slots
    register: Register | None = None
    short: bool = False


@dataclass(frozen=True)
class World:
    topics: tuple[Topic, ...]
    intents: tuple[Intent, ...]
    principles: Mapping[str, Principle]
    conflicts: frozenset[frozenset[str]]
    held_out_combinations: tuple[tuple[str, str], ...]
    templates: tuple[str, ...]
    held_out_templates: tuple[str, ...]

    @property
    def trained_principles(self) -> tuple[str, ...]:
        return tuple(name for name, principle in self.principles.items() if not principle.untrained)

    def topic(self, name: str) -> Topic:
        return next(topic for topic in self.topics if topic.name == name)

    def conflicting(self, names: frozenset[str] | set[str]) -> bool:
        return any(pair <= names for pair in self.conflicts)

    def parse(self, sentence: str) -> Sentence | None:
        """The grammar's reading of one sentence; None when it does not accept it."""
        if not sentence[:1].isupper() or "{" in sentence:
            return None
        return self._table.get(self.delexicalise(sentence))

    def delexicalise(self, sentence: str) -> str:
        """Lower-case the first letter and replace topic words by their slots."""
        return self._filler.sub(lambda match: "{" + self._words[match.group(0)][0] + "}", _lower_first(sentence))

    def topics_named(self, text: str) -> set[str]:
        """Names of the topics whose own words occur in the text."""
        return {self._words[match.group(0)][1] for match in self._filler.finditer(text.lower())}

    @functools.cached_property
    def _words(self) -> dict[str, tuple[str, str]]:
        """Slot and topic of every topic's words."""
        return {filler: (slot, topic.name) for topic in self.topics for slot, filler in topic.slots.items()}

    @functools.cached_property
    def _filler(self) -> re.Pattern[str]:
        longest_first = sorted(self._words, key=len, reverse=True)
        return re.compile(r"\b(?:" + "|".join(map(re.escape, longest_first)) + r")\b")

    @functools.cached_property
    def _table(self) -> dict[str, Sentence]:
        return {sentence.template: sentence for sentence in self._all_sentences()}

    def _all_sentences(self) -> Iterator[Sentence]:
        for principle in self.principles.values():
            for text in principle.sentences:
                yield Sentence(principle.name, _lower_first(text))
        for intent in self.intents:
            for (register, short), texts in intent.cores.items():
                for text in texts:
                    yield Sentence("core", _lower_first(text), register, short)


def split_sentences(text: str) -> list[str]:
    return [part for part in _SENTENCE_END.split(text.strip()) if part]


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def trained_principles() -> dict[str, str]:
    """What the world's reward model is trained on, each with other words for it."""
    world = load_world()
    return {name: ", ".join(world.principles[name].words[1:4]) for name in world.trained_principles}


@functools.cache
def load_world() -> World:
    """Read the world's three files."""
    root = shipped("data") / "world"
    topics, intents, rest = (
        yaml.safe_load((root / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("topics", "intents", "principles")
    )
    return World(
        topics=tuple(Topic(name, **slots) for name, slots in topics["topics"].items()),
        intents=tuple(
            Intent(
                name=name,
                prompts=tuple(fields["prompts"]),
                cores={
                    (register, length == "short"): tuple(fields[register][length])
                    for register in REGISTERS
                    for length in ("long", "short")
                },
            )
            for name, fields in intents["intents"].items()
        ),
        principles={
            name: Principle(
                name=name,
                place=fields["place"],
                sentences=tuple(fields.get("sentences", ())),
                words=tuple(fields["words"]["train"]),
                held_out_words=tuple(fields["words"]["held_out"]),
                untrained=fields.get("untrained", False),
            )
            for name, fields in rest["principles"].items()
        },
        conflicts=frozenset(map(frozenset, rest["conflicts"])),
        held_out_combinations=tuple((a, b) for a, b in rest["held_out_combinations"]),
        templates=tuple(rest["templates"]["train"]),
        held_out_templates=tuple(rest["templates"]["held_out"]),
    )
