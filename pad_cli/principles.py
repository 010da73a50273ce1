"""Ready principles (floor 2): the library of the package, and a user's own file of the same form.

    # principles.yaml
    pirate:
      instruction: You are a pirate captain. Answer in pirate speech, with ahoy, aye, matey and arr.
      opposite: You are an office manager. Answer in modern English, with hello, yes, colleague and well.
      description: Talks like a pirate captain
      wordings: [talk like a buccaneer, in pirate speak]
      held_out: [as if you flew the Jolly Roger]
    like me:
      examples: ["Right, so here's the thing.", "Honestly? Two eggs, no sugar, done."]

An `instruction` or `examples` are required, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from pad_cli.errors import DataError, PreferenceError, closest, did_you_mean
from pad_cli.recipe import Settings
from pad_cli.records import Messages
from pad_cli.system.checked_yaml import explain, read_yaml_mapping
from pad_cli.system.resources import shipped

OWN = Path("principles.yaml")
"""Where a user's own principles are looked for, in the working directory."""

_NOT_TEXT = re.compile(r"[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters and lone surrogates
NOT = "not "
"""In front of a principle's name: its opposite."""

_ANY = "Every sentence of your answer must be in this style: {}."
_LIKE = "Write exactly as these texts are written, in the same tone and the same manner:"
_HINT = "See one that ships, for example: pad prefs library pirate"


def _line(text: str) -> str:
    """The text on one line, white space folded as in a preference that somebody types."""
    text = " ".join(text.split())
    if not text:
        raise ValueError("is empty")
    if _NOT_TEXT.search(text):
        raise ValueError("has a control character or half a character")
    return text


def _name(name: str) -> str:
    if not name or name != " ".join(name.split()) or not name.isprintable():
        raise ValueError("not the name of a principle: use letters, digits, hyphens and single spaces")
    return name


_Line = Annotated[str, AfterValidator(_line)]
_Name = Annotated[str, AfterValidator(_name)]


class Principle(Settings):
    """What a principle asks for, in words for a language model and in words of users."""

    instruction: _Line = Field("", description="System prompt that makes a language model answer so.")
    examples: tuple[_Line, ...] = Field((), description="Texts in the manner that is asked for.")
    opposite: _Line | None = Field(None, description="The same sentences, but for the principle.")
    description: _Line = Field("", description="One line for lists.")
    wordings: tuple[_Line, ...] = Field((), description="How users ask for it, to train a preference encoder.")
    held_out: tuple[_Line, ...] = Field((), description="Other paraphrases, to measure the encoder.")

    @model_validator(mode="after")
    def _contrast(self) -> Principle:
        if not self.instruction and not self.examples:
            raise ValueError("an `instruction` or `examples` are needed")
        if self.opposite is not None and self.opposite.casefold() == self.instruction.casefold():
            raise ValueError("`instruction` and `opposite` are the same")
        return self

    @property
    def prompt(self) -> str:
        """The instruction, with the examples after it."""
        if not self.examples:
            return self.instruction
        return "\n".join([f"{self.instruction} {_LIKE}".strip(), *(f"- {text}" for text in self.examples)])


_PRINCIPLES: TypeAdapter[dict[_Name, Principle]] = TypeAdapter(dict[_Name, Principle])


def shipped_principles() -> dict[str, Principle]:
    """The library that comes with the package, by name."""
    return load_principles(shipped("data") / "principles.yaml")


def read_library(own: Path | None = None) -> dict[str, Principle]:
    """All ready principles by name: those that ship, and the user's own, which replace shipped ones of the same name.

    The user's file is by default `principles.yaml` of the working directory, if there is one.

    Raises:
        DataError: the user's file cannot be read or is wrong.
    """
    if own is None and not OWN.is_file():
        return shipped_principles()
    added = load_principles(own or OWN)
    replaced = {name.lower() for name in added}
    return {**{name: each for name, each in shipped_principles().items() if name.lower() not in replaced}, **added}


def find_principle(name: str, library: Mapping[str, Principle]) -> tuple[str, Principle]:
    """A principle by its name in any case, with the name as the library spells it.

    Raises:
        PreferenceError: there is none.
    """
    for known, principle in library.items():
        if known.lower() == name.strip().lower():
            return known, principle
    raise PreferenceError(f"The library has no principle '{name}'.", did_you_mean(name, library))


def principle_of(text: str, library: Mapping[str, Principle]) -> Principle:
    """A ready principle by its name in any case; of any other text, one whose instruction asks for just that.

    Raises:
        PreferenceError: it is empty, not one line of text, or one word that looks like a misspelt name.
    """
    try:
        text = _line(text)
    except ValueError as error:
        raise PreferenceError(
            f"The principle {text!r} {error}.", "Name a ready principle, or describe a style."
        ) from None
    if any(known.lower() == text.lower() for known in library):
        return find_principle(text, library)[1]
    if " " not in text and (hint := closest(text, library)):
        raise PreferenceError(
            f"The library has no principle '{text}'.", f"{hint} A style of your own takes at least two words."
        )
    return Principle(instruction=_ANY.format(text))


def instructions_of(names: Iterable[str], library: Mapping[str, Principle]) -> dict[str, str]:
    """What asks a language model for each of these principles, and for `not NAME` where it has an opposite.

    Raises:
        PreferenceError: see `principle_of`.
    """
    found = {name: principle_of(name, library) for name in names}
    opposites = {f"{NOT}{name}": each.opposite for name, each in found.items() if each.opposite is not None}
    return {**{name: each.prompt for name, each in found.items()}, **opposites}


def instructed(conversation: Messages, text: str) -> Messages:
    """A conversation under an instruction: its system message, or the first paragraph of the one that it has."""
    if not text:
        return conversation
    system = [message["content"] for message in conversation if message["role"] == "system"]
    rest = (message for message in conversation if message["role"] != "system")
    return ({"role": "system", "content": "\n\n".join([text, *system])}, *rest)


def load_principles(path: Path) -> dict[str, Principle]:
    """The principles of one file, by name and in its order.

    Raises:
        DataError: it cannot be read, or is wrong; with principle and key.
    """
    try:
        content = read_yaml_mapping(path, "a mapping of principles to their keys", _HINT)
        principles = _PRINCIPLES.validate_python(content)
    except FileNotFoundError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path, hint="Check the path.") from error
    except ValidationError as error:
        raise explain(error, path, Principle.model_fields, _HINT) from error
    _check_unique(principles, path)
    return principles


def _check_unique(principles: Mapping[str, Principle], path: Path) -> None:
    """Every name and every paraphrase means one principle, in upper or lower case, and occurs once."""
    texts = [(name, name, f"the name of '{name}'") for name in principles]
    for name, principle in principles.items():
        for key, paraphrases in (("wordings", principle.wordings), ("held_out", principle.held_out)):
            texts += [(f"{name}.{key}.{n}", text, f"in '{name}.{key}'") for n, text in enumerate(paraphrases)]
    owners: dict[str, str] = {}
    for field, text, owner in texts:
        if text.casefold() in owners:
            hint = "A text may occur only once in a file, in upper or lower case; names need not be repeated."
            raise DataError(f"'{text}' is already {owners[text.casefold()]}", path=path, field=field, hint=hint)
        owners[text.casefold()] = owner
