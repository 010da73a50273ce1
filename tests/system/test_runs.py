"""Files are whole or absent, and logs survive a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.errors import DataError, StorageError, UsageError
from pad_cli.system import runs
from pad_cli.system.runs import (
    ResultLog,
    check_output,
    fingerprint,
    is_log,
    whole_directory,
    whole_files,
    write_json,
    write_whole,
)


class CrashError(Exception):
    pass


def crash_in(block: AbstractContextManager[Path]) -> None:
    """Write half of what was meant to be written, then fail."""
    with block as scratch:
        (scratch / "a").write_text("half")
        raise CrashError


def write_all(block: AbstractContextManager[Path], names: str) -> None:
    with block as scratch:
        for name in names:
            (scratch / name).write_text("new")


def content(directory: Path) -> dict[str, str]:
    """Everything under a directory, hidden files too."""
    return {str(p.relative_to(directory)): p.read_text() for p in sorted(directory.rglob("*")) if p.is_file()}


def test_a_whole_directory_appears_when_the_block_ends_well(tmp_path: Path) -> None:
    with whole_directory(tmp_path / "deep" / "run") as scratch:
        (scratch / "a").write_text("1")
        assert not (tmp_path / "deep" / "run").exists()
    assert content(tmp_path) == {"deep/run/a": "1"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]


def test_a_whole_directory_replaces_the_old_one_entirely(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with whole_directory(tmp_path / "run") as scratch:
            (scratch / name).write_text(name)
    assert content(tmp_path) == {"run/new": "new"}


def test_a_whole_directory_leaves_nothing_when_the_block_raises(tmp_path: Path) -> None:
    with pytest.raises(CrashError):
        crash_in(whole_directory(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_whole_directory_keeps_the_old_one_when_the_block_raises(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old").write_text("old")
    with pytest.raises(CrashError):
        crash_in(whole_directory(tmp_path / "run"))
    assert content(tmp_path) == {"run/old": "old"}


def test_whole_files_leave_other_files_alone(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    (tmp_path / "a").write_text("old")
    with whole_files(tmp_path, last="z") as scratch:
        (scratch / "a").write_text("new")
        (scratch / "z").write_text("done")
        assert content(tmp_path)["a"] == "old"
    assert content(tmp_path) == {"a": "new", "other": "mine", "z": "done"}
    assert all(path.is_file() for path in tmp_path.iterdir()), "a scratch directory stayed behind"


def test_whole_files_leave_nothing_half_written_when_the_block_raises(tmp_path: Path) -> None:
    before = {"a": "old", "other": "mine", "z": "done"}
    for name, text in before.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(CrashError):
        crash_in(whole_files(tmp_path, last="z"))
    assert content(tmp_path) == before
    assert all(path.is_file() for path in tmp_path.iterdir())


def test_whole_files_never_show_the_last_file_beside_mixed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between two moves leaves no file that says that all is complete."""
    for name in "abz":
        (tmp_path / name).write_text("old")
    real, moves = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        moves.append(Path(target).name)
        if len(moves) == 2:
            raise CrashError
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(CrashError):
        write_all(whole_files(tmp_path, last="a"), "abz")
    assert moves == ["b", "z"]
    assert content(tmp_path) == {"b": "new", "z": "old"}


def test_write_whole_writes_text_and_bytes_and_makes_directories(tmp_path: Path) -> None:
    write_whole(tmp_path / "deep" / "text", "häh")
    write_whole(tmp_path / "bytes", b"\x00\xff")
    assert (tmp_path / "deep" / "text").read_text(encoding="utf-8") == "häh"
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"


def test_write_whole_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "file", "old")

    def full_disk(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(StorageError, match="No space left on device"):
        write_whole(tmp_path / "file", "new")
    assert content(tmp_path) == {"file": "old"}


def test_write_json_reads_back(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"name": "käse", "n": [1, 2.5, None]})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"name": "käse", "n": [1, 2.5, None]}


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_whole(path, "x"),
        lambda path: write_json(path, {}),
        lambda path: write_all(whole_directory(path), ""),
        lambda path: write_all(whole_files(path, last="z"), ""),
        lambda path: ResultLog(path).append({"k": {"v": 1}}),
    ],
    ids=["write_whole", "write_json", "whole_directory", "whole_files", "ResultLog"],
)
@pytest.mark.parametrize("below", ["a", "a/b"])
def test_a_place_that_cannot_be_written_is_a_storage_error(
    tmp_path: Path, write: Callable[[Path], None], below: str
) -> None:
    """The parent is a regular file; that refuses even root."""
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StorageError, match="Cannot write") as caught:
        write(tmp_path / "file" / below)
    assert caught.value.hint
    assert content(tmp_path) == {"file": "not a directory"}


def test_a_log_remembers_what_was_appended(tmp_path: Path) -> None:
    log = ResultLog(tmp_path / "deep" / "log.jsonl")
    assert log.done == {}
    log.append({"a": {"v": 1}, "b": {"v": "zwölf\nlines\r\u2028"}})
    log.append({"c": {"v": None}})
    expected = {"a": {"v": 1}, "b": {"v": "zwölf\nlines\r\u2028"}, "c": {"v": None}}
    assert log.done == expected
    assert ResultLog(log.path).done == expected


