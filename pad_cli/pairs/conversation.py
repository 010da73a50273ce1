"""Prompts and answers as rows spell them: plain, conversational, or one text with speakers in it.

A row's context is kept whole, or the row is refused: what stands before an answer, in the prompt, in the answers'
conversations and in a `system` column, becomes one conversation (`read_sample`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pad_cli.errors import DataError
from pad_cli.pairs.parsed_rows import Row, RowError, is_blank, is_text, is_unicode
from pad_cli.records import Messages, as_message, as_messages

_HH_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_STEER_SPEAKER = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
_ROLES = {"Human": "user", "User": "user", "Assistant": "assistant"}

PROMPT, SYSTEM = "prompt", "system"
"""The columns that hold what stands before an answer, unless a row's format names others."""

_REFUSED_COLUMNS = ("tools", "functions", "images", "videos", "audios", "history")
"""Columns of chat data that belong to what the model reads; rows that use one are refused."""

_PROMPT_FORM = "neither a text nor a list of {role, content}"
_ANSWER_FORM = "neither a text nor a conversation that ends with the answer"


def read_sample(
    row: Row, answers: Sequence[tuple[str, Any]], prompt: str = PROMPT, system: str = SYSTEM
) -> tuple[Messages, list[str]]:
    """The whole context of a row's answers, and the answers.

    An answer is a text, a message, or a conversation that ends with it. The messages before the answer and the prompt
    are one context if one is the end of the other, or if the conversation begins with the prompt.

    Args:
        row: the row.
        answers: the column of each answer, and its value.
        prompt: the column of the prompt, which may be empty if every answer is a conversation that begins with it.
        system: the column of the system message.

    Raises:
        RowError: a text is missing or of another form, or the contexts differ.
    """
    for column in _REFUSED_COLUMNS:
        value = row.values.get(column)
        if not is_blank(value) and value not in ("[]", "null"):
            hint = "Write it into the texts and remove the column, or leave such rows out (`data.bad_rows: drop`)."
            raise RowError("a part of the conversation in a column of its own is not read", field=column, hint=hint)
    stated = _read_messages(row, prompt)
    split = [(name, *_split(row, name, value)) for name, value in answers]
    joined = [(name, _join(stated, before, name)) for name, before, _ in split if before]
    for name, other in joined[1:]:
        if _key(other) != _key(joined[0][1]):
            hint = "Both answers need the same context: the prompt's messages, then one answer each."
            raise RowError("the two conversations differ before their last message", field=name, hint=hint)
    context = joined[0][1] if joined else stated
    if not context or not context[-1]["content"].strip() or (not stated and len(joined) < len(answers)):
        raise _misformed(None, _PROMPT_FORM, prompt)
    return _with_system(row, context, system), [text for *_, text in split]


def read_prompt(row: Row, field: str = PROMPT) -> Messages:
    """The prompt of a row: a text or messages, and the column `system` before them (RowError as `read_sample`)."""
    return read_sample(row, (), field)[0]


def prompt_of(row: Row, field: str = PROMPT, read: Callable[[Row, str], Messages] = read_prompt) -> Messages:
    """The prompt of a row without answers, by `read_prompt` or another reader of a column.

    Raises:
        DataError: it is missing, empty, or of another form.
    """
    try:
        return read(row, field)
    except RowError as problem:
        raise problem.at(row) from problem


def read_text(row: Row, field: str) -> str:
    """A column that holds a text (RowError: it does not)."""
    value = row.values.get(field)
    if not is_text(value):
        raise _misformed(value, "not a text", field)
    return value


def _read_messages(row: Row, field: str) -> Messages:
    """A column with a text or a list of messages; nothing where it is absent or null."""
    value = row.values.get(field)
    if isinstance(value, list) and value:
        return tuple(_message(row, field, message, _PROMPT_FORM) for message in value)
    if value is None:
        return ()
    if not is_text(value):
        raise _misformed(value, _PROMPT_FORM, field)
    return as_messages(value)


def _split(row: Row, field: str, value: Any) -> tuple[Messages, str]:
    """What a conversation holds before its answer, and the answer."""
    before: Messages = ()
    if isinstance(value, list | Mapping) and value:
        messages = value if isinstance(value, list) else [value]
        *earlier, last = (_message(row, field, message, _ANSWER_FORM) for message in messages)
        if last["role"] != "assistant":
            hint = 'Its last message is the answer: {"role": "assistant", "content": "..."}.'
            raise RowError("a conversation that does not end with the answer", field=field, hint=hint)
        before, value = tuple(earlier), last["content"]
    if not is_text(value):
        raise _misformed(value, _ANSWER_FORM, field)
    return before, value


def _message(row: Row, field: str, message: Any, form: str) -> Mapping[str, str]:
    """A message with its role and content as text; what else it holds is noted as not read."""
    if not isinstance(message, Mapping) or not is_text(message.get("role")):
        raise _misformed(message, form, field)
    stated = {key: value for key, value in message.items() if not is_blank(value)}
    try:
        read = as_message(stated)
    except DataError as error:
        raise RowError(error.message, field=field, hint=f"{error.hint} `data.bad_rows: drop` counts them.") from error
    if not is_unicode(read["content"]):
        raise _misformed(read["content"], form, field)
    row.changes.extend(f"'{key}' of a message is not read" for key in stated if key not in ("role", "content"))
    return read


def _join(prompt: Messages, before: Messages, field: str) -> Messages:
    """One context of a prompt and of what stands before an answer in its conversation."""
    short, long = _key(prompt), _key(before)
    if short in (long[: len(short)], long[-len(short) :]):
        return before
    if long == short[-len(long) :]:
        return prompt
    hint = "Write the answer alone, or the prompt's messages and then the answer."
    raise RowError("another conversation than the prompt", field=field, hint=hint)


def _key(messages: Messages) -> list[tuple[str, str]]:
    return [(message["role"], message["content"].strip()) for message in messages]


def _with_system(row: Row, context: Messages, column: str) -> Messages:
    """A conversation with the system message of a column, which it may have itself."""
    if is_blank(row.values.get(column)):
        return context
    system = read_text(row, column)
    if context[0]["role"] != "system":
        return ({"role": "system", "content": system}, *context)
    if context[0]["content"].strip() != system.strip():
        raise RowError("another system message than the conversation's", field=column, hint="Leave one of them out.")
    return context


def _misformed(value: Any, form: str, field: str) -> RowError:
    if is_blank(value):
        reason = "missing or empty"
    else:
        reason = "holds a null character or half a character" if isinstance(value, str) else form
    hint = f'Write "{field}": "..." or "{field}": [{{"role": "user", "content": "..."}}].'
    return RowError(reason, field=field, hint=hint)


def read_hh_text(text: Any, field: str) -> Messages:
    r"""A conversation in one text, `\n\nHuman: ...\n\nAssistant: ...`; turns may be empty."""
    if is_unicode(text):
        start, *turns = _HH_SPEAKER.split(f"\n\n{text.strip()}")
        if turns and not start:
            return _turns(turns)
    hint = "Is this another form? Try format: pairs."
    raise RowError(r"no text that begins with '\n\nHuman:'", field=field, hint=hint)


def read_steer_text(row: Row, field: str = PROMPT) -> Messages:
    r"""A prompt whose later turns are marked `<extra_id_1>Assistant` and `<extra_id_1>User` (HelpSteer2)."""
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
