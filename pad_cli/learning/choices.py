"""Users' choices between two answers, as rows of a file.

    {"prompt": "...", "chosen": "...", "rejected": "..."}
    {"prompt": "...", "answers": ["...", "..."], "choice": 0}         0 or 1 for the better one, null for neither

A prompt is a text or a list of messages. In a file of many users every row has a `user` too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pad_cli.errors import DataError
from pad_cli.pairs import Row, RowError, is_text, note_changes, read_rows, read_sample
from pad_cli.records import Messages
from pad_cli.system.runs import fingerprint

FEWEST = 3
"""Choices that a profile needs, besides those of neither answer."""

_HINT = 'Write {"prompt": "...", "chosen": "...", "rejected": "..."} a line; the answers differ in what you care for.'


@dataclass(frozen=True)
class Comparison:
    """Two answers to one prompt; `place` is where they were read."""

    prompt: Messages
    first: str
    second: str
    place: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        """The same for two answers in either order."""
        return fingerprint([[dict(message) for message in self.prompt], sorted([self.first, self.second])])


class Choice(NamedTuple):
    """What a user said of a comparison."""

    comparison: Comparison
    reply: bool | None  # is the first answer better? None for neither


def read_choices(path: Path) -> list[Choice]:
    """The choices in a user's file (DataError: a row is wrong, or fewer than three choices prefer an answer)."""
    rows = read_rows(path)
    choices = [read_choice(row) for row in rows]
    note_changes(rows, unread=("key",))  # written by `pad learn --ask`
    _require_enough(choices, str(path))
    return choices


def read_users(path: Path) -> dict[str, list[Choice]]:
    """As `read_choices` for every user in a file, in the order in which they first occur."""
    users: dict[str, list[Choice]] = {}
    rows = read_rows(path)
    for row in rows:
        user = row.values.get("user")
        if not is_text(user) and (isinstance(user, bool) or not isinstance(user, int)):
            reason = "missing, or neither a text nor a number"
            raise RowError(reason, field="user", hint='Write "user": "...".').at(row)
        users.setdefault(str(user), []).append(read_choice(row))
    note_changes(rows)
    if not users:
        raise DataError("holds no choices", path=path, hint=_HINT)
    for user, choices in users.items():
        _require_enough(choices, f"{path}, user '{user}'")
    return users


def _require_enough(choices: Sequence[Choice], origin: str) -> None:
    decided = sum(choice.reply is not None for choice in choices)
    if decided < FEWEST:
        neither = f", and {len(choices) - decided} of neither answer" if decided < len(choices) else ""
        reason = f"a profile needs at least {FEWEST} choices of an answer, here are {decided}{neither}"
        raise DataError(reason if choices else "holds no choices", path=origin, hint=_HINT)


def read_choice(row: Row) -> Choice:
    """One row (DataError: it is wrong)."""
    try:
        return _choice(row)
    except RowError as problem:
        raise problem.at(row) from problem


def _choice(row: Row) -> Choice:
    if "answers" in row.values:
        answers = row.values["answers"]
        if not isinstance(answers, list) or len(answers) != 2:
            raise RowError("not a list of two answers", field="answers", hint='Write "answers": ["...", "..."].')
        prompt, (first, second) = read_sample(row, [("answers", answer) for answer in answers])
        choice = row.values.get("choice", "missing")
        if isinstance(choice, bool) or choice not in (0, 1, None):
            hint = "0 if the first answer is the better one, 1 if the second, null for neither."
            raise RowError("neither 0 nor 1 nor null", field="choice", hint=hint)
        reply = None if choice is None else choice == 0
    else:
        prompt, (first, second) = read_sample(row, [(name, row.values.get(name)) for name in ("chosen", "rejected")])
        reply = True
    if reply is not None and first.strip() == second.strip():
        raise RowError("both answers are the same", hint="Leave this row out: it says nothing of what you prefer.")
    return Choice(Comparison(prompt, first, second, row.place), reply)
