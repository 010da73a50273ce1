"""What a recipe may hold nowhere: a secret, because recipes are copied into runs, reports and hubs; and odd keys.

The messages name the key and never quote the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_SECRET_KEYS = re.compile(r"api[_-]?key|apikey|(access|auth|bearer|hf)[_-]?token|password|passwd|authorization", re.I)
_SECRET_VALUES = re.compile(
    r"://[^/\s?#]*:[^/\s?#]*@"  # user:password@host
    r"|[?&][\w-]*(key|token|secret|password|signature)=[^&\s]"
    r"|\b(sk|pk|rk)-[\w-]{16,}|\bhf_\w{16,}|\bgh[pousr]_\w{16,}|\bxox[abprs]-[\w-]{10,}|\bAKIA[0-9A-Z]{16}\b"
    r"|\bBearer\s+\S{8,}|-----BEGIN [A-Z ]*PRIVATE KEY-----",
    re.I,
)
HINT = "A recipe is copied into runs and reports: set OPENAI_API_KEY, HF_TOKEN or PAD_API_KEY in the environment."


def secrets_in(content: Any) -> list[str]:
    """The places in a recipe that hold what looks like a secret, as `judge.base_url`."""
    found = []
    for place, key, value in _walk(content, ""):
        if _SECRET_VALUES.search(str(key)):
            found.append("one of its keys")  # which would be quoted by its place
        elif isinstance(value, str) and (_SECRET_VALUES.search(value) or _SECRET_KEYS.fullmatch(str(key))):
            found.append(place)
    return found


def odd_keys_in(content: Any) -> list[str]:
    """The places of keys that are no text: YAML reads `yes`, `1` and dates as something else."""
    return [place for place, key, _ in _walk(content, "") if not isinstance(key, str)]


def _walk(content: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    """(place, key, value) of everything; an item of a list has its list's key."""
    if isinstance(content, Mapping):
        pairs = [(key, value) for key, value in content.items()]
    elif isinstance(content, list | tuple):
        pairs = [(str(number), value) for number, value in enumerate(content)]
    else:
        return
    for key, value in pairs:
        here = f"{place}.{key}" if place else str(key)
        yield here, key, value
        yield from _walk(value, here)
