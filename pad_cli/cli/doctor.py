"""`pad doctor`: what this installation has, what it lacks, and the command that mends it."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import typer

from pad_cli.cli.options import Json, Quiet
from pad_cli.cli.tables import print_facts
from pad_cli.system.progress import size
from pad_cli.system.terminal import say, say_json

Problem = Callable[..., None]
"""Takes what is wrong, the command that mends it, and whether pad cannot work without (`needed`)."""

_LITTLE = 2e9  # bytes of free space under which a model of some size does not fit
_DEVELOPERS = ("dev", "docs", "test")  # extras that users do not need
_KEYS = ("OPENAI_API_KEY", "PAD_API_KEY")


def doctor(as_json: Json = False, quiet: Quiet = False) -> None:
    """Show what is installed, what is missing, and how to fix it.

    The exit code is 1 if something that pad requires is missing or broken. Keys are detected, but never shown.
    """
    report = examine()
    if as_json:
        say_json(report)
    else:
        for heading, facts in report.items():
            if isinstance(facts, dict):
                print_facts(heading, facts.items())
        problems = [("", f"{problem['what']}\n{problem['fix']}") for problem in report["problems"]]
        print_facts("Problems, each with the command that fixes it", problems) if problems else say("No problems.")
    if not report["well"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """What `pad doctor` prints, by heading, and the problems.

    `well` is false where something is missing that pad cannot work without.

    Raises:
        PluginError: the package is not installed, so what it needs is not known.
    """
    from pad_cli.registry import check_installed

    check_installed()
    problems: list[dict[str, Any]] = []

    def problem(what: str, fix: str, *, needed: bool = True) -> None:
        problems.append({"what": what, "fix": fix, "needed": needed})

    packages, extras = _packages(problem)
    system = {"Python": platform.python_version(), "system": f"{platform.system()}-{platform.machine()}"}
    report = {
        "Packages": {**system, **packages},
        "Extras": {extra: ", ".join(map(" ".join, each.items())) for extra, each in sorted(extras.items())},
        "Devices": _devices(problem),
        "PAD_HOME": _home(problem),
        "Hub and keys": _hub(),
    }
    problems.sort(key=lambda each: not each["needed"])
    return {**report, "problems": problems, "well": not any(each["needed"] for each in problems)}


def _packages(problem: Problem) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Versions of what the installed distribution requires, and of what each extra requires."""
    from importlib.metadata import PackageNotFoundError, requires, version  # slow: it brings Python's `email`

    from packaging.requirements import Requirement

    packages, extras = {"pad-cli": version("pad-cli")}, dict[str, dict[str, str]]()
    for each in map(Requirement, requires("pad-cli") or []):
        extra = "".join(re.findall(r'extra == "(.+?)"', str(each.marker)))
        if extra in _DEVELOPERS or (each.marker is not None and not each.marker.evaluate({"extra": extra})):
            continue
        try:
            current = version(each.name)
        except PackageNotFoundError:
            current = ""
        (extras.setdefault(extra, {}) if extra else packages)[each.name] = current or "(missing)"
        fits = current and each.specifier.contains(current, prereleases=True)
        if not fits and (current or not extra):
            wanted, state = f"{each.name}{each.specifier}", f"is {current}" if current else "is not installed"
            problem(f"{each.name} {state}, but pad needs {wanted}.", f'pip install "{wanted}"', needed=not extra)
    return packages, extras


def _devices(problem: Problem) -> dict[str, str]:
    memory = psutil.virtual_memory()
    devices = {"CPU": f"{os.cpu_count()} cores, {size(memory.total)} of memory, {size(memory.available)} free"}
    try:
        from pad_cli.models.dtype import built_for, choices, gpus
    except Exception as error:  # whatever a broken installation of torch raises
        problem(f"torch cannot be imported: {error}", "pip install --force-reinstall torch")
        return {**devices, "GPU": "not known without torch"}
    devices |= gpus() or {"GPU": f"none (this torch is built for {built_for()})"}
    if "GPU" in devices and shutil.which("nvidia-smi"):
        fix = "nvidia-smi" if built_for().startswith("CUDA") else "pip install --force-reinstall torch"
        problem(f"There is an NVIDIA driver, but torch, built for {built_for()}, cannot use a GPU.", fix, needed=False)
    for device, dtypes in choices().items():
        for own, choice in dtypes.items():
            if own != "float32":
                reason = f": {choice['reason']}" if choice["reason"] else ""
                devices[f"{own} on {device}"] = f"loaded as {choice['dtype']} (dtype: auto){reason}"
    return devices


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