def test_a_reopened_log_appends_after_what_is_there(tmp_path: Path) -> None:
    ResultLog(tmp_path / "log").append({"a": {}})
    ResultLog(tmp_path / "log").append({"b": {}})
    assert [json.loads(line)["key"] for line in (tmp_path / "log").read_text().splitlines()] == ["a", "b"]


@given(st.integers(min_value=0))
def test_a_last_line_cut_short_anywhere_is_dropped(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    ResultLog(path).append({"a": {"v": 1}, "b": {"v": "zwölf"}})
    raw = path.read_bytes()
    start = raw.index(b"\n") + 1
    path.write_bytes(raw[: start + cut % (len(raw) - start)])
    log = ResultLog(path)
    assert log.done == {"a": {"v": 1}}
    assert path.read_bytes() == raw[:start]
    log.append({"b": {"v": "zwölf"}})
    assert path.read_bytes() == raw


@pytest.mark.parametrize(
    "line", ["{", "", "17", "null", '"text"', "[]", "[1]", '{"no": "key"}', '{"key": []}', '{"key": {}}', "\udcff"]
)
def test_damage_inside_a_log_names_file_and_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    damage = line.encode("utf-8", "surrogateescape")
    path.write_bytes(b'{"key": "a"}\n' + damage + b'\n{"key": "b"}\n')
    with pytest.raises(DataError) as caught:
        ResultLog(path)
    assert (caught.value.path, caught.value.line) == (str(path), 2)


def test_a_row_that_lacks_something_is_damage_too(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    ResultLog(path).append({"a": {"text": "x"}, "b": {"tex": "y"}})
    assert ResultLog(path).done["b"] == {"tex": "y"}
    with pytest.raises(DataError) as caught:
        ResultLog(path, needs=("text",))
    assert (caught.value.line, caught.value.hint) == (
        2,
        "Delete the line and run again: it is done anew, all others stay.",
    )


def test_a_fingerprint_is_the_same_on_every_machine_and_day() -> None:
    assert fingerprint({"b": [1, 2.5, None], "a": "käse"}) == fingerprint({"a": "käse", "b": [1, 2.5, None]})
    assert fingerprint([]) == "4f53cda18c2baa0c"  # the start of sha256("[]")


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
)


@given(_json, _json)
def test_fingerprints_agree_exactly_when_the_json_does(first: Any, second: Any) -> None:
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (fingerprint(first) == fingerprint(second)) == same


def test_pad_home_is_where_built_things_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAD_HOME", str(tmp_path))
    assert runs.home() == tmp_path
    monkeypatch.delenv("PAD_HOME")
    assert runs.home().name == "pad"


def test_the_environment_names_the_versions_that_decide_a_result() -> None:
    assert {"python", "platform", "pad-cli", "torch", "transformers"} <= set(runs.environment())


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_what_is_written_whole_has_the_permissions_of_other_files(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with whole_directory(tmp_path / "new") as scratch:
            (scratch / "weights").touch(mode=0o600)
        with whole_files(tmp_path / "kept", last="weights") as scratch:
            (scratch / "weights").touch(mode=0o600)
    finally:
        os.umask(before)
    for directory in (tmp_path / "new", tmp_path / "kept"):
        assert directory.stat().st_mode & 0o777 == 0o777 & ~mask
        assert (directory / "weights").stat().st_mode & 0o777 == 0o666 & ~mask


def own(directory: Path) -> bool:
    return (directory / "ours").exists()


def test_output_goes_to_a_place_that_is_missing_empty_or_our_own(tmp_path: Path) -> None:
    for name in ("missing", "empty", "hidden", "own"):
        place = tmp_path / name
        if name != "missing":
            place.mkdir()
        if name in ("hidden", "own"):
            (place / {"hidden": ".DS_Store", "own": "ours"}[name]).touch()
        assert not check_output(place, "run", own)


@pytest.mark.parametrize("name", ["README.md", "notes.txt"])
def test_output_never_goes_among_files_that_are_not_our_own_unless_that_is_asked_for(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("months of notes")
    assert not check_output(tmp_path, "run", own, writes=("report.*", "metrics.json"))
    with pytest.raises(UsageError, match=f"is no run: it holds {name}") as caught:
        check_output(tmp_path, "run", own)
    assert "--overwrite" in caught.value.hint
    assert check_output(tmp_path, "run", own, overwrite=True)


def test_a_file_is_not_taken_for_a_directory_nor_a_directory_for_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, folder in ((tmp_path / "file", True), (tmp_path, False)):
        with pytest.raises(UsageError):
            check_output(place, "run", own, folder=folder, overwrite=True)


def test_a_log_is_known_by_its_first_line_and_no_other_file_is_cut(tmp_path: Path) -> None:
    """A note without an end of line is not a line that a crash cut short."""
    path = tmp_path / "log.jsonl"
    ResultLog(path).append({"a": {"n": 1}})
    assert is_log(path)
    path.write_text('{"key": "b", "n"')
    assert is_log(path)
    assert ResultLog(path).done == {}
    path.write_text("my notes")
    assert not is_log(path)
    with pytest.raises(DataError, match="not a result line"):
        ResultLog(path)
    assert path.read_text() == "my notes"
