"""Bash breaks words at `=` and `@` before it asks for completions; here they are whole again.

`--set decoding.path=fu` arrives as three words, of which bash replaces the last; `--pref @m` as two, of
which it replaces both.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Sequence

from pad_cli.system.terminal import say

_ASKED = ("_PAD_COMPLETE", "complete_bash")


def completing_in_bash() -> bool:
    return os.environ.get(_ASKED[0]) == _ASKED[1]


def complete_whole_words(app: Callable[[], object]) -> None:
    """Let the application complete, with whole words, and print of each offer what bash has to insert."""
    words, number = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    whole = whole_words(words[: number + 1])
    os.environ.update(COMP_WORDS="\n".join(whole), COMP_CWORD=str(len(whole) - 1))
    before, equals, _ = whole[-1].rpartition("=")
    offers = io.StringIO()
    try:
        with contextlib.redirect_stdout(offers):
            app()
    finally:
        for offer in offers.getvalue().splitlines():
            if inserted := offer.removeprefix(before + equals):
                say(inserted)


def whole_words(words: Sequence[str]) -> list[str]:
    """Words as they were typed.

    Example:
        >>> whole_words(["pad", "--set", "decoding.path", "=", "fu"])
        ['pad', '--set', 'decoding.path=fu']
    """
    whole: list[str] = []
    for word in words:
        if whole and (word == "=" or whole[-1].endswith(("=", "@"))):
            whole[-1] += word
        else:
            whole.append(word)
    return whole
