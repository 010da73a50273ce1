"""A scorer as an outsider would write it: no import from pad_cli, three attributes and a call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ShoutingScorer:
    name = "shouting"
    description = "share of letters in upper case"
    higher_is_better = False

    def __call__(self, text: str, facts: Mapping[str, Any]) -> float:
        letters = [letter for letter in text if letter.isalpha()]
        return sum(letter.isupper() for letter in letters) / max(len(letters), 1)


SHOUTING = ShoutingScorer()
"""Share of letters in upper case."""
