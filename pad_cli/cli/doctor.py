"""`pad doctor`: what this installation has, what it lacks, and the command that mends it.

torch is imported in a process of its own, so that one that crashes, or never ends, is a problem like any other.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import typer

from pad_cli.cli.options import Json, Quiet
from pad_cli.cli.tables import print_facts
from pad_cli.system.progress import size, stage
from pad_cli.system.terminal import say, say_json

Problem = Callable[..., None]
"""Takes what is wrong, the command that mends it, and whether pad cannot work without (`needed`)."""

_HEADINGS = ("Packages", "Extras", "Devices", "PAD_HOME", "Hub and keys")
_PATIENCE = 120  # seconds for torch to be imported
_LITTLE = 2e9  # bytes of free space under which a model of some size does not fit
_DEVELOPERS = ("dev", "docs", "test")  # extras that users do not need
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


def doctor(as_json: Json = False, quiet: Quiet = False) -> None:
    """Say what is installed, what is missing, and how to mend it.

    The exit code is 1 when something is broken that pad cannot work without. Keys are looked for, never shown.
    """
    with stage("Asking torch"):
        report = examine()
    if as_json:
        say_json(report)
    else:
        for heading in _HEADINGS:
            print_facts(heading, report[heading].items())
        problems = [("", f"{problem['what']}\n{problem['fix']}") for problem in report["problems"]]
        print_facts("Problems, each with the command that mends it", problems) if problems else say("No problems.")
    if not report["well"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """What `pad doctor` prints, by heading, and the problems.

    `well` is false where something is missing that pad cannot work without.
    """
    problems: list[dict[str, Any]] = []

    def problem(what: str, fix: str, *, needed: bool = True) -> None:
        problems.append({"what": what, "fix": fix, "needed": needed})

    packages, extras = _packages(problem)
    system = {"Python": platform.python_version(), "system": f"{platform.system()}-{platform.machine()}"}
    sections = ({**system, **packages}, extras, _devices(problem), _home(problem), _hub())
    problems.sort(key=lambda each: not each["needed"])
    well = not any(each["needed"] for each in problems)
    return {**dict(zip(_HEADINGS, sections, strict=True)), "problems": problems, "well": well}


def _packages(problem: Problem) -> tuple[dict[str, str], dict[str, str]]:
    """Versions of what the installed distribution requires, and of what each extra requires."""
    from importlib.metadata import PackageNotFoundError, requires, version  # slow: it brings Python's `email`

    from packaging.requirements import Requirement

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    packages, extras = {"pad-cli": installed("pad-cli") or "missing"}, dict[str, str]()
    if packages["pad-cli"] == "missing":
        problem("The package pad-cli is not installed, so what it needs is not known.", "pip install pad-cli")
        return packages, extras
    for each in map(Requirement, requires("pad-cli") or []):
        extra = "".join(re.findall(r'extra == "(.+?)"', str(each.marker)))
        if extra in _DEVELOPERS or (each.marker is not None and not each.marker.evaluate({"extra": extra})):
            continue
        current = installed(each.name)
        if extra:
            before = f"{extras[extra]}, " if extra in extras else ""
            extras[extra] = f"{before}{each.name} {current or '(missing)'}"
        else:
            packages[each.name] = current or "missing"
        fits = current is not None and each.specifier.contains(current, prereleases=True)
        if not fits and (current or not extra):
            requirement = f"{each.name}{each.specifier}"
            state = f"is {current}" if current else "is not installed"
            problem(
                f"{each.name} {state}, but pad needs {requirement}.", f'pip install "{requirement}"', needed=not extra
            )
    return packages, dict(sorted(extras.items()))


def _devices(problem: Problem) -> dict[str, str]:
    memory = psutil.virtual_memory()
    devices = {"CPU": f"{os.cpu_count()} cores, {size(memory.total)} of memory, {size(memory.available)} free"}
    try:
        torch = _ask_torch()
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        output = (getattr(error, "stderr", None) or str(error)).strip()
        problem(f"torch cannot be imported: {output.splitlines()[-1]}", "pip install --force-reinstall torch")
        return {**devices, "GPU": "not known without torch"}
    built = f"CUDA {torch['cuda']}" if torch["cuda"] else "the CPU alone"
    for number, card in enumerate(torch["gpus"]):
        devices[f"cuda:{number}"] = f"{card['name']}, {size(card['bytes'])}"
    if not torch["gpus"]:
        devices["GPU"] = "mps" if torch["mps"] else f"none (this torch is built for {built})"
        if shutil.which("nvidia-smi"):
            fix = "nvidia-smi" if torch["cuda"] else "pip install --force-reinstall torch"
            problem(f"There is an NVIDIA driver, but torch, built for {built}, cannot use a GPU.", fix, needed=False)
    for device, dtypes in torch.get("dtypes", {}).items():
        for own, choice in dtypes.items():
            if own != "float32":
                reason = f": {choice['reason']}" if choice["reason"] else ""
                devices[f"{own} on {device}"] = f"loaded as {choice['dtype']} (dtype: auto){reason}"
    return devices


def _ask_torch() -> dict[str, Any]:
    command = [sys.executable, "-c", _ASK_TORCH]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=True)
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _home(problem: Problem) -> dict[str, str]:
    from pad_cli.system.runs import hidden_states, home

    existing = next(path for path in (home(), *home().absolute().parents) if path.exists())
    free, writable = shutil.disk_usage(existing).free, os.access(existing, os.W_OK) and existing.is_dir()
    if not writable:
        problem(f"PAD_HOME, {home()}, cannot be written.", "export PAD_HOME=/another/directory")
    if free < _LITTLE:
        problem(f"Only {size(free)} are free for PAD_HOME, {home()}.", f"rm -r {hidden_states()}", needed=False)
    place = f"{home()}, {'' if writable else 'not '}writable, {size(free)} free"
    return {"place": place, "hidden states": _stored(hidden_states())}


def _hub() -> dict[str, str]:
    from huggingface_hub import constants, get_token

    keys = {"HF_TOKEN": get_token() is not None, **{name: bool(os.environ.get(name)) for name in _KEYS}}
    offline = ", offline (HF_HUB_OFFLINE)" if constants.HF_HUB_OFFLINE else ""
    cache = f"{constants.HF_HUB_CACHE}: {_stored(Path(constants.HF_HUB_CACHE))}{offline}"
    return {"cache": cache, **{name: "set" if there else "none" for name, there in keys.items()}}


def _stored(directory: Path) -> str:
    sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return f"{size(sum(sizes))} in {len(sizes):,} files"
