"""What must hold after a fault: the command, carried out again, ends as if there had been none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pad_cli.models.checkpoint_files import CONFIG, ENCODER, HEADS
from tests.faults.commands import Command, Place, Undisturbed, logs_of

_UNFINISHED = (".work", ".scratch", ".unfinished", ".writing")


@dataclass(frozen=True)
class Finished:
    """Work that is done: the whole lines of logs, and the tensors in `PAD_HOME`, with what says that they stayed."""

    lines: dict[Path, bytes]
    files: dict[Path, int]

    @classmethod
    def of(cls, place: Place) -> Finished:
        logs = {path: path.read_bytes() for path in logs_of(place)}
        files = [path for path in place.home.rglob("*.safetensors") if _is_finished(path)]
        return cls(
            {path: content[: content.rfind(b"\n") + 1] for path, content in logs.items()},
            {path: path.stat().st_ino for path in files},
        )

    def check(self) -> None:
        for path, lines in self.lines.items():
            assert path.read_bytes().startswith(lines), f"finished lines of {path} are gone"
        for path, inode in self.files.items():
            assert path.stat().st_ino == inode, f"{path} was made again"


def _is_finished(path: Path) -> bool:
    """Is it no part of something unfinished? A reward model is finished with its configuration."""
    whole = path.name not in (HEADS, ENCODER) or (path.parent / CONFIG).exists()
    return whole and not any(word in str(path) for word in _UNFINISHED)


def check_again(command: Command, place: Place, undisturbed: Undisturbed) -> None:
    """Carried out again, it ends well, keeps all finished work, and gives the undisturbed results."""
    finished = Finished.of(place)
    ended = command.carry_out(place)
    assert ended.code == 0, ended.err
    finished.check()
    check_results(command, place, undisturbed)


def check_results(command: Command, place: Place, undisturbed: Undisturbed) -> None:
    results = command.results(place)
    differing = sorted(set(results) ^ set(undisturbed.results))
    assert not differing, f"missing or left behind: {differing}"
    differing = [name for name in results if results[name] != undisturbed.results[name]]
    assert not differing, f"not as undisturbed: {differing}"
