"""How principles may be worded: what the preference encoder learns from, and what it is measured on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pad_cli.errors import DataError
from pad_cli.principles import Principle, load_principles, shipped_principles
from pad_cli.records import PairSplit
from pad_cli.system.resources import shipped

SHIPPED = "shipped"
"""In place of a file: the package's own wordings, of its ready principles and of the styles of the data set DSP."""

Wordings = Mapping[str, tuple[str, ...]]
"""Principle to texts."""


def read_wordings(texts: Mapping[str, list[str]] | str) -> tuple[Wordings, Wordings]:
    """Wordings for training, and held-out ones for validation.

    Args:
        texts: principle to wordings, all for training; or a JSON file of {principle: {"train": [...], "held_out":
            [...]}}, a YAML file of principles (see `pad_cli.principles`), or `shipped`.

    Raises:
        DataError: the file is missing or of another form.
    """
    if not isinstance(texts, str):
        return {name: tuple(wordings) for name, wordings in texts.items()}, {}
    if texts == SHIPPED:
        ready, styles = _of(shipped_principles()), _read_json(shipped("data") / "wordings-dsp.json")
        return {**styles[0], **ready[0]}, {**styles[1], **ready[1]}
    path = Path(texts)
    return _of(load_principles(path)) if path.suffix in (".yaml", ".yml") else _read_json(path)


def _of(principles: Mapping[str, Principle]) -> tuple[Wordings, Wordings]:
    train = {name: principle.wordings for name, principle in principles.items()}
    return train, {name: principle.held_out for name, principle in principles.items()}


def _read_json(path: Path) -> tuple[Wordings, Wordings]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path=path, hint="Check data.texts.") from error
    except ValueError as error:
        raise DataError(f"not JSON in UTF-8: {error}", path=path, hint="Check data.texts.") from error
    if not isinstance(content, dict) or not all(_is_entry(entry) for entry in content.values()):
        raise DataError(
            "not a map of principles to wordings",
            path=path,
            hint='Write {"humorous": {"train": ["be funny", ...], "held_out": ["make me laugh"]}, ...}.',
        )
    train = {name: tuple(entry["train"]) for name, entry in content.items()}
    return train, {name: tuple(entry.get("held_out", ())) for name, entry in content.items()}


def worded_splits(splits: Iterable[PairSplit], held_out: Wordings) -> list[PairSplit]:
    """For each split a second one, `NAME_wordings`: its pairs that ask for one principle, in held-out wordings."""
    found = []
    for split in splits:
        pairs = tuple(
            pair
            for pair in split.pairs
            if len(pair.preference) == 1 and not pair.texts and all(held_out.get(name) for name in pair.preference)
        )
        names = {name for pair in pairs for name in pair.preference}
        if pairs and not split.texts:
            found.append(PairSplit(f"{split.name}_wordings", pairs, {name: held_out[name] for name in sorted(names)}))
    return found


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and set(entry) <= {"train", "held_out"}
        and bool(entry.get("train"))
        and all(isinstance(texts, list) and all(_is_text(text) for text in texts) for texts in entry.values())
    )


def _is_text(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())
