"""A teacher behind a server that speaks OpenAI's protocol: `pad serve` itself."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pad_cli import DecodingSettings, Limits, PadEngine
from pad_cli.contrast.source import make_answers
from pad_cli.errors import EndpointError
from pad_cli.models.language_model import LanguageModel
from pad_cli.server.http_server import build_app, make_server
from tests.contrast.conftest import STYLES, options


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this machine may be reached."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def address(teacher: LanguageModel) -> Iterator[str]:
    app = build_app(PadEngine(teacher), DecodingSettings(), Limits())
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        server = make_server(app, Limits())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        server.should_exit = True
        thread.join(30)


def of_server(address: str, **changed: Any) -> Any:
    return options(
        limit=6, min_contrast=None, teacher={"model": "base", "base_url": address, "concurrency": 2, **changed}
    )


@pytest.mark.usefixtures("_no_network")
def test_a_server_writes_answers_and_none_is_asked_for_twice(
    teacher: LanguageModel, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    priced = of_server(address, input_price=1.0, output_price=2.0, max_cost=1.0)
    made = make_answers(STYLES, priced, lambda: teacher, seed=0)
    said = capsys.readouterr().err
    assert "24 requests to base will cost about $" in said
    assert "never more than $1" in said
    assert "This cost $" in said
    assert made.report.rows_used > 0.4 * made.report.rows
    again = make_answers(STYLES, priced, lambda: teacher, seed=0)
    assert again.answers == made.answers
    assert "requests to base" not in capsys.readouterr().err


@pytest.mark.usefixtures("_no_network")
def test_an_aborted_run_ends_with_the_answers_of_a_whole_one(
    teacher: LanguageModel, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each request has a seed of its own, which `pad serve` samples by."""
    whole = make_answers(STYLES, of_server(address), lambda: teacher, seed=0)
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "another"))
    poor = of_server(address, input_price=1000.0, output_price=1000.0, max_cost=1.0)
    with pytest.raises(EndpointError, match="Stopped before"):
        make_answers(STYLES, poor, lambda: teacher, seed=0)
    assert make_answers(STYLES, of_server(address), lambda: teacher, seed=0).answers == whole.answers
    assert make_answers(STYLES, of_server(address), lambda: teacher, seed=1).answers != whole.answers


@pytest.mark.usefixtures("_no_network")
def test_the_budget_ends_the_writing_and_what_was_written_is_kept(teacher: LanguageModel, address: str) -> None:
    poor = of_server(address, input_price=1000.0, output_price=1000.0, max_cost=1.0)
    with pytest.raises(EndpointError, match=r"Stopped before \$1 was exceeded, with (\d+) answers not written"):
        make_answers(STYLES, poor, lambda: teacher, seed=0)
    rich = of_server(address)
    assert make_answers(STYLES, rich, lambda: teacher, seed=0).report.rows == 24


@pytest.mark.usefixtures("_no_network")
def test_a_server_that_is_not_there_is_named(teacher: LanguageModel) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with pytest.raises(EndpointError, match="The teacher failed"):
        make_answers(STYLES, of_server(f"http://127.0.0.1:{port}/v1", attempts=1), lambda: teacher, seed=0)
