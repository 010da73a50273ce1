"""`pad doctor`: what this installation has, what it lacks, and the command that mends it; and cleaning the cache.

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
from typing import Annotated, Any

import psutil
import typer

from pad_cli.cli.options import Json, Quiet, Yes, confirm
from pad_cli.cli.tables import print_facts
from pad_cli.errors import PadError
from pad_cli.system.progress import size, stage
from pad_cli.system.resources import shipped
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


def doctor(
    clean_cache: Annotated[
        bool, typer.Option("--clean-cache", help="Remove cached hidden states, after saying what and how much.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is installed, which devices there are, what is kept where, and how to mend what is missing.

    The exit code is 1 when something is broken that pad cannot work without. Keys are looked for, never shown.
    """
    if clean_cache:
        _clean(yes, as_json)
        return
    with stage("Asking torch"):
        report = examine()
    say_json(report) if as_json else _show(report)
    if not report["well"]:
        raise typer.Exit(1)


def _clean(yes: bool, as_json: bool) -> None:
    from pad_cli.system.runs import hidden_states, storage_errors

    directory = hidden_states()
    cached = _stored(directory)
    content = f"the cached hidden states in {directory}: {_amount(cached)}"
    if cached["files"] and not yes:
        confirm(f"This removes {content}. Training computes them again when it needs them.")
    with storage_errors(directory):
        for path in _files(directory):
            path.unlink(missing_ok=True)
    if as_json:
        say_json({"removed_files": cached["files"], "removed_bytes": cached["bytes"], "path": str(directory)})
    elif cached["files"]:
        say(f"Removed {content}.")
    else:
        say(f"There are no cached hidden states in {directory}.")


def examine() -> dict[str, Any]:
    """Look at packages, devices, directories and keys; nothing is loaded, built, or asked of the network.

    Returns:
        What `pad doctor --json` prints; `well` is false where something is missing that pad cannot work without.
    """
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
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory": [memory.total, memory.available],
        "torch": torch,
        "home": str(home()),
        "writable": os.access(existing, os.W_OK) and existing.is_dir(),
        "free": shutil.disk_usage(existing).free,
        "models": [_stored(path) for path in sorted(home().glob("embedded-*"))],
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
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH], capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
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
        lines = requires("pad-cli") or []
    except PackageNotFoundError:
        lines = []
    for each in map(Requirement, lines):
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
        what = f"There is an NVIDIA driver, but torch, built for {_built_for(torch)}, cannot use a GPU."
        yield what, "nvidia-smi" if torch["cuda"] else "pip install --force-reinstall torch", False
    elsewhere = "export PAD_HOME=/another/directory"
    if not report["writable"]:
        yield f"PAD_HOME, {report['home']}, cannot be written.", elsewhere, True
    if report["free"] < _LITTLE:
        fix = "pad doctor --clean-cache" if report["hidden_states"]["files"] else elsewhere
        yield f"Only {size(report['free'])} are free for PAD_HOME, {report['home']}.", fix, False
    for folder in ("recipes", "data", "data/embedded"):
        try:
            shipped(folder)
        except PadError as error:
            yield error.message, "pip install --force-reinstall pad-cli", True


def _built_for(torch: dict[str, Any]) -> str:
    return f"CUDA {torch['cuda']}" if torch["cuda"] else "the CPU alone"


def _files(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink()]


def _stored(directory: Path) -> dict[str, Any]:
    sizes = [path.stat().st_size for path in _files(directory)]
    return {"path": str(directory), "files": len(sizes), "bytes": sum(sizes)}


def _amount(stored: dict[str, Any]) -> str:
    return f"{size(stored['bytes'])} in {stored['files']:,} files" if stored["files"] else "nothing"


def _show(report: dict[str, Any]) -> None:
    packages = [(each["name"], each["installed"] or "missing") for each in report["packages"] if not each["extra"]]
    print_facts(f"pad {report['pad']}", [("Python", f"{report['python']}, {report['system']}"), *packages])
    print_facts("Extras", _extras(report))
    print_facts("Devices", _devices(report))
    cleaning = " (pad doctor --clean-cache removes them)" if report["hidden_states"]["files"] else ""
    writable = "writable" if report["writable"] else "not writable"
    places = [
        ("place", f"{report['home']}, {writable}, {size(report['free'])} free"),
        *((Path(models["path"]).name, _amount(models)) for models in report["models"]),
        ("hidden states", _amount(report["hidden_states"]) + cleaning),
    ]
    print_facts("PAD_HOME", places)
    offline = ", offline (HF_HUB_OFFLINE)" if report["offline"] else ""
    hub = ("cache", f"{report['hub']['path']}: {_amount(report['hub'])}{offline}")
    print_facts(
        "Hub and keys", [hub, *((name, "set" if there else "none") for name, there in report["secrets"].items())]
    )
    rows = [("", f"{problem['what']}\n{problem['fix']}") for problem in report["problems"]]
    print_facts("Problems, each with the command that mends it", rows) if rows else say("No problems.")


def _extras(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for extra in sorted({each["extra"] for each in report["packages"]} - {""}):
        parts = [each for each in report["packages"] if each["extra"] == extra]
        complete = all(each["installed"] for each in parts)
        versions = ", ".join(f"{each['name']} {each['installed']}" for each in parts)
        yield extra, versions if complete else f'not installed: pip install "pad-cli[{extra}]"'


def _devices(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    total, free = report["memory"]
    yield "CPU", f"{report['cores']} cores, {size(total)} of memory, {size(free)} free"
    torch = report["torch"]
    if torch is None:
        yield "GPU", "not known without torch"
        return
    for number, card in enumerate(torch["gpus"]):
        yield f"cuda:{number}", f"{card['name']}, {size(card['bytes'])}"
    if torch["mps"]:
        yield "mps", "Apple GPU"
    elif not torch["gpus"]:
        yield "GPU", f"none (this torch is built for {_built_for(torch)})"
    for device, dtypes in torch.get("dtypes", {}).items():
        for own, choice in dtypes.items():
            if own != "float32":
                reason = f": {choice['reason']}" if choice["reason"] else ""
                yield f"{own} on {device}", f"loaded as {choice['dtype']} (dtype: auto){reason}"
