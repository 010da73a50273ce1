"""A judge served by transformers itself: a tiny random model, whose gibberish shows that the way to it works."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pad_cli.endpoint.asking import LOST
from pad_cli.evaluation.judge.judging import judge, plan_judging
from tests.evaluation.judge.conftest import WriteRun, _environment, _no_network, write_run

pytestmark = pytest.mark.slow
__all__ = ["_environment", "_no_network", "write_run"]

PAD = {f"Question {number}?": f"answer {number}" for number in range(3)}
BASE = {prompt: f"plain {text}" for prompt, text in PAD.items()}


@pytest.fixture
def address(model_directory: Path, tmp_path: Path) -> Iterator[str]:
    """Of `transformers serve`, run as a user runs it."""
    pytest.importorskip("fastapi", reason="transformers serve needs fastapi")
    pytest.importorskip("uvicorn", reason="transformers serve needs uvicorn")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    program = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    options = ["serve", str(model_directory), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", program, *options],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        _wait(server, port, tmp_path / "server.log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(20)


def _wait(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    pytest.fail(log.read_text())


def test_transformers_serve_is_a_judge(
    write_run: WriteRun,
    address: str,
    model_directory: Path,
) -> None:
    settings = {
        "model": str(model_directory),
        "base_url": address,
        "max_tokens": 16,
        "input_price": 1.0,
        "output_price": 1.0,
    }
    run = write_run(BASE, PAD, settings)
    report = judge(plan_judging(run))
    row = report["pairwise"][0]
    assert (row["unparsed"], row["n"], row["failed"], row["missing"]) == (3, 0, 0, 0)
    assert report["complete"]
    assert report["cost"]["questions"] == 6
    assert 0 < report["cost"]["tokens_out"] <= 6 * 16
    plan = plan_judging(run)
    replies = [row for row in plan.log.done.values() if row["mode"] != LOST]
    assert len(replies) == 6
    assert all(row["reply"] and row["problem"] for row in replies)
    assert plan.waiting == 0
