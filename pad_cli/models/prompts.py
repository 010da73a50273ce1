"""Conversations and answers to token ids and back, through a tokenizer's chat template or a plain one.

The plain template of a single instruction is "Instruction: ...\\nResponse:"; of a conversation, one "Role: ..." a line.

What a chat template does with a sequence of roles is tried once, on known texts: each has to come back. The first form
that gives all of them back is used from then on: the messages as they are, their content as lists of parts, and both
again with system texts at the beginning of the next user turn. Nothing of a conversation is lost, or it is refused.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from pad_cli.errors import DataError
from pad_cli.records import Messages
from pad_cli.system.progress import note

_PLAIN_ROLES = {"user": "User", "assistant": "Assistant", "system": "System"}
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"  # what decoding shows of a character whose last bytes are missing
_LONGEST_REST = 4  # tokens after the last whole character: three bytes, and an end of sequence
_PROBE = "Fine weather today"  # an answer that no template contains
_OPENED_THOUGHT = re.compile(r"(<(think|thinking|thought|reasoning)>|\[THINK\])\s*$", re.IGNORECASE)
_WITHOUT_THOUGHT = {"enable_thinking": False, "thinking": False}
"""What templates of reasoning models call it: Qwen and most others, DeepSeek and Granite."""
_HINT = (
    "Write the prompt in the roles that the template takes (mostly user and assistant in turns); "
    "if it accepts none, fix the model's chat_template.jinja (or tokenizer_config.json)."
)


def encode_prompt(
    tokenizer: Any,
    messages: Messages,
    max_tokens: int | None = None,
    *,
    template_options: Mapping[str, Any] | None = None,
    place: str = "",
) -> list[int]:
    """Token ids of a prompt, ready for an answer; one longer than `max_tokens` loses its beginning.

    `template_options` are variables of the chat template (`enable_thinking`); `place` is where the prompt was read.

    Raises:
        DataError: the prompt is empty, or the chat template refuses it.
    """
    text = _prompt_text(tokenizer, messages, place, template_options or {})
    tokens = _tokens(tokenizer, text) if tokenizer.chat_template else encode_text(tokenizer, text)
    return tokens if max_tokens is None else tokens[-max_tokens:]


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text that a model is to continue.

    The tokenizer puts its beginning of text in front, unless the text spells it out; an end that it appends is dropped.
    """
    tokens, plain = list(tokenizer(text)["input_ids"]), _tokens(tokenizer, text)
    added = len(tokens) - len(plain)
    if added > 0 and tokens[-1] == tokenizer.eos_token_id and tokens[added - 1 : -1] == plain:
        tokens, added = tokens[:-1], added - 1
    spelled_out = added > 0 and tokens[added:] == plain and plain[:added] == tokens[:added]
    return plain if spelled_out else tokens


def check_prompts(tokenizer: Any, prompts: Sequence[tuple[str, Messages]]) -> None:
    """Render prompts, each with its place, before any is answered, and count those whose system text is moved."""
    for place, messages in prompts:
        _prompt_text(tokenizer, messages, place, {})
    if moved := sum(moves_system(tokenizer, messages) for _, messages in prompts):
        note(f"{moved:,} of {len(prompts):,} prompts have their system text in a user turn.")


def encode_answer(tokenizer: Any, answer: str, max_tokens: int | None = None) -> list[int]:
    """Token ids of an answer with its end of turn; a long one loses its end, and then has no end of turn."""
    text = answer if tokenizer.chat_template else f" {answer.lstrip()}"
    tokens = [*_tokens(tokenizer, text), end_of_turn(tokenizer)]
    return tokens if max_tokens is None else tokens[:max_tokens]


def decode_answer(tokenizer: Any, tokens: Sequence[int], ends: Collection[int] = ()) -> str:
    """The text of an answer, without white space around it; special tokens and those in `ends` are no text."""
    return str(tokenizer.decode([t for t in tokens if t not in ends], skip_special_tokens=True)).strip()


def decode_answers(tokenizer: Any, answers: Iterable[Sequence[int]]) -> list[str]:
    """The texts of answers from `encode_answer`, cut or whole."""
    ends = (end_of_turn(tokenizer),)
    return [decode_answer(tokenizer, answer, ends) for answer in answers]


def whole_characters(decode: Callable[[Sequence[int]], str], tokens: Sequence[int]) -> str:
    """The decoded text up to its last whole character: tokens may end inside one."""
    text = decode(tokens)
    if not text.endswith(_INCOMPLETE):
        return text
    # a decoder of byte fallback shows no character of a row of bytes until all are whole
    shorter = [decode(tokens[:-rest]) for rest in range(1, _LONGEST_REST + 1)]
    return max((each.rstrip(_INCOMPLETE) for each in (text, *shorter)), key=len)


def end_of_turn(tokenizer: Any) -> int:
    """The token that the chat template puts after an answer (`<end_of_turn>`, `<|im_end|>`), else the end of sequence.

    White space may stand before it. A template that goes on with ordinary text, or with nothing, has no such token.
    """
    after = ""
    if tokenizer.chat_template:
        with contextlib.suppress(DataError):  # raised again, with its place, when a real prompt is read
            turn = ({"role": "user", "content": _PROBE}, {"role": "assistant", "content": _PROBE})
            _, probe, rest = render(tokenizer, turn, prompt=False).rpartition(_PROBE)
            after = rest if probe else ""
    added = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    for token in _tokens(tokenizer, after):
        if tokenizer.decode([token]).strip():
            return int(token if token in added else tokenizer.eos_token_id)
    return int(tokenizer.eos_token_id)


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _prompt_text(tokenizer: Any, messages: Messages, place: str, template_options: Mapping[str, Any]) -> str:
    if not messages or not messages[-1]["content"].strip():
        raise DataError("The prompt is empty.", path=place, hint="Say what to answer.")
    if tokenizer.chat_template:
        try:
            return render(tokenizer, messages, prompt=True, template_options=template_options)
        except DataError as error:
            raise DataError(error.message, path=place, hint=error.hint) from error
    if len(messages) == 1:
        return f"Instruction: {messages[0]['content'].strip()}\nResponse:"
    lines = [f"{_PLAIN_ROLES.get(m['role'], m['role'].title())}: {m['content'].strip()}" for m in messages]
    return "\n".join([*lines, "Assistant:"])


