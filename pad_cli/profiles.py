"""Profiles (floor 2): what one user wants, as weights of principles in a small YAML file, asked for as `--pref @NAME`.

`@me` is `profiles/me.yaml` of the working directory. A profile that was learned belongs to the reward model that it was
learned on, because weights are amounts of that model's rewards; one written by hand names none and goes with any:

    weights: {concise: 1.2, humorous: 0.8}
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol

import yaml

from pad_cli.errors import DataError, PreferenceError, did_you_mean
from pad_cli.system.runs import check_output, write_whole
from pad_cli.system.yaml_text import YamlError, read_yaml

PROFILES = Path("profiles")
"""Where profiles are looked for by name, in the working directory."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_SUFFIXES = (".yaml", ".yml")
_HEADER = (
    "# A profile of pad: what one user wants, for --pref @NAME. `weights` may be edited: above 0 asks for more of it,\n"
    "# below 0 asks to avoid it. All else says where they come from; `reward_model` ties them to the one they fit.\n"
)
_AGAIN = "See a profile that `pad learn` wrote, or write only `weights`, a map of principles to numbers."

Interval = tuple[float, float]


@dataclass(frozen=True)
class Profile:
    """One user's weights, and where they come from.

    Attributes:
        name: of the profile; its file's name. (The file does not say it.)
        weights: principle to signed weight; 0 for none.
        reward_model: fingerprint of the reward model that they belong to; empty for any.
        principles: all names that this reward model knew.
        intervals: principle to the ends of its weight's interval.
        choices: from how many choices they were learned.
        accuracy: share of choices foretold in cross-validation; None when unknown.
        accuracy_interval: its ends.
        created: on which day; None when unknown.
    """

    name: str
    weights: Mapping[str, float]
    reward_model: str = ""
    principles: tuple[str, ...] = ()
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    choices: int = 0
    accuracy: float | None = None
    accuracy_interval: Interval | None = None
    created: datetime.date | None = None


class Known(Protocol):
    """What a profile is checked against: a reward model."""

    @property
    def principles(self) -> tuple[str, ...]:
        """Names that a preference may use; empty where any text will do."""

    @property
    def fingerprint(self) -> str:
        """Of everything that decides rewards."""


_KEYS = tuple(each.name for each in fields(Profile) if each.name != "name")


def profile_path(name: str) -> Path:
    """The file of a profile's name; whether it is there is not asked.

    Raises:
        PreferenceError: it is no name: letters, digits, - and _ only, so that a name never leaves the directory.
    """
    if not _NAME.fullmatch(name):
        raise PreferenceError(
            f"{'@' + name!r} names no profile.",
            f"Letters, digits, - and _ only; for words that begin with an @ write text:@... ({_listed()})",
        )
    return PROFILES / f"{name}.yaml"


def profile_names() -> list[str]:
    """The names of the profiles in the working directory, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml") if _NAME.fullmatch(path.stem))


def check_profile_output(target: Path, *, overwrite: bool = False) -> None:
    """Make sure that a learned profile written to a file replaces nothing but an earlier one.

    Raises:
        UsageError: it holds something else, for example a profile written by hand, which may not be replaced.
    """
    check_output(target, "profile that pad learned", _is_learned, folder=False, overwrite=overwrite)


def _is_learned(path: Path) -> bool:
    start = _HEADER.splitlines()[0].encode()
    with path.open("rb") as file:
        return file.read(len(start)) == start


def save_profile(profile: Profile, path: Path | None = None) -> Path:
    """Write a profile, whole or not at all, over one that is there.

    Args:
        profile: what to write.
        path: where; by default where its name is looked for.

    Returns:
        Where it is.

    Raises:
        PreferenceError: its name cannot be one.
        StorageError: the file cannot be written.
    """
    target = path or profile_path(profile.name)
    content = {key: _plain(getattr(profile, key)) for key in _KEYS}
    kept = {key: value for key, value in content.items() if key == "weights" or value not in (None, "", [], {})}
    text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    write_whole(target, _HEADER + text)
    return target


def load_profile(where: str | Path) -> Profile:
    """Read a profile.

    Args:
        where: a name, or a path: a `Path`, or a text with a directory or .yaml in it.

    Raises:
        PreferenceError: there is none, or the name cannot be one.
        DataError: the file is wrong; with the key.
    """
    named = isinstance(where, str) and Path(where).name == where and not where.endswith(_SUFFIXES)
    path = profile_path(str(where)) if named else Path(where)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise PreferenceError(
            f"There is no profile '{where if named else path.stem}' ({path}).", _listed(path.stem)
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", path=path, hint="A profile is a YAML text file.") from error
    return _profile(_content(text, path), path)


def profile_weights(name: str) -> Mapping[str, float]:
    """The weights of a profile of the working directory, for `expand_profiles`; for any reward model.

    Raises:
        PreferenceError, DataError: see `load_profile`.
    """
    return load_profile(profile_path(name)).weights


def profiles_of(model: Known) -> Callable[[str], Mapping[str, float]]:
    """The same for one reward model; each profile is checked with `check_profile`."""

    def weights(name: str) -> Mapping[str, float]:
        profile = load_profile(profile_path(name))
        check_profile(profile, model)
        return profile.weights

    return weights


def check_profiles(names: Iterable[str], model: Known) -> None:
    """Check profiles of the working directory against a reward model, see `check_profile`."""
    for name in sorted(set(names)):
        check_profile(load_profile(profile_path(name)), model)


def check_profile(profile: Profile, model: Known) -> None:
    """Make sure that a profile's weights mean something to a reward model.

    Raises:
        PreferenceError: they belong to another one, or one is of a principle that this one does not know. (Free text
            is written as `text:...`; to a reward model without principles everything is text.)
    """
    if profile.reward_model and profile.reward_model != model.fingerprint:
        raise PreferenceError(
            f"Profile '{profile.name}' belongs to another reward model ({profile.reward_model}; "
            f"this one is {model.fingerprint}).",
            f"Learn it again: pad learn {profile.name} CHOICES --reward-model ...",
        )
    known = {name.lower() for name in model.principles}
    for name in profile.weights:
        if known and name.lower() not in known and not name.lower().startswith("text:"):
            raise PreferenceError(
                f"Profile '{profile.name}': this reward model knows no principle '{name}'.",
                f"{did_you_mean(name, model.principles)} For free text write 'text:{name}' as its key.",
            )


def _listed(name: str = "") -> str:
    """The profiles that are there, for a hint; the closest ones to a name if there are."""
    found = profile_names()
    return did_you_mean(name, found) if found else f"There are none in {PROFILES}/ yet: pad learn writes them."


def _plain(value: Any) -> Any:
    """Values as YAML's safe types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(each) for each in value]
    return float(value) if isinstance(value, float) else value  # numpy's are floats that YAML does not know


