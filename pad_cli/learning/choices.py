"""Users' choices between two answers, as rows of a file.

    {"prompt": "...", "chosen": "...", "rejected": "..."}
    {"prompt": "...", "answers": ["...", "..."], "choice": 0}         0 or 1 for the better one, null for neither

A prompt is a text or a list of messages. In a file of many users every row has a `user` too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from pad_cli.errors import DataError
from pad_cli.pairs import Row, RowError, is_text, note_changes, read_rows, read_sample
from pad_cli.records import Messages

FEWEST = 3
"""Choices that a profile needs."""

_HINT = 'Write {"prompt": "...", "chosen": "...", "rejected": "..."} a line; the answers differ in what you care for.'


@dataclass(frozen=True)
class Choice:
    """Two answers to one prompt, of which a user chose the first; `place` is where it was read."""

    prompt: Messages
    chosen: str
    rejected: str
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Choices:
    """One user's choices, and how many were left out because neither answer was better, or both were chosen once."""

    choices: tuple[Choice, ...]
    ties: int = 0
    contradictions: int = 0


def read_choices(path: Path) -> Choices:
    """The choices in a user's file (DataError: a row is wrong, or too few choices are left)."""
    rows = read_rows(path)
    choices = [read_choice(row) for row in rows]
    note_changes(rows, unread=("key",))  # written by `pad learn --ask`
    return collect_choices(choices, origin=str(path))


def read_users(path: Path) -> dict[str, Choices]:
    """As `read_choices` for every user in a file, in the order in which they first occur."""
    users: dict[str, list[Choice | None]] = {}
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
    return {user: collect_choices(choices, origin=f"{path}, user '{user}'") for user, choices in users.items()}


def collect_choices(rows: Iterable[Choice | None], origin: str = "") -> Choices:
    """Count ties (None) and contradictions, and leave them out (DataError: fewer than three choices are left)."""
    every = list(rows)
    choices = [choice for choice in every if choice is not None]
    made = {(str(choice.prompt), choice.chosen, choice.rejected) for choice in choices}
    consistent = [choice for choice in choices if (str(choice.prompt), choice.rejected, choice.chosen) not in made]
    ties, contradictions = len(every) - len(choices), len(choices) - len(consistent)
    if len(consistent) >= FEWEST:
        return Choices(tuple(consistent), ties, contradictions)
    if not every:
        raise DataError("holds no choices", path=origin, hint=_HINT)
    reason = f"a profile needs at least {FEWEST} choices, not {len(consistent)}"
    if len(every) > len(consistent):
        reason += f" (left out: {ties} ties, {contradictions} that contradict each other)"
    raise DataError(reason, path=origin, hint=_HINT)


def read_choice(row: Row) -> Choice | None:
    """One row; None for a tie."""
    try:
        return _choice(row)
    except RowError as problem:
        raise problem.at(row) from problem


def _choice(row: Row) -> Choice | None:
    if "answers" in row.values:
        answers = row.values["answers"]
        if not isinstance(answers, list) or len(answers) != 2:
            raise RowError("not a list of two answers", field="answers", hint='Write "answers": ["...", "..."].')
        prompt, texts = read_sample(row, [("answers", answer) for answer in answers])
        choice = row.values.get("choice", "missing")
        if choice is None:
            return None
        if isinstance(choice, bool) or choice not in (0, 1):
            hint = "0 if the first answer is the better one, 1 if the second, null for neither."
            raise RowError("neither 0 nor 1 nor null", field="choice", hint=hint)
        chosen, rejected = reversed(texts) if choice else texts
    else:
        names = ("chosen", "rejected")
        prompt, (chosen, rejected) = read_sample(row, [(name, row.values.get(name)) for name in names])
    if chosen.strip() == rejected.strip():
        raise RowError("both answers are the same", hint="Leave this row out: it says nothing of what you prefer.")
    return Choice(prompt, chosen, rejected, row.place)
