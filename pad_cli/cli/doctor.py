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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import typer

from pad_cli.cli.options import Json, Quiet
from pad_cli.cli.tables import print_facts
from pad_cli.system.progress import size, stage
from pad_cli.system.terminal import say, say_json

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
    say_json(report) if as_json else _show(report)
    if not report["well"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """What `pad doctor --json` prints; `well` is false where something is missing that pad cannot work without."""
    from huggingface_hub import constants, get_token

    from pad_cli.system.runs import hidden_states, home

    memory = psutil.virtual_memory()
    existing = next(path for path in (home(), *home().absolute().parents) if path.exists())
    torch, failure = _ask_torch()
    report = {
        "pad": _version("pad-cli") or "not installed",
        "python": platform.python_version(),
        "system": f"{platform.system()}-{platform.machine()}",
        "packages": list(_packages()),
        "cores": os.cpu_count() or 1,
        "memory": [memory.total, memory.available],
        "torch": torch,
        "home": str(home()),
        "writable": os.access(existing, os.W_OK) and existing.is_dir(),
        "free": shutil.disk_usage(existing).free,
        "hidden_states": _stored(hidden_states()),
        "hub": _stored(Path(constants.HF_HUB_CACHE)),
        "offline": bool(constants.HF_HUB_OFFLINE),
        "secrets": {"HF_TOKEN": get_token() is not None, **{name: bool(os.environ.get(name)) for name in _KEYS}},
    }
    problems = [{"what": what, "fix": fix, "needed": needed} for what, fix, needed in _problems(report, failure)]
    report["problems"] = sorted(problems, key=lambda problem: not problem["needed"])
    report["well"] = not any(problem["needed"] for problem in problems)
    return report


def _ask_torch() -> tuple[dict[str, Any] | None, str]:
    """What torch reports, or the last line of its failure."""
    command = [sys.executable, "-c", _ASK_TORCH]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return None, f"not done after {_PATIENCE} seconds"
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return json.loads(done.stdout.splitlines()[-1]), ""


def _packages() -> Iterator[dict[str, Any]]:
    """What the installed distribution requires, and for which extra."""
    from importlib.metadata import PackageNotFoundError, requires  # slow: it brings Python's `email`

    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(line) for line in requires("pad-cli") or []]
    except PackageNotFoundError:
        return
    for each in requirements:
        extra = "".join(re.findall(r'extra == "(.+?)"', str(each.marker)))
        if extra not in _DEVELOPERS and (each.marker is None or each.marker.evaluate({"extra": extra})):
            installed = _version(each.name)
            fits = installed is not None and each.specifier.contains(installed, prereleases=True)
            package = {"name": each.name, "wanted": str(each.specifier), "installed": installed}
            yield {**package, "extra": extra, "fits": fits}


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _problems(report: dict[str, Any], torch_failure: str) -> Iterator[tuple[str, str, bool]]:
    """What is wrong, the command that mends it, and whether pad cannot work without."""
    if not report["packages"]:
        yield "The package pad-cli is not installed, so what it needs is not known.", "pip install pad-cli", True
    for each in report["packages"]:
        if not each["fits"] and (not each["extra"] or each["installed"]):
            state = f"is {each['installed']}" if each["installed"] else "is not installed"
            requirement = f"{each['name']}{each['wanted']}"
            what = f"{each['name']} {state}, but pad needs {requirement}."
            yield what, f'pip install "{requirement}"', not each["extra"]
    torch = report["torch"]
    if torch is None:
        yield f"torch cannot be imported: {torch_failure}", "pip install --force-reinstall torch", True
    elif not torch["gpus"] and shutil.which("nvidia-smi"):
        what = f"There is an NVIDIA driver, but torch, built for {torch['cuda'] or 'the CPU'}, cannot use a GPU."
        yield what, "nvidia-smi" if torch["cuda"] else "pip install --force-reinstall torch", False
    if not report["writable"]:
        yield f"PAD_HOME, {report['home']}, cannot be written.", "export PAD_HOME=/another/directory", True
    if report["free"] < _LITTLE:
        what = f"Only {size(report['free'])} are free for PAD_HOME, {report['home']}."
        yield what, f"rm -r {report['hidden_states']['path']}", False


def _stored(directory: Path) -> dict[str, Any]:
    sizes = [path.stat().st_size for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return {"path": str(directory), "files": len(sizes), "bytes": sum(sizes)}


def _show(report: dict[str, Any]) -> None:
    packages = {each["name"]: each["installed"] or "missing" for each in report["packages"] if not each["extra"]}
    print_facts(f"pad {report['pad']}", {"Python": report["python"], "system": report["system"], **packages}.items())
    extras: dict[str, list[str]] = {}
    for each in report["packages"]:
        if each["extra"]:
            extras.setdefault(each["extra"], []).append(f"{each['name']} {each['installed'] or '(not installed)'}")
    print_facts("Extras", [(name, ", ".join(extras[name])) for name in sorted(extras)])
    print_facts("Devices", _devices(report))
    states, hub = (
        f"{size(report[key]['bytes'])} in {report[key]['files']:,} files" for key in ("hidden_states", "hub")
    )
    place = f"{report['home']}, {'' if report['writable'] else 'not '}writable, {size(report['free'])} free"
    print_facts("PAD_HOME", {"place": place, "hidden states": states}.items())
    keys = {name: "set" if there else "none" for name, there in report["secrets"].items()}
    cache = f"{report['hub']['path']}: {hub}{', offline (HF_HUB_OFFLINE)' if report['offline'] else ''}"
    print_facts("Hub and keys", {"cache": cache, **keys}.items())
    rows = [("", f"{problem['what']}\n{problem['fix']}") for problem in report["problems"]]
    print_facts("Problems, each with the command that mends it", rows) if rows else say("No problems.")


def _devices(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    total, free = report["memory"]
    yield "CPU", f"{report['cores']} cores, {size(total)} of memory, {size(free)} free"
    torch = report["torch"]
    if torch is None:
        yield "GPU", "not known without torch"
        return
    for number, card in enumerate(torch["gpus"]):
        yield f"cuda:{number}", f"{card['name']}, {size(card['bytes'])}"
    if not torch["gpus"]:
        yield "GPU", "mps" if torch["mps"] else f"none (this torch is built for {torch['cuda'] or 'the CPU alone'})"
    for device, dtypes in torch.get("dtypes", {}).items():
        for own, choice in dtypes.items():
            if own != "float32":
                reason = f": {choice['reason']}" if choice["reason"] else ""
                yield f"{own} on {device}", f"loaded as {choice['dtype']} (dtype: auto){reason}"
