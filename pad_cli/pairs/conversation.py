"""Prompts and answers as rows spell them: plain, conversational, or one text with speakers in it.

A row's context is kept whole, or the row is refused: what stands before an answer, in the prompt, in the answers'
conversations and in a `system` column, becomes one conversation (`read_sample`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pad_cli.errors import DataError
from pad_cli.pairs.rows import Row, RowError, is_blank, is_text, is_unicode
from pad_cli.records import Messages, as_message, as_messages

_HH_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_STEER_SPEAKER = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
_ROLES = {"Human": "user", "User": "user", "Assistant": "assistant"}

PROMPT, SYSTEM = "prompt", "system"
"""The columns that hold what stands before an answer, where a row's format does not name others."""

_NOT_READ = {
    "tools": "tools",
    "functions": "tools",
    "images": "images",
    "videos": "videos",
    "audios": "audio",
    "history": "earlier turns",
}
"""Columns of chat data that belong to what the model reads, and what they hold; rows that use one are refused."""


def prompt_of(row: Row, field: str = PROMPT, read: Callable[[Row, str], Messages] | None = None) -> Messages:
    """The prompt of a row that has no answers.

    Args:
        row: of a file or data set.
        field: the column.
        read: what understands it; by default `read_prompt`.

    Raises:
        DataError: it is missing, empty, or of another form; says where.
    """
    try:
        return (read or read_prompt)(row, field)
    except RowError as problem:
        raise problem.at(row) from problem


def read_prompt(row: Row, field: str = PROMPT, system: str = SYSTEM) -> Messages:
    """The prompt of a row that has no answers: a text or messages, and the column `system` before them.

    Raises:
        RowError: it is missing, empty, or of another form, or holds what cannot be read (tools, images).
    """
    _refuse_columns(row)
    return _with_system(row, _required(read_messages(row, field), field), system)


def read_sample(
    row: Row, answers: Sequence[tuple[str, Any]], prompt: str | Messages = PROMPT, system: str = SYSTEM
) -> tuple[Messages, list[str]]:
    """The whole context of a row's answers, and the answers.

    An answer is a text, a message, or a conversation that ends with it. What the conversation holds before it, and the
    prompt, are one context if the prompt is its end or its beginning, or if it is the prompt's end or goes on from it.

    Args:
        row: takes in what was changed.
        answers: the column and the value of each.
        prompt: its column, which may be absent if every answer is a conversation; or the prompt itself.
        system: the column of a system message.

    Returns:
        The conversation before the answers, and their texts.

    Raises:
        RowError: something is missing, empty, of another form, or the contexts are different ones.
    """
    _refuse_columns(row)
    field = prompt if isinstance(prompt, str) else PROMPT
    given = read_messages(row, prompt) if isinstance(prompt, str) else prompt
    if not given and not any(isinstance(value, list) for _, value in answers):
        _required(given, field)
    read = [(name, *_split(row, name, value)) for name, value in answers]
    context = given
    joined: Messages = ()
    for name, before, _ in read:
        if not given and not before:
            raise RowError(
                "without a prompt, both answers must be conversations that begin with it",
                field=name,
                hint="Add a prompt column, or name it: options: {columns: {prompt: YOUR_COLUMN}}.",
            )
        if before:
            whole = _joined(given, before, name)
            if joined and _key(whole) != _key(joined):
                raise RowError("the two conversations differ before their last message", field=name, hint=_SAME)
            context = joined = whole
    if given and len(context) > len(given):
        row.changes.append("the prompt is a part of the answers' conversations, whose whole context is read")
    return _with_system(row, _required(context, field), system), [text for *_, text in read]


_SAME = "Both answers need the same context: the prompt's messages, then one answer each."


def _joined(prompt: Messages, before: Messages, field: str) -> Messages:
    """One context of a prompt and of what stands before an answer in its conversation."""
    asked, seen = _key(prompt), _key(before)
    if seen[-len(asked) :] == asked or seen[: len(asked)] == asked or not asked:
        return before
    if asked[-len(seen) :] == seen:
        return prompt
    if before[0]["role"] == "assistant" and prompt[-1]["role"] != "assistant":
        return (*prompt, *before)
    raise RowError(
        "another conversation than the prompt",
        field=field,
        hint="Write the answer alone, or the prompt's messages and then the answer.",
    )


def _key(messages: Messages) -> list[tuple[str, str]]:
    return [(message["role"], message["content"].strip()) for message in messages]


def _split(row: Row, field: str, value: Any) -> tuple[Messages, str]:
    """What a conversation holds before its answer, and the answer."""
    before: Messages = ()
    if isinstance(value, list | Mapping) and value:
        *earlier, last = _conversation(row, field, value, "neither a text nor a conversation that ends with the answer")
        if last["role"] != "assistant":
            raise RowError(
                "a conversation that does not end with the answer",
                field=field,
                hint='Its last message is the answer: {"role": "assistant", "content": "..."}.',
                detail=f"its last message is of role '{last['role']}'",
            )
        before, value = tuple(earlier), last["content"]
    if is_text(value):
        return before, value
    form = "neither a text nor a conversation that ends with the answer"
    raise RowError(_missing_or(value, form), field=field, hint=f'Write "{field}": "...".')


