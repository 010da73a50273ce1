"""One user's choices between two answers, as rows of a file spell them.

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

_OWN = ("key",)
"""What `pad learn --ask` writes beside a choice; nobody needs to be told that it is not read."""

FEWEST = 3
"""Choices that a profile needs."""


@dataclass(frozen=True)
class Choice:
    """Two answers to one prompt, of which a user chose the first; `place` says where it was read."""

    prompt: Messages
    chosen: str
    rejected: str
    place: str = field(default="", compare=False)


@dataclass(frozen=True)
class Choices:
    """What one user chose.

    Attributes:
        choices: those that say something.
        ties: how often neither answer was better; left out.
        contradictions: choices between answers that the user chose both ways; left out.
    """

    choices: tuple[Choice, ...]
    ties: int = 0
    contradictions: int = 0


def read_choices(path: Path) -> Choices:
    """The choices in a user's file.

    Raises:
        DataError: a row is wrong, or too few choices are left.
    """
    rows = read_rows(path)
    choices = [_read(row) for row in rows]
    note_changes(rows, unread=_OWN)
    return collect_choices(choices, origin=str(path))


def read_users(path: Path) -> dict[str, Choices]:
    """The choices of every user in a file, users in the order in which they first occur.

    Raises:
        DataError: a row is wrong, or too few choices of a user are left.
    """
    users: dict[str, list[Choice | None]] = {}
    rows = read_rows(path)
    for row in rows:
        users.setdefault(_user(row), []).append(_read(row))
    note_changes(rows)
    if not users:
        raise DataError("holds no choices", path=path, hint=_HINT)
    return {user: collect_choices(found, origin=f"{path}, user '{user}'") for user, found in users.items()}


def collect_choices(found: Iterable[Choice | None], origin: str = "") -> Choices:
    """Count ties (None) and contradictions, and leave them out.

    Args:
        found: in any order.
        origin: named in errors.

    Raises:
        DataError: fewer than three choices are left.
    """
    every = list(found)
    choices = [choice for choice in every if choice is not None]
    made = {(_key(choice.prompt), choice.chosen, choice.rejected) for choice in choices}
    kept = [choice for choice in choices if (_key(choice.prompt), choice.rejected, choice.chosen) not in made]
    ties, contradictions = len(every) - len(choices), len(choices) - len(kept)
    if len(kept) >= FEWEST:
        return Choices(tuple(kept), ties, contradictions)
    raise DataError(_too_few(len(kept), ties, contradictions), path=origin, hint=_HINT)


_HINT = (
    'Write {"prompt": "...", "chosen": "...", "rejected": "..."} a line, where the answers differ in what you care for.'
)


def _too_few(kept: int, ties: int, contradictions: int) -> str:
    left_out = [
        f"{count} {what}"
        for count, what in (
            (ties, "tie" if ties == 1 else "ties"),
            (contradictions, "that contradict each other (the same answers both ways)"),
        )
        if count
    ]
    if not kept and not left_out:
        return "holds no choices"
    if not kept and not contradictions:
        return f"all {ties} choices are ties, which say nothing of what you prefer"
    if not kept and not ties:
        return f"all {contradictions} choices contradict each other: the same answers, chosen both ways"
    besides = f" (left out: {', '.join(left_out)})" if left_out else ""
    return f"a profile needs at least {FEWEST} choices, and there {'is' if kept == 1 else 'are'} {kept}{besides}"


def _read(row: Row) -> Choice | None:
    try:
        return _choice(row)
    except RowError as problem:
        raise problem.at(row) from problem


def _choice(row: Row) -> Choice | None:
    if "answers" not in row.values:
        prompt, (chosen, rejected) = read_sample(row, [(name, row.values.get(name)) for name in ("chosen", "rejected")])
        return _differing(row, prompt, chosen, rejected)
    answers = row.values["answers"]
    if not isinstance(answers, list) or len(answers) != 2:
        raise RowError("not a list of two answers", field="answers", hint='Write "answers": ["...", "..."].')
    prompt, (first, second) = read_sample(row, [("answers", answer) for answer in answers])
    choice = row.values.get("choice", "missing")
    if choice is None:
        return None
    if isinstance(choice, bool) or choice not in (0, 1):
        hint = "0 if the first answer is the better one, 1 if the second, null for neither."
        raise RowError("neither 0 nor 1 nor null", field="choice", hint=hint)
    return _differing(row, prompt, *((second, first) if choice else (first, second)))


def _differing(row: Row, prompt: Messages, chosen: str, rejected: str) -> Choice:
    if chosen.strip() == rejected.strip():
        raise RowError("both answers are the same", hint="Leave this row out: it says nothing of what you prefer.")
    return Choice(prompt, chosen, rejected, row.place)


def _user(row: Row) -> str:
    user = row.values.get("user")
    if is_text(user) or (isinstance(user, int) and not isinstance(user, bool)):
        return str(user)
    raise RowError("missing, or neither a text nor a number", field="user", hint='Write "user": "...".').at(row)


def _key(prompt: Messages) -> tuple[tuple[str, str], ...]:
    return tuple((message["role"], message["content"]) for message in prompt)
