"""Run directories: files that are whole or absent, logs that survive a crash, and one process at a time.

What cannot be written raises a StorageError.
"""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import hashlib
import json
import os
import platform
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout
from safetensors import SafetensorError

from pad_cli.errors import DataError, StorageError, UsageError
from pad_cli.system.processes import processes
from pad_cli.system.progress import note

RECIPE = "recipe.json"
_LINE = b'{"key": "'  # how each line of a log begins
_PART = ".part-"
_SCRATCH = ".scratch"
_REPORTED_PACKAGES = ("pad-cli", "torch", "transformers", "peft", "trl", "datasets", "tokenizers")


def home() -> Path:
    """Where built things are kept: `$PAD_HOME`, else the platform's cache directory."""
    directory = os.environ.get("PAD_HOME")
    return Path(directory).expanduser() if directory else Path(platformdirs.user_cache_dir("pad"))


def hidden_states() -> Path:
    return home() / "hidden-states"


def fingerprint(content: Any) -> str:
    """Sixteen hexadecimal digits that change when the JSON form of `content` does."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def environment() -> dict[str, str]:
    """Versions that decide a result: Python, the platform, and the packages that compute it."""
    versions = {"python": platform.python_version(), "platform": f"{platform.system()}-{platform.machine()}"}
    for package in _REPORTED_PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write under `path` (read-only, full disk) into a StorageError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StorageError(
            f"Cannot write {path}: {reason}.", "Choose another directory (--out, or PAD_HOME), or free some space."
        ) from error


@contextlib.contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """A scratch directory that becomes `target` when the block ends well, and vanishes when it does not."""
    with _scratch_directory(target) as scratch:
        yield scratch
        _set_usual_permissions(scratch)
        if target.exists():
            shutil.rmtree(target)
        scratch.rename(target)


@contextlib.contextmanager
def whole_files(target: Path, last: str) -> Iterator[Path]:
    """A scratch directory whose files move into `target` when the block ends well; other files there are left alone.

    The file named `last` says that the others are complete: the old one goes first, the new one comes last.
    """
    with _scratch_directory(target / "new") as scratch:
        yield scratch
        _set_usual_permissions(scratch)
        (target / last).unlink(missing_ok=True)
        for path in sorted(scratch.iterdir(), key=lambda path: path.name == last):
            path.replace(target / path.name)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, never sees half of it."""
    data = content.encode() if isinstance(content, str) else content
    scratch = _scratch(path)
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(data)
            scratch.replace(path)
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def check_output(
    target: Path,
    what: str,
    is_own: Callable[[Path], bool],
    *,
    writes: Collection[str] = ("*",),
    folder: bool = True,
    overwrite: bool = False,
) -> bool:
    """Make sure that writing to `target` replaces nothing but earlier output of the same kind.

    Args:
        what: is written there, in words, without an article.
        is_own: recognises earlier output of this kind.
        writes: patterns of the names that may be written into a directory; other files in it stay, and do not matter.
        folder: `target` is to be a directory. One that is empty, but for hidden files, counts as missing.

    Returns:
        Whether `target` holds something else, which `overwrite` allows to replace. A UsageError is raised without.
    """
    if not target.exists():
        return False
    if target.is_dir() != folder:
        kind = "a file, but a directory" if folder else "a directory, but a file"
        raise UsageError(f"'{target}' is {kind} is to be written.", "Name another place: --out")
    names = sorted(path.name for path in target.iterdir() if not path.name.startswith(".")) if folder else []
    in_the_way = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in writes)]
    if (folder and not in_the_way) or is_own(target):
        return False
    if not overwrite:
        holds = f": it holds {', '.join(in_the_way[:3])}{', ...' if len(in_the_way) > 3 else ''}" if folder else ""
        raise UsageError(
            f"{target} exists and is no {what}{holds}.",
            "Name another place with --out, or say --overwrite to replace files that have the same names.",
        )
    return True


