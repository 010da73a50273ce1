"""A preference as a row spells it: a name, a text, a map of weights, or a list."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pad_cli.errors import PreferenceError
from pad_cli.pairs.rows import RowError, is_text
from pad_cli.preference import LARGEST, Preference, parse_preference


class PreferenceReader:
    """Reads the preferences of rows; most rows share theirs with many others, so each is read once.

    Args:
        principles: the names that are known; what is not among them is a specification (`not formal`, `a, b`) or free
            text. None: every name is a principle, whatever it looks like.
    """

    def __init__(self, principles: Sequence[str] | None) -> None:
        self._principles = principles
        self._read: dict[str, Preference] = {}

    def read(self, value: Any, field: str = "preference") -> Preference:
        """One preference, with at least one weight that is not zero.

        Raises:
            RowError: it is missing or of another form, or a specification cannot be understood.
        """
        try:
            key = json.dumps(value)
        except (TypeError, ValueError):  # something no JSON holds, from a data set
            key = repr(value)
        if key not in self._read:
            self._read[key] = self._parse(_weights(value, field), field)
        return self._read[key]

    def _parse(self, named: Mapping[str, float], field: str) -> Preference:
        weights: Counter[str] = Counter()
        texts: Counter[str] = Counter()
        for name, weight in named.items():
            read = Preference({name: 1.0}, {}) if self._principles is None else self._specification(name, field)
            weights.update({key: weight * part for key, part in read.weights.items()})
            texts.update({key: weight * part for key, part in read.texts.items()})
        preference = Preference({k: w for k, w in weights.items() if w}, {t: w for t, w in texts.items() if w})
        if not preference or not all(map(math.isfinite, [*weights.values(), *texts.values()])):
            raise RowError("no weight other than zero", field=field, hint="Leave the row out, or give a weight.")
        return preference

    def _specification(self, text: str, field: str) -> Preference:
        try:
            return parse_preference([text], self._principles or (), accepts_text=True)
        except PreferenceError as error:
            raise RowError(error.message, field=field, hint=error.hint) from error


def _weights(value: Any, field: str) -> dict[str, float]:
    """Name or text to weight, as spelt."""
    if is_text(value):
        return {value.strip(): 1.0}
    if isinstance(value, list) and value and all(is_text(name) for name in value):
        return {name: float(count) for name, count in Counter(name.strip() for name in value).items()}
    if isinstance(value, dict) and all(is_text(name) for name in value):
        # a data set gives every row all keys, and None where a row has none
        weights = {name.strip(): weight for name, weight in value.items() if weight is not None}
        if weights and all(type(w) in (int, float) and abs(w) <= LARGEST for w in weights.values()):
            return {name: float(weight) for name, weight in weights.items()}
    raise RowError(
        "neither a name, a list of names, nor a map of names to weights",
        field=field,
        hint='Write "preference": "humorous" or "preference": {"humorous": 1, "formal": -1}.',
    )
