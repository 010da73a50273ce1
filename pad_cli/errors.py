"""Words for what can go wrong (floor 0).

    PadError                 exit 1
    ├── UsageError           exit 2   the command line cannot be carried out as typed
    ├── RecipeError          exit 2   a recipe is wrong; all its problems at once
    ├── PreferenceError      exit 2   a preference cannot be understood
    ├── DataError            exit 2   a data file is wrong; names file, line and field
    ├── ModelLoadError       exit 1   a language model cannot be loaded
    │   └── ArchitectureError exit 2   its logits are not what steering needs
    ├── CheckpointError      exit 1   a reward model is missing, damaged, or of another backbone
    ├── VocabularyError      exit 1   two models do not share a vocabulary
    ├── PluginError          exit 1   an entry in a registry cannot be imported
    ├── StorageError         exit 1   a directory or file cannot be written
    ├── ResourceError        exit 1   the machine is too small: memory does not hold a single item
    ├── TrainingError        exit 1   training cannot go on (for example: the loss is not a number)
    └── EndpointError        exit 1   a judge or teacher cannot be reached, refuses, or would cost too much

Every error says what was found, where, and in its hint what to do. The command line prints these without a
traceback; anything else is our own bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PadError(Exception):
    """Base of every error that is the user's to fix.

    Args:
        message: what was found, and where.
        hint: what to do about it; may be empty.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class UsageError(PadError):
    exit_code = 2


class RecipeError(PadError):
    exit_code = 2


class PreferenceError(PadError):
    exit_code = 2


class DataError(PadError):
    """A data file is wrong.

    Args:
        message: what is wrong.
        path: the file.
        line: its line, counted from 1; 0 when the whole file is meant.
        field: the field of that line; may be empty.
        hint: what to do.
    """

    exit_code = 2

    def __init__(self, message: str, *, path: object = "", line: int = 0, field: str = "", hint: str = "") -> None:
        where = ":".join(str(part) for part in (path, line or "") if str(part))
        where = ", ".join(part for part in (where, field and f"field '{field}'") if part)
        super().__init__(f"{where}: {message}" if where else message, hint)
        self.path, self.line, self.field = str(path), line, field


class ModelLoadError(PadError):
    pass


class ArchitectureError(ModelLoadError):
    exit_code = 2


class CheckpointError(PadError):
    pass


class VocabularyError(PadError):
    pass


class PluginError(PadError):
    pass


class StorageError(PadError):
    pass


class ResourceError(PadError):
    pass


class TrainingError(PadError):
    pass


class EndpointError(PadError):
    pass


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the closest known ones, else all of them."""
    names = sorted(known)
    return closest(name, names) or (f"Known: {', '.join(names)}." if names else "")


def closest(name: str, known: Iterable[str]) -> str:
    """The same, but empty where none is close: for what may well be something else."""
    close = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0.6)
    return f"Did you mean {' or '.join(close)}?" if close else ""
