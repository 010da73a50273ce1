"""Strings that end an answer, found in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on up to the first stop string, the one that is complete first; of several, the longest.

    What may be the beginning of one is held back. What comes out does not depend on how the text is cut into pieces.

    Args:
        strings: none of them empty; none at all passes everything on.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(strings)
        self._held = ""
        self.met = False

    def push(self, piece: str) -> str:
        """Take more text and return what is certain now; nothing once a stop string was met."""
        if self.met:
            return ""
        self._held += piece
        found = [(at + len(stop), at) for stop in self._strings if (at := self._held.find(stop)) >= 0]
        if found:
            self.met = True
            return self._held[: min(found)[1]]
        certain = len(self._held) - self._open()
        out, self._held = self._held[:certain], self._held[certain:]
        return out

    def finish(self) -> str:
        """What was held back."""
        return "" if self.met else self._held

    def _open(self) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        longest = max((len(stop) - 1 for stop in self._strings), default=0)
        for length in range(min(longest, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-length:]) for stop in self._strings):
                return length
        return 0