def recipe_kind(directory: Path) -> str | None:
    """The kind of recipe whose output a directory is, by its `recipe.json`; None where that says nothing."""
    try:
        return str(json.loads((directory / RECIPE).read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _scratch(target: Path) -> Path:
    """A name beside `target` for what becomes it."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{_SCRATCH}")


@contextlib.contextmanager
def _scratch_directory(target: Path) -> Iterator[Path]:
    """A directory beside `target` while the block runs; unlike tempfile's, with the usual permissions."""
    scratch = _scratch(target)
    with storage_errors(target):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            scratch.mkdir()
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _set_usual_permissions(scratch: Path) -> None:
    """Let others read files as they may elsewhere: safetensors writes for the owner only."""
    for path in scratch.rglob("*"):
        if path.is_file():
            path.chmod(scratch.stat().st_mode & 0o666)


def _remove_scratch(place: Path) -> None:
    """Delete what killed processes were about to write as `place`, or into it; nobody else may be at work there."""
    for folder, name in ((place.parent, glob.escape(place.name)), (place, "*")):
        for path in folder.glob(f".{name}.????????{_SCRATCH}"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


def only_here(place: Path) -> contextlib.AbstractContextManager[None]:
    """While the block runs, no other process begins one for the same file or directory.

    The lock is the operating system's, so it ends with its process, however that ends. It holds on one machine and for
    one `PAD_HOME`, where it lies. Scratch files of a killed process are removed. Several processes that share one job
    count as one: the first of them holds the lock.

    Raises:
        UsageError: another process works there.
        StorageError: `PAD_HOME` cannot be written.
    """
    return _lock(place, f"{place.resolve()}", wait=False) if processes().main else contextlib.nullcontext()


def in_turn(place: Path) -> contextlib.AbstractContextManager[None]:
    """The same, but a second process waits, and says so: for what is built once for all.

    Inside, `place` is free for `only_here`. Several processes that share one job do not wait here, lest they wait for
    each other.
    """
    alone = processes().count == 1
    return _lock(place, f"building {place.resolve()}", wait=True) if alone else contextlib.nullcontext()


@contextlib.contextmanager
def _lock(place: Path, name: str, *, wait: bool) -> Iterator[None]:
    path = home() / "locks" / f"{fingerprint(name)}.lock"
    lock = FileLock(path)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise UsageError(
                    f"Another process is at work in {place}.", "Wait until it has ended, or write elsewhere."
                ) from None
            note(f"Waiting for another process, which builds {place}.")
            lock.acquire()
    try:
        _remove_scratch(place)
        yield
    finally:
        lock.release()


class ResultLog:
    """Append-only JSONL of finished items, each under a key; the way a long job is continued.

    A last line cut short by a crash is dropped when the log is opened; any other damage is reported.

    Args:
        part: of several processes that write at the same time, the name of this one: what it appends goes to a part of
            its own, until `merge_parts`.
        needs: what every row has beside its key.
        check: raises a ValueError, KeyError or TypeError for a row, with its key, that is damaged otherwise.

    Raises:
        DataError: a line inside the file is not JSON, lacks something, or does not pass the check.
        StorageError: the file cannot be read or written.
    """

    def __init__(
        self,
        path: Path,
        part: str = "",
        needs: Sequence[str] = (),
        check: Callable[[Mapping[str, Any]], object] = lambda row: None,
    ) -> None:
        self.path, self._needs, self._check = path, ("key", *needs), check
        self.done: dict[str, dict[str, Any]] = {}
        if path.exists():
            self._recover()
        if part:
            self.path = path.with_name(f"{path.name}{_PART}{part}")

    def append(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        """Write finished items and wait until they are on disk."""
        lines = "".join(_line(key, row) for key, row in rows.items())
        with storage_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(lines)
                file.flush()
                os.fsync(file.fileno())
        self.done.update({key: dict(row) for key, row in rows.items()})

    def _recover(self) -> None:
        with storage_errors(self.path):
            raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                if not isinstance(row["key"], str) or any(name not in row for name in self._needs):
                    raise ValueError("no key, or lacks something")
                self._check(row)
                self.done[row.pop("key")] = row
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
                hint = "Delete the line and run again: it is done anew, all others stay."
                raise DataError("not a result line", path=self.path, line=number, hint=hint) from error
        if len(whole) < len(raw):
            if not _begins_line(raw[len(whole) :]):
                raise DataError("not a result line", path=self.path, hint="It is no log of results: name another file.")
            write_whole(self.path, whole)


def is_log(path: Path) -> bool:
    """Is a file a log of results, also an empty one or one whose first line was cut short?"""
    with path.open("rb") as file:
        return _begins_line(file.read(len(_LINE)))


def _begins_line(raw: bytes) -> bool:
    return raw[: len(_LINE)] == _LINE[: len(raw)]


def merge_parts(path: Path, order: Callable[[Mapping[str, Any]], Any] | None = None) -> None:
    """Merge what several processes wrote into one log; whole or not at all, and doing it again changes nothing.

    `order` sorts the rows, also where there are no parts; by default they stand as they were written, part by part.
    """
    parts = sorted(path.parent.glob(f"{glob.escape(path.name)}{_PART}*"))
    if not parts and order is None:
        return
    rows = written = ResultLog(path).done
    for part in parts:
        rows = {**ResultLog(part).done, **rows}
    merged = sorted(rows.items(), key=lambda each: order(each[1])) if order else list(rows.items())
    if parts or merged != list(written.items()):
        write_whole(path, "".join(_line(key, row) for key, row in merged))
    for part in parts:
        part.unlink()


def _line(key: str, row: Mapping[str, Any]) -> str:
    return json.dumps({"key": key, **row}, ensure_ascii=False) + "\n"
