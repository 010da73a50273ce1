"""`examine`: what this installation has, what it lacks, and the command that mends it.

torch is imported in a process of its own, so that one that crashes, or never ends, is a finding like any other.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any

import psutil
from huggingface_hub import constants, get_token
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pad_cli.system.caches import Kept, kept_hidden_states, kept_models, kept_under
from pad_cli.system.resources import shipped
from pad_cli.system.runs import home

_PATIENCE = 120  # seconds for torch to be imported
_LITTLE = 2e9  # bytes of free space under which a model of some size does not fit
_LEFT_OUT = ("dev", "docs", "test")  # extras that users do not need
_KEYS = ("OPENAI_API_KEY", "PAD_API_KEY")
_ASK_TORCH = """
import json, torch
from pad_cli.models.dtype import choices
cuda = torch.cuda.is_available()
cards = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({
    "version": torch.__version__,
    "cuda": torch.version.cuda or torch.version.hip,
    "gpus": [{"name": card.name, "bytes": card.total_memory} for card in cards],
    "mps": torch.backends.mps.is_available(),
    "dtypes": choices(),
}))
"""


@dataclass(frozen=True)
class Package:
    """A package that pad uses.

    Attributes:
        name: of the package.
        wanted: versions that will do, as pip writes them; empty for any.
        installed: its version; None when it is not there.
        extra: of which extra it is; empty for one that is always needed.
    """

    name: str
    wanted: str
    installed: str | None
    extra: str = ""

    @property
    def fits(self) -> bool:
        return self.installed is not None and SpecifierSet(self.wanted).contains(self.installed, prereleases=True)


@dataclass(frozen=True)
class Problem:
    """Something to mend.

    Attributes:
        what: was found.
        fix: the command that mends it.
        needed: whether pad cannot work without.
    """

    what: str
    fix: str
    needed: bool = True


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        pad: the version.
        python: the version.
        system: operating system and machine.
        packages: that are needed, and those of the extras.
        cores: of the CPU that this process may use.
        memory: bytes, and how many of them are free.
        torch: version, CUDA version, GPUs and MPS as torch sees them, and what `dtype: auto` means on each device, by
            the checkpoint's dtype, and why; None when it cannot be imported.
        home: `PAD_HOME`.
        writable: whether files can be written there.
        free: bytes on its disk.
        models: derived from embedded ones, and kept in `PAD_HOME`.
        hidden_states: cached ones.
        hub: the hub's cache.
        offline: whether the hub is never asked.
        secrets: name to whether there is one; their values are not looked at.
        problems: the needed ones first.
    """

    pad: str
    python: str
    system: str
    packages: tuple[Package, ...]
    cores: int
    memory: tuple[int, int]
    torch: dict[str, Any] | None
    home: Path
    writable: bool
    free: int
    models: tuple[Kept, ...]
    hidden_states: Kept
    hub: Kept
    offline: bool
    secrets: dict[str, bool]
    problems: tuple[Problem, ...]

    @property
    def well(self) -> bool:
        """Is all there that is needed?"""
        return not any(problem.needed for problem in self.problems)


def examine() -> Examination:
    """Look at packages, devices, directories and keys; nothing is loaded, built, or asked of the network."""
    torch, failure = _ask_torch()
    packages = tuple(_packages())
    place, memory = home(), psutil.virtual_memory()
    parent = next(path for path in (place, *place.absolute().parents) if path.exists())
    writable, free = _writable(parent), shutil.disk_usage(parent).free
    cached = kept_hidden_states()
    problems = [
        *_missing(packages),
        *_torch_problems(torch, failure, packages),
        *_place_problems(place, writable, free, cached),
        *_shipped_problems(),
    ]
    return Examination(
        pad=_version("pad-cli") or "not installed",
        python=platform.python_version(),
        system=f"{platform.system()}-{platform.machine()}",
        packages=packages,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=(memory.total, memory.available),
        torch=torch,
        home=place,
        writable=writable,
        free=free,
        models=tuple(kept_models()),
        hidden_states=cached,
        hub=kept_under(Path(constants.HF_HUB_CACHE)),
        offline=bool(constants.HF_HUB_OFFLINE),
        secrets={"HF_TOKEN": get_token() is not None, **{name: bool(os.environ.get(name)) for name in _KEYS}},
        problems=tuple(sorted(problems, key=lambda problem: not problem.needed)),
    )


def _ask_torch() -> tuple[dict[str, Any] | None, str]:
    """What torch says of itself, or the last thing that was said instead."""
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"not done after {_PATIENCE} seconds"
    if asked.returncode:
        return None, (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
    found: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    return found, ""


def _packages() -> Iterator[Package]:
    """As the installed distribution asks for them."""
    try:
        about = metadata("pad-cli")
    except PackageNotFoundError:
        return
    asked = [Requirement(line) for line in about.get_all("Requires-Dist") or ()]
    for extra in ("", *(each for each in about.get_all("Provides-Extra") or () if each not in _LEFT_OUT)):
        for each in asked:
            always = each.marker is None or each.marker.evaluate({"extra": ""})
            if always if not extra else not always and each.marker and each.marker.evaluate({"extra": extra}):
                yield Package(each.name, str(each.specifier), _version(each.name), extra)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _missing(packages: tuple[Package, ...]) -> Iterator[Problem]:
    if not packages:
        yield Problem("The package pad-cli is not installed, so what it needs is not known.", "pip install pad-cli")
    for package in packages:
        if not package.fits and (not package.extra or package.installed is not None):
            found = "is not installed" if package.installed is None else f"is {package.installed}"
            what = f"{package.name} {found}, but pad needs {package.name}{package.wanted}."
            yield Problem(what, f'pip install "{package.name}{package.wanted}"', needed=not package.extra)


def _torch_problems(torch: dict[str, Any] | None, failure: str, packages: tuple[Package, ...]) -> Iterator[Problem]:
    if torch is None:
        if not any(package.name == "torch" and package.installed is None for package in packages):
            yield Problem(f"torch cannot be imported: {failure}", "pip install --force-reinstall torch")
    elif not torch["gpus"] and shutil.which("nvidia-smi"):
        if torch["cuda"] is None:
            what = "There is an NVIDIA driver, but this torch is built for the CPU alone."
            yield Problem(what, "pip install --force-reinstall torch", needed=False)
        else:
            what = f"There is an NVIDIA driver, but torch (CUDA {torch['cuda']}) cannot use a GPU."
            yield Problem(what, "nvidia-smi", needed=False)


def _place_problems(place: Path, writable: bool, free: int, cached: Kept) -> Iterator[Problem]:
    elsewhere = "export PAD_HOME=/another/directory"
    if not writable:
        yield Problem(f"PAD_HOME, {place}, cannot be written.", elsewhere)
    if free < _LITTLE:
        fix = "pad doctor --clean-cache" if cached.files else elsewhere
        yield Problem(f"Only {free / 1e9:.1f} GB are free for PAD_HOME, {place}.", fix, needed=False)


def _shipped_problems() -> Iterator[Problem]:
    for folder in ("recipes", "data", "data/embedded"):
        try:
            shipped(folder)
        except Exception as error:  # the message names what is missing
            yield Problem(str(error).splitlines()[0], "pip install --force-reinstall pad-cli")


def _writable(directory: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False