class _Form(NamedTuple):
    """How a template takes a sequence of roles: content in parts, system texts moved."""

    parts: bool
    moved: bool


_FORMS = tuple(_Form(parts, moved) for moved in (False, True) for parts in (False, True))


class _Template(NamedTuple):
    """What is known of a chat template: options close a thought that it opens, `opened` says that none can."""

    source: Any
    options: Mapping[str, Any]
    opened: bool
    forms: dict[tuple[str, ...], _Form]


_TEMPLATES: WeakKeyDictionary[Any, _Template] = WeakKeyDictionary()


def render(
    tokenizer: Any, messages: Messages, *, prompt: bool, template_options: Mapping[str, Any] | None = None
) -> str:
    """A conversation as its tokenizer's chat template writes it.

    If an answer follows (`prompt`), a thought that the template would open for it is closed, if the template can; its
    variables in `template_options` win over that.

    Raises:
        DataError: the template refuses the conversation, or leaves a message out.
    """
    template = _template(tokenizer)
    form = _form(tokenizer, template, messages)
    options = {**(template.options if prompt else {}), **(template_options or {})}
    try:
        return _apply(tokenizer, messages, form, options, prompt=prompt)
    except Exception as error:  # whatever a template raises is about the conversation or the model
        problem = " ".join(str(error).split()) or type(error).__name__
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(f"The chat template refuses a conversation of {roles}: {problem}", hint=_HINT) from error


def moves_system(tokenizer: Any, messages: Messages) -> bool:
    """Is a system text of this conversation put into a user turn? Errors as in `render`."""
    return bool(tokenizer.chat_template) and _form(tokenizer, _template(tokenizer), messages).moved


def opens_thought(tokenizer: Any) -> bool:
    """Does every answer begin inside a thought, because the chat template opens one and cannot close it?"""
    return bool(tokenizer.chat_template) and _template(tokenizer).opened


def closes_thought(tokenizer: Any) -> bool:
    """Does the chat template open a thought before an answer unless its variables say otherwise?"""
    return bool(tokenizer.chat_template) and bool(_template(tokenizer).options)


def _template(tokenizer: Any) -> _Template:
    template = _TEMPLATES.get(tokenizer)
    if template is None or template.source != tokenizer.chat_template:
        opens = _opens_thought(tokenizer, {})
        closes = opens and not _opens_thought(tokenizer, _WITHOUT_THOUGHT)
        template = _Template(tokenizer.chat_template, _WITHOUT_THOUGHT if closes else {}, opens and not closes, {})
        _TEMPLATES[tokenizer] = template
    return template


def _opens_thought(tokenizer: Any, options: Mapping[str, Any]) -> bool:
    texts = (_attempt(tokenizer, _probe(("user",)), form, options) for form in _FORMS[:2])
    return bool(_OPENED_THOUGHT.search(next((text for text in texts if text is not None), "")))


def _form(tokenizer: Any, template: _Template, messages: Messages) -> _Form:
    """The first form in which every known text in such roles comes back, else the first that the template refuses."""
    roles = tuple(message["role"] for message in messages)
    if roles in template.forms:
        return template.forms[roles]
    # is there a system message, and a user turn after the last one?
    movable = "system" in roles and "user" in roles[len(roles) - roles[::-1].index("system") :]
    probe, lost = _probe(roles), []
    for form in _FORMS if movable else _FORMS[:2]:
        text = _attempt(tokenizer, probe, form, template.options)
        missing = [] if text is None else [n for n, message in enumerate(probe) if message["content"] not in text]
        if text is not None and not missing:
            break
        lost += missing[:1]
    else:
        if lost:
            raise DataError(
                f"The chat template leaves message {lost[0] + 1} out (role '{roles[lost[0]]}').", hint=_HINT
            )
        form = _FORMS[0]  # what refuses the known texts may take these: `render` will see
    if form.moved and not any(other.moved for other in template.forms.values()):
        note("This chat template takes no system message: system text goes to the beginning of the next user turn.")
    template.forms[roles] = form
    return form


def _probe(roles: Sequence[str]) -> Messages:
    return tuple({"role": role, "content": f"known{number}text"} for number, role in enumerate(roles))


def _attempt(tokenizer: Any, messages: Messages, form: _Form, options: Mapping[str, Any]) -> str | None:
    """A prompt as the template writes it; None if it refuses."""
    try:
        return _apply(tokenizer, messages, form, options)
    except Exception:  # `render` says what is wrong
        return None


def _apply(tokenizer: Any, messages: Messages, form: _Form, options: Mapping[str, Any], *, prompt: bool = True) -> str:
    """A conversation as the template writes it, given in a form that it takes."""
    shaped: list[dict[str, Any]] = []
    waiting: list[str] = []
    for message in messages:
        role, content = message["role"], message["content"]
        if form.moved and role == "system":
            waiting.append(content)
            continue
        if role == "user" and waiting:
            content, waiting = "\n\n".join([*waiting, content]), []
        shaped.append({"role": role, "content": [{"type": "text", "text": content}] if form.parts else content})
    text: str = tokenizer.apply_chat_template(shaped, add_generation_prompt=prompt, tokenize=False, **options)
    return text