def _content(text: str, path: Path) -> dict[Any, Any]:
    try:
        content = read_yaml(text)
    except YamlError as error:
        hint = "Check indentation, colons and quotes near there."
        raise DataError(f"not YAML: {error.problem}", path=path, line=error.line, hint=hint) from error
    if not isinstance(content, dict):
        raise DataError("a profile is a mapping of keys to values", path=path, hint=_AGAIN)
    return content


def _profile(content: Mapping[Any, Any], path: Path) -> Profile:
    for key in content:
        if key not in _KEYS:
            raise DataError("no such key", path=path, field=str(key), hint=did_you_mean(str(key), _KEYS))
    if "weights" not in content:
        raise DataError("is missing", path=path, field="weights", hint=_AGAIN)
    read = _Reader(content, path)
    created = content.get("created")
    if created is not None and type(created) is not datetime.date:
        raise read.wrong("created", "no date", "Write it as 2026-01-31.")
    return Profile(
        name=path.stem,
        weights={name: read.number(f"weights.{name}", each) for name, each in read.table("weights").items()},
        reward_model=read.text("reward_model"),
        principles=read.names("principles"),
        intervals={name: read.interval(f"intervals.{name}", each) for name, each in read.table("intervals").items()},
        choices=read.count("choices"),
        accuracy=None if (found := content.get("accuracy")) is None else read.number("accuracy", found),
        accuracy_interval=(
            None if (found := content.get("accuracy_interval")) is None else read.interval("accuracy_interval", found)
        ),
        created=created,
    )


class _Reader:
    """Values of a file by their keys, each of its type or a DataError that names the key."""

    def __init__(self, content: Mapping[Any, Any], path: Path) -> None:
        self._content, self._path = content, path

    def wrong(self, key: str, message: str, hint: str = _AGAIN) -> DataError:
        return DataError(message, path=self._path, field=key, hint=hint)

    def table(self, key: str) -> dict[str, Any]:
        found = self._content.get(key, {})
        if not isinstance(found, dict):
            raise self.wrong(key, f"no map of principles, but {found!r}")
        for name in found:
            if not isinstance(name, str) or not name.strip():
                raise self.wrong(
                    key, f"{name!r} is no name", "Quote it: YAML takes words such as yes and no for others."
                )
        return found

    def number(self, key: str, found: Any) -> float:
        if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
            raise self.wrong(key, f"{found!r} is no finite number", "Write a number such as 0.5 or -1.")
        return float(found)

    def interval(self, key: str, found: Any) -> Interval:
        if not isinstance(found, list) or len(found) != 2:
            raise self.wrong(key, f"{found!r} is no interval", "Write its two ends: [0.5, 1.5].")
        return self.number(key, found[0]), self.number(key, found[1])

    def text(self, key: str) -> str:
        found = self._content.get(key, "")
        if not isinstance(found, str):
            raise self.wrong(key, f"{found!r} is no text", "Put it in quotes.")
        return found

    def names(self, key: str) -> tuple[str, ...]:
        found = self._content.get(key, [])
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise self.wrong(key, f"{found!r} is no list of names")
        return tuple(found)

    def count(self, key: str) -> int:
        found = self._content.get(key, 0)
        if type(found) is not int or found < 0:
            raise self.wrong(key, f"{found!r} is no number of choices", "Write a whole number.")
        return found
