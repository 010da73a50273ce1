"""Profiles (floor 2): what one user wants, as weights of principles in a small YAML file, asked for as `--pref @NAME`.

`@me` is `profiles/me.yaml` of the working directory. A profile that was learned belongs to the reward model that it was
learned on, because weights are amounts of that model's rewards; one written by hand names none and goes with any:

    weights: {concise: 1.2, humorous: 0.8}
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Protocol

import yaml
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from pad_cli.errors import DataError, PreferenceError, did_you_mean
from pad_cli.system.checked_yaml import explain, read_yaml_mapping
from pad_cli.system.runs import check_output, write_whole

PROFILES = Path("profiles")
"""Where profiles are looked for by name, in the working directory."""

_NAME = re.compile(r"[A-Za-z0-9_-]+")
_HEADER = (
    "# A profile of pad: what one user wants, for --pref @NAME. `weights` may be edited: above 0 asks for more of it,\n"
    "# below 0 asks to avoid it. All else says where they come from; `reward_model` ties them to the one they fit.\n"
)
_HINT = "See a profile that `pad learn` wrote, or write only `weights`, a map of principles to numbers."

_Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Name = Annotated[str, Field(pattern=r"\S")]
Interval = tuple[_Number, _Number]


@dataclass(frozen=True)
class Profile:
    """One user's weights, and where they come from."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    name: str  # of the profile; its file's name. (It is not in the file.)
    weights: Mapping[_Name, _Number]  # principle to signed weight; 0 for none
    reward_model: str = ""  # fingerprint of the reward model that they belong to; empty for any
    principles: tuple[str, ...] = ()  # all names that this reward model knew
    intervals: Mapping[str, Interval] = field(default_factory=dict)  # principle to the ends of its weight's interval
    choices: Annotated[int, Field(strict=True, ge=0)] = 0  # from how many choices they were learned
    accuracy: _Number | None = None  # share of choices predicted in cross-validation; None when unknown
    accuracy_interval: Interval | None = None  # its ends
    created: Annotated[datetime.date, Field(strict=True)] | None = None  # on which day; None when unknown


_FORM: TypeAdapter[Profile] = TypeAdapter(Profile)
_KEYS = [each.name for each in fields(Profile) if each.name != "name"]


class Model(Protocol):
    """What a profile is checked against: a reward model."""

    @property
    def principles(self) -> tuple[str, ...]: ...  # names that a preference may use; empty where any text will do

    @property
    def fingerprint(self) -> str: ...  # of everything that decides rewards


def profile_path(name: str) -> Path:
    """The file of a profile's name; it need not exist.

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
    """Write a profile, whole or not at all, by default where its name is looked for; returns its file.

    Raises:
        PreferenceError: its name cannot be one.
        StorageError: the file cannot be written.
    """
    target = path or profile_path(profile.name)
    # numpy's floats become Python's; a date stays one
    content = _FORM.dump_python(profile, mode="json", exclude={"name"}, exclude_defaults=True)
    content |= {"created": profile.created} if profile.created else {}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    write_whole(target, _HEADER + text)
    return target


def load_profile(where: str | Path) -> Profile:
    """Read a profile by its name or its path: a `Path`, or a text with a directory or .yaml in it.

    Raises:
        PreferenceError: there is none, or the name cannot be one.
        DataError: the file is wrong; with the key.
    """
    named = isinstance(where, str) and Path(where).name == where and not where.endswith((".yaml", ".yml"))
    path = profile_path(str(where)) if named else Path(where)
    try:
        content = read_yaml_mapping(path, "a mapping of keys to values", _HINT)
    except FileNotFoundError as error:
        name = where if named else path.stem
        raise PreferenceError(f"There is no profile '{name}' ({path}).", _listed(path.stem)) from error
    if "name" in content:
        raise DataError("no such key", path=path, field="name", hint="The name of the file is the profile's.")
    try:
        return _FORM.validate_python({**content, "name": path.stem})
    except ValidationError as error:
        raise explain(error, path, _KEYS, _HINT) from error


def profile_weights(name: str, model: Model | None = None) -> Mapping[str, float]:
    """The weights of a profile of the working directory, checked against a reward model if one is given.

    Raises:
        PreferenceError: there is no such profile, or its weights belong to another reward model, or to a principle that
            this one does not know and that is not `text:...`.
        DataError: the file is wrong.
    """
    profile = load_profile(profile_path(name))
    if model is None:
        return profile.weights
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
    return profile.weights


def _listed(name: str = "") -> str:
    """The existing profiles, for a hint; the closest ones to a name if any are close."""
    names = profile_names()
    return did_you_mean(name, names) if names else f"There are none in {PROFILES}/ yet: pad learn writes them."
