"""Conversations through a tokenizer's chat template, whatever the template takes, refuses or leaves out.

What a template does with a sequence of roles is tried once, on known texts: each has to come back. The first form that
gives all of them back is used from then on: the messages as they are, their content as lists of parts, and each of both
with system texts at the beginning of the next user turn. Nothing of a conversation is lost, or it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from pad_cli.errors import DataError
from pad_cli.records import Messages
from pad_cli.system.progress import note

_OPENED = re.compile(r"(<(think|thinking|thought|reasoning)>|\[THINK\])\s*$", re.IGNORECASE)
_NO_OPTIONS: Mapping[str, Any] = {}
_WITHOUT_THOUGHT = {"enable_thinking": False, "thinking": False}
"""What templates of reasoning models call it: Qwen and most others, DeepSeek and Granite."""


class _Form(NamedTuple):
    """How a template takes a sequence of roles."""

    parts: bool
    moved: bool


_FORMS = tuple(_Form(parts, moved) for moved in (False, True) for parts in (False, True))


class _Known(NamedTuple):
    """What was found out about a template."""

    template: Any
    options: Mapping[str, Any]
    opened: bool
    forms: dict[tuple[str, ...], _Form]


_KNOWN: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()


def render(
    tokenizer: Any, messages: Messages, *, prompt: bool, template_options: Mapping[str, Any] = _NO_OPTIONS
) -> str:
    """A conversation as its tokenizer's chat template words it.

    Args:
        tokenizer: has a chat template.
        messages: with `role` and `content`.
        prompt: whether an answer follows. A thought that the template would open for it is closed, if the template can.
        template_options: variables of the template (`enable_thinking`), which win over that.

    Raises:
        DataError: the template refuses the conversation, leaves a message out, or cannot be used.
    """
    known = _known(tokenizer)
    shaped = _shaped(messages, _form(tokenizer, known, messages))
    options = {**(known.options if prompt else {}), **template_options}
    try:
        return _apply(tokenizer, shaped, prompt=prompt, options=options)
    except Exception as error:  # whatever a template raises is about the conversation or the model
        raise _refusal(tokenizer, messages, error) from error


def moves_system(tokenizer: Any, messages: Messages) -> bool:
    """Is a system text of this conversation put into a user turn? Errors as in `render`."""
    return bool(tokenizer.chat_template) and _form(tokenizer, _known(tokenizer), messages).moved


def opens_thought(tokenizer: Any) -> bool:
    """Does every answer begin inside a thought, because the chat template opens one and cannot close it?"""
    return bool(tokenizer.chat_template) and _known(tokenizer).opened


def closes_thought(tokenizer: Any) -> bool:
    """Does the chat template open a thought before an answer, unless it is told not to?"""
    return bool(tokenizer.chat_template) and bool(_known(tokenizer).options)


def _known(tokenizer: Any) -> _Known:
    known = _KNOWN.get(tokenizer)
    if known is None or known.template != tokenizer.chat_template:
        opened = _opens(tokenizer, {})
        closed = opened and not _opens(tokenizer, _WITHOUT_THOUGHT)
        known = _Known(tokenizer.chat_template, _WITHOUT_THOUGHT if closed else {}, opened and not closed, {})
        _KNOWN[tokenizer] = known
    return known


def _opens(tokenizer: Any, options: Mapping[str, Any]) -> bool:
    for form in _FORMS[:2]:
        try:
            text = _apply(tokenizer, _shaped(_probe(("user",)), form), options=options)
        except Exception:  # `render` says what is wrong
            continue
        return bool(_OPENED.search(text))
    return False


def _form(tokenizer: Any, known: _Known, messages: Messages) -> _Form:
    """The first form in which every known text in such roles comes back.

    Raises:
        DataError: there is none, though the template refuses none of them.
    """
    roles = tuple(message["role"] for message in messages)
    if roles not in known.forms:
        probe, lost = _probe(roles), []
        for form in _FORMS:
            shaped = _shaped(probe, form)
            if form.moved and (shaped == _shaped(probe, _Form(form.parts, False)) or _last_is_system(probe)):
                continue
            try:
                text = _apply(tokenizer, shaped, options=known.options)
            except Exception:
                continue
            missing = [number for number, message in enumerate(probe) if message["content"] not in text]
            if not missing:
                if form.moved and not any(other.moved for other in known.forms.values()):
                    note(_MOVED)
                known.forms[roles] = form
                break
            lost.append(missing[0])
        else:
            if lost:
                raise DataError(
                    f"The chat template leaves message {lost[0] + 1} out (role '{roles[lost[0]]}').", hint=_HINT
                )
            known.forms[roles] = _FORMS[0]  # what refuses the known texts may take these: `render` will see
    return known.forms[roles]


_MOVED = "This chat template takes no system message: system text goes to the beginning of the next user turn."
_HINT = (
    "Write the prompt in the roles that this template takes (mostly user and assistant in turns), or use another model."
)


def _probe(roles: Sequence[str]) -> Messages:
    return tuple({"role": role, "content": f"known{number}text"} for number, role in enumerate(roles))


def _shaped(messages: Messages, form: _Form) -> list[dict[str, Any]]:
    """The messages in the form that a template takes."""
    shaped: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in messages:
        role, content = message["role"], message["content"]
        if form.moved and role == "system":
            waiting.append(content)
            continue
        if role == "user" and waiting:
            content = "\n\n".join([*waiting, content])
            waiting = []
        shaped.append({"role": role, "content": [{"type": "text", "text": content}] if form.parts else content})
    return shaped


def _last_is_system(messages: Messages) -> bool:
    """Is there a system message without a user turn behind it?"""
    roles = [message["role"] for message in messages]
    return "system" in roles and "user" not in roles[len(roles) - roles[::-1].index("system") :]


def _apply(
    tokenizer: Any, messages: list[dict[str, Any]], *, prompt: bool = True, options: Mapping[str, Any] = _NO_OPTIONS
) -> str:
    text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False, **options)
    return text


def _refusal(tokenizer: Any, messages: Messages, error: Exception) -> DataError:
    """A template's own words, and the first message with which it refuses the conversation."""
    if broken := _failure(tokenizer, _probe(("user",))):
        return DataError(
            f"The chat template of this model cannot be used: {_words(broken)}",
            hint="Mend its chat_template.jinja (or tokenizer_config.json), or use another model.",
        )
    for number in range(1, len(messages) + 1):
        refused = _failure(tokenizer, messages[:number])
        if refused or number == len(messages):
            error = refused or error
            break
    role = messages[number - 1]["role"]
    return DataError(f"The chat template refuses message {number} (role '{role}'): {_words(error)}", hint=_HINT)


def _failure(tokenizer: Any, messages: Messages) -> Exception | None:
    """Why a template takes a conversation in no form, in the words it has for texts."""
    failures: list[Exception] = []
    for form in _FORMS:
        shaped = _shaped(messages, form)
        if not shaped:  # system messages alone, which say nothing of what follows
            return None
        try:
            _apply(tokenizer, shaped)
        except Exception as error:
            failures.append(error)
        else:
            return None
    return failures[_FORMS.index(_Form(parts=False, moved=True))]


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