def read_messages(row: Row, field: str) -> Messages:
    """A column with a text or a list of messages; nothing where it is absent or null.

    Raises:
        RowError: it is of another form.
    """
    value = row.values.get(field)
    if isinstance(value, list) and value:
        return _conversation(row, field, value, "neither a text nor a list of {role, content}")
    if value is None:
        return ()
    if not is_text(value):
        raise RowError(
            _missing_or(value, "neither a text nor a list of {role, content}"), field=field, hint=_hint(field)
        )
    return as_messages(value)


def _required(messages: Messages, field: str) -> Messages:
    if not messages or not messages[-1]["content"].strip():
        raise RowError("missing or empty", field=field, hint=_hint(field))
    return messages


def _hint(field: str) -> str:
    return f'Write "{field}": "..." or "{field}": [{{"role": "user", "content": "..."}}].'


def _missing_or(value: Any, form: str) -> str:
    if not value or is_blank(value):
        return "missing or empty"
    return "holds a null character or half a character" if isinstance(value, str) else form


def _conversation(row: Row, field: str, value: list[Any] | Mapping[str, Any], form: str) -> Messages:
    messages = value if isinstance(value, list) else [value]
    return tuple(_message(row, field, message, form) for message in messages)


def _message(row: Row, field: str, message: Any, form: str) -> Mapping[str, str]:
    """A message with its role and content as text."""
    if not isinstance(message, Mapping) or not is_text(message.get("role")):
        spelt_otherwise = isinstance(message, Mapping) and {"from", "value"} <= message.keys()
        hint = "ShareGPT's form: write `role` (user, assistant) for `from`, `content` for `value`."
        raise RowError(form, field=field, hint=hint if spelt_otherwise else _hint(field))
    parts = message.get("content")
    try:
        read = as_message({key: value for key, value in message.items() if not is_blank(value)})
    except DataError as error:
        raise RowError(error.message, field=field, hint=f"{error.hint} `data.bad_rows: drop` counts them.") from error
    if not is_unicode(read["content"]):
        raise RowError(_missing_or(read["content"], form), field=field, hint=_hint(field))
    if read["role"] != message["role"]:
        row.changes.append(f"role '{message['role']}' is read as '{read['role']}'")
    if isinstance(parts, list) and len(parts) > 1:
        row.changes.append("the text parts of a message are joined by line ends")
    for part in parts if isinstance(parts, list) else ():
        row.changes.extend(f"'{key}' of a content part is not read" for key in _further(part, "type", "text"))
    row.changes.extend(f"'{key}' of a message is not read" for key in _further(message, "role", "content"))
    return read


def _further(values: Mapping[str, Any], *known: str) -> list[str]:
    """The other keys that hold something."""
    return [key for key, value in values.items() if key not in known and not is_blank(value)]


def _with_system(row: Row, context: Messages, column: str) -> Messages:
    """A conversation with the system message of a column, which it may have itself."""
    value = row.values.get(column)
    if is_blank(value):
        return context
    if not is_text(value):
        raise RowError(_missing_or(value, "not a text"), field=column, hint=f'Write "{column}": "...".')
    own = [message["content"].strip() for message in context[:1] if message["role"] == "system"]
    if own and own != [value.strip()]:
        raise RowError("another system message than the conversation's", field=column, hint="Leave one of them out.")
    if own:
        return context
    row.changes.append(f"column '{column}' is read as the system message")
    return ({"role": "system", "content": value}, *context)


def _refuse_columns(row: Row) -> None:
    for column, content in _NOT_READ.items():
        value = row.values.get(column)
        if not is_blank(value) and value not in ("[]", "null"):
            where = "`prompt`" if content == "earlier turns" else "the texts"
            raise RowError(
                f"{content} in a column of their own are not read",
                field=column,
                hint=f"Write them into {where} and remove the column, or leave such rows out (`data.bad_rows: drop`).",
            )


def read_hh_text(text: Any, field: str) -> Messages:
    r"""A conversation in one text, `\n\nHuman: ...\n\nAssistant: ...`; turns may be empty.

    Raises:
        RowError: it is no text, or begins otherwise.
    """
    if is_unicode(text):
        start, *turns = _HH_SPEAKER.split(text if text.startswith("\n\n") else f"\n\n{text}")
        if turns and not start.strip():
            return _turns(turns)
    raise RowError(
        r"no text that begins with '\n\nHuman:'", field=field, hint="Is this another form? Try format: pairs."
    )


def read_steer_text(row: Row, field: str = PROMPT) -> Messages:
    r"""A prompt whose later turns are marked `<extra_id_1>Assistant` and `<extra_id_1>User` (HelpSteer2).

    Raises:
        RowError: it is no text, or an empty one.
    """
    prompt = read_prompt(row, field)
    text = row.values.get(field)
    if not isinstance(text, str):
        return prompt
    start, *turns = _STEER_SPEAKER.split(text)
    return (*prompt[:-1], *as_messages(start), *_turns(turns))


def _turns(parts: Sequence[str]) -> Messages:
    """Speaker, text, speaker, text, ... as messages."""
    return tuple(
        {"role": _ROLES[speaker], "content": text.strip()}
        for speaker, text in zip(parts[::2], parts[1::2], strict=True)
    )
