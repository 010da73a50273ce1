"""`pad doctor`: what this installation has, what it lacks, and the command that mends it."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pad_cli.cli.options import Json, Quiet
from pad_cli.cli.tables import print_facts
from pad_cli.errors import UsageError
from pad_cli.system.progress import set_quiet, stage
from pad_cli.system.terminal import say, say_json

if TYPE_CHECKING:
    from pad_cli import Examination, Kept


def doctor(
    clean_cache: Annotated[
        bool, typer.Option("--clean-cache", help="Remove cached hidden states, after saying what and how much.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --clean-cache: do not ask first.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what is installed, which devices there are, what is kept where, and how to mend what is missing.

    The exit code is 1 when something is broken that pad cannot work without. Keys are looked for, never shown.
    """
    set_quiet(quiet)
    import pad_cli

    if clean_cache:
        _clean(yes, as_json)
        return
    with stage("Asking torch"):
        found = pad_cli.examine()
    if as_json:
        row = {**dataclasses.asdict(found), "well": found.well}
        say_json(json.loads(json.dumps(row, default=str)))  # paths and dates as text
    else:
        _show(found)
    if not found.well:
        raise typer.Exit(1)


def _clean(yes: bool, as_json: bool) -> None:
    import pad_cli

    kept = pad_cli.kept_hidden_states()
    what = f"the cached hidden states in {kept.path}: {_amount(kept)}"
    if kept.files and not yes:
        sentence = f"This removes {what}. Training computes them again when it needs them."
        if not sys.stdin.isatty():
            raise UsageError(sentence, "Say --yes to go on.")
        typer.confirm(f"{sentence}\nGo on?", abort=True, err=True)
    removed = pad_cli.remove_hidden_states()
    if as_json:
        say_json({"removed_files": removed.files, "removed_bytes": removed.bytes, "path": str(removed.path)})
    elif removed.files:
        say(f"Removed {what}.")
    else:
        say(f"There are no cached hidden states in {kept.path}.")


def _show(found: Examination) -> None:
    print_facts(f"pad {found.pad}", [("Python", f"{found.python}, {found.system}"), *_packages(found)])
    print_facts("Extras", _extras(found))
    print_facts("Devices", _devices(found))
    print_facts("PAD_HOME", _places(found))
    hub = f"{found.hub.path}: {_amount(found.hub)}" + (", offline (HF_HUB_OFFLINE)" if found.offline else "")
    keys = ((name, "there is one" if there else "none") for name, there in found.secrets.items())
    print_facts("Hub and keys", [("cache", hub), *keys])
    if not found.problems:
        say("No problems.")
        return
    rows = [
        row
        for number, problem in enumerate(found.problems, start=1)
        for row in ((f"{number}.", problem.what), ("", problem.fix))
    ]
    print_facts("Problems, each with the command that mends it", rows)


def _packages(found: Examination) -> Iterator[tuple[str, str]]:
    for package in found.packages:
        if not package.extra:
            yield package.name, package.installed or "missing"


def _extras(found: Examination) -> Iterator[tuple[str, str]]:
    for extra in sorted({package.extra for package in found.packages} - {""}):
        parts = [package for package in found.packages if package.extra == extra]
        if all(part.installed is not None for part in parts):
            yield extra, ", ".join(f"{part.name} {part.installed}" for part in parts)
        else:
            yield extra, f'not installed: pip install "pad-cli[{extra}]"'


def _devices(found: Examination) -> Iterator[tuple[str, str]]:
    total, free = found.memory
    yield "CPU", f"{found.cores} cores, {_size(total)} of memory, {_size(free)} free"
    if found.torch is None:
        yield "GPU", "not known without torch"
        return
    for number, card in enumerate(found.torch["gpus"]):
        yield f"cuda:{number}", f"{card['name']}, {_size(card['bytes'])}"
    if found.torch["mps"]:
        yield "mps", "Apple GPU"
    if not found.torch["gpus"] and not found.torch["mps"]:
        built = f"CUDA {found.torch['cuda']}" if found.torch["cuda"] else "the CPU alone"
        yield "GPU", f"none (this torch is built for {built})"
    for device, dtypes in found.torch.get("dtypes", {}).items():
        for own, choice in dtypes.items():
            if own != "float32":
                reason = f": {choice['reason']}" if choice["reason"] else ""
                yield f"{own} on {device}", f"loaded as {choice['dtype']} (dtype: auto){reason}"


def _places(found: Examination) -> Iterator[tuple[str, str]]:
    yield "place", f"{found.home}, {'writable' if found.writable else 'not writable'}, {_size(found.free)} free"
    for models in found.models:
        yield models.path.name, _amount(models)
    states = found.hidden_states
    yield "hidden states", _amount(states) + (" (pad doctor --clean-cache removes them)" if states.files else "")


def _amount(kept: Kept) -> str:
    if not kept.files or kept.oldest is None or kept.newest is None:
        return "nothing"
    days = f"{kept.oldest:%Y-%m-%d}"
    if kept.newest.date() != kept.oldest.date():
        days += f" to {kept.newest:%Y-%m-%d}"
    return f"{_size(kept.bytes)} in {kept.files:,} files, {days}"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
