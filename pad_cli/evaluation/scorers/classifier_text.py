"""In what form a classifier is given a prompt and an answer.

`chat`      its tokenizer's chat template, the answer as the assistant's last turn
`pair`      two texts: the prompt, and the answer
`answer`    the answer alone
`hh`        two texts: "\\n\\nHuman: PROMPT \\n\\nAssistant:", as HH-RLHF spells conversations, and the answer
`auto`      `chat` where there is a chat template, else `pair`
otherwise   a text with {answer} and {prompt} in it, or a list of two for a text pair

In a text of one's own, `{prompt}` is the conversation's messages, one paragraph each.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from pad_cli.errors import ModelLoadError
from pad_cli.models.prompts import render
from pad_cli.records import Messages

NAMES = ("auto", "chat", "pair", "answer", "hh")
_OWN = {"pair": ("{prompt}", "{answer}"), "answer": ("{answer}",)}
_SLOT = re.compile(r"\{(prompt|answer)\}")
_HH_SPEAKERS = {"user": "Human", "assistant": "Assistant"}


class Text(NamedTuple):
    """What is tokenized: one text, or a pair; `special` says whether the tokenizer adds its special tokens."""

    first: str
    second: str | None = None
    special: bool = True


def problem_of(template: str | tuple[str, ...]) -> str:
    """What is wrong with a template, or nothing."""
    if isinstance(template, str):
        if template in NAMES or "{answer}" in template:
            return ""
        return f"neither one of {', '.join(NAMES)} nor a text with {{answer}} in it"
    return "" if len(template) == 2 and "{answer}" in "".join(template) else "no two texts with {answer} in them"


def word(template: str | tuple[str, ...], tokenizer: Any, prompt: Messages, answer: str) -> Text:
    """A prompt and an answer in the form that a template says.

    Raises:
        ModelLoadError: the template is `chat`, and the tokenizer has none.
        DataError: the chat template refuses the conversation.
    """
    if template == "auto":
        template = "chat" if tokenizer.chat_template else "pair"
    if template == "chat":
        return _chat(tokenizer, prompt, answer)
    if template == "hh":
        return Text(_hh(prompt), answer)
    parts = _OWN.get(template, (template,)) if isinstance(template, str) else template
    values = {"prompt": "\n\n".join(message["content"] for message in prompt), "answer": answer}
    first, second = (*(_SLOT.sub(lambda slot: values[slot[1]], part) for part in parts), None)[:2]
    return Text(first or "", second)


def _chat(tokenizer: Any, prompt: Messages, answer: str) -> Text:
    if not tokenizer.chat_template:
        raise ModelLoadError(
            "The classifier's tokenizer has no chat template.", "Give another `template`: pair, hh, or a text."
        )
    turns = (*prompt, {"role": "assistant", "content": answer})
    return Text(render(tokenizer, turns, prompt=False), special=False)


def _hh(prompt: Messages) -> str:
    turns = ((_HH_SPEAKERS.get(turn["role"], turn["role"].title()), turn["content"].strip()) for turn in prompt)
    return "".join([*(f"\n\n{speaker}: {content}" for speaker, content in turns), " \n\nAssistant:"])
