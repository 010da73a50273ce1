"""Every exit code that `pad --help` promises occurs, and means what it says there."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.test_commands import pad, shell

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_help_and_readme_name_the_same_codes() -> None:
    told = " ".join(pad("--help").stdout.split())
    codes = re.findall(r"\b(\d+) (?:success|failure|usage error|interrupted|terminated)", told)
    assert codes == ["0", "1", "2", "130", "143"]
    section = README.partition("## Exit codes")[2].partition("\n## ")[0]
    assert all(re.search(rf"\b{code}\b", section) for code in codes)


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ["recipe", "check", "embedded"]),
        (1, ["inspect", "./nowhere"]),
        (2, ["recipe", "check", "nowhere"]),
        (2, ["generate", "--weight", "much", "x"]),
        (2, ["nonsense"]),
    ],
)
def test_the_code_says_whether_and_whose_fault(code: int, arguments: list[str]) -> None:
    done = shell(*arguments)
    assert done.returncode == code, done.stderr.decode()
    assert (done.stdout == b"") == (code != 0)
    assert (done.stderr == b"") == (code == 0)
    assert b"Traceback" not in done.stderr


WAITING = """
import pathlib, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born deaf to it

class Input:
    def read(self):
        pathlib.Path(sys.argv[1]).touch()
        return sys.__stdin__.read()

sys.stdin = Input()
from pad_cli.cli.main import app
app(["generate", "-"])
"""


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    """While the command waits for its prompt, on a standard input that stays open."""
    ready = tmp_path / "ready"
    with subprocess.Popen(
        [sys.executable, "-c", WAITING, str(ready)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        while not ready.exists() and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130, said.decode()
    assert b"Run the same command again to continue" in said
    assert b"Traceback" not in said
