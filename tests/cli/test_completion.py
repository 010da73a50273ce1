"""What a shell offers: fast, without torch, silent on errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _with_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "me.yaml").write_text("weights: {concise: 1.0}\n")


def offered(line: str) -> str:
    """What bash is offered for the last word; the process must not have imported torch, nor say anything else."""
    program = (
        "import sys\n"
        "sys.argv = ['pad']\n"
        "from pad_cli.cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    words = line.split(" ")
    variables = {"_PAD_COMPLETE": "complete_bash", "COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **variables}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "[]\n"), done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("pad doc", "doctor"),
        ("pad generate x --temp", "--temperature"),
        ("pad generate x --pref hum", "humorous"),
        ("pad generate x --pref @", "@me"),
        ("pad train-rm re", "real-local"),
        ("pad recipe show gem", "gemma-270m"),
    ],
)
def test_names_are_completed(line: str, found: str) -> None:
    assert found in offered(line).split()
