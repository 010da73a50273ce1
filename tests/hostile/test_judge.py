"""Whatever a judge replies, and whatever a run holds, judging ends with figures or with a word of why not."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pad_cli.endpoint.client import Chat, Endpoint, Reply, UnansweredError
from pad_cli.errors import EndpointError, PadError
from pad_cli.evaluation.judge.judging import judge, plan_judging
from pad_cli.evaluation.judge.questions import UnparsedVerdictError, read_verdict
from pad_cli.evaluation.outputs import write_pages
from pad_cli.recipe import JudgeSettings
from tests.cli.test_commands import pad
from tests.evaluation.judge.server import Handler, JudgeServer
from tests.hostile.budget import examples, fuzzed, tried
from tests.hostile.conftest import World

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "usage", "prompt_tokens", "error", "x"]), inner
        )
    ),
    max_leaves=8,
)
VERDICT = {"reason": "r", "winner": "first"}
REPLIES = st.text(max_size=40) | JSON.map(json.dumps) | st.sampled_from(["```json\n", "<think>", "</think>", "{", "}"])
GOOD = {"choices": [{"message": {"role": "assistant", "content": json.dumps(VERDICT)}}]}


@fuzzed
@given(reply=REPLIES | st.lists(REPLIES, max_size=4).map("".join))
@example(reply=json.dumps(VERDICT))
@example(reply="[" * 100_000)
@example(reply="<think>" * 5000)
@example(reply="```\n" * 20_000)
@example(reply=" " * 100_000 + "x")
@example(reply='{"reason": "r", "winner": "first", "winner": "second"}')
@example(reply='{"reason": "\\ud800", "winner": "first"}')
@example(reply='{"reason": 1' + "0" * 5000 + ', "winner": "first"}')
@example(reply="\x00\x1b]0;evil\x07")
def test_a_reply_is_a_verdict_or_is_not(reply: str) -> None:
    try:
        found = read_verdict(reply)
    except UnparsedVerdictError:
        return
    json.dumps(found).encode()
    assert set(found) == {"reason", "winner"}


@pytest.fixture(scope="module")
def server() -> Iterator[JudgeServer]:
    with JudgeServer(lambda material: "") as running:
        yield running


def ask(server: JudgeServer, status: int, body: bytes, headers: dict[str, str]) -> Reply | str:
    """One question whose answer is these bytes."""

    def answer(handler: Handler) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    async def once() -> Reply:
        settings = JudgeSettings(model="m", base_url=server.address, attempts=1, timeout=5)
        async with Chat(settings, Endpoint(server.address, "")) as chat:
            return await chat.ask(({"role": "user", "content": "?"},), 1)

    server.faults.append(answer)
    try:
        return asyncio.run(once())
    except (UnansweredError, EndpointError) as error:
        return str(error)
    finally:
        server.faults.clear()


@examples(25)
@given(
    status=st.sampled_from([200, 200, 200, 204, 301, 400, 401, 404, 418, 422, 429, 500, 503]),
    body=st.binary(max_size=40)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.just(json.dumps(GOOD).encode()),
    headers=st.dictionaries(
        st.sampled_from(["Retry-After", "Location", "Content-Encoding", "x-ratelimit-reset"]),
        st.sampled_from(["", "0", "-1", "soon", "1e9", "nan", "inf", "9" * 400, "gzip", "br", "http://127.0.0.1:1/"]),
        max_size=1,
    ),
)
@example(status=200, body=b"[" * 50_000, headers={})
@example(status=200, body=b'{"choices": []}', headers={})
@example(status=200, body=b'{"choices": [{"message": {"content": null}}]}', headers={})
@example(status=200, body=b'{"choices": [{"message": {}}], "usage": {"prompt_tokens": -1}}', headers={})
@example(status=200, body=b"\xff", headers={"Content-Type": "application/json; charset=utf-16"})
@example(status=200, body=b"not gzip", headers={"Content-Encoding": "gzip"})
@example(status=200, body=b"{}", headers={"Content-Type": "text/html; charset=nonsense"})
@example(status=400, body=b'{"error": "max_tokens"}', headers={})
@example(status=400, body=b'{"error": {"message": ["response_format"]}}', headers={})
@example(status=401, body=b'{"error": []}', headers={})
@example(status=429, body=b"", headers={"Retry-After": "nan"})
@example(status=429, body=b"", headers={"Retry-After": "inf"})
@example(status=429, body=b"", headers={"Retry-After": "9" * 400})
def test_a_judges_server_answers_or_is_said_not_to(
    status: int, body: bytes, headers: dict[str, str], server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    found = ask(server, status, body, headers)
    assert isinstance(found, Reply) or found


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-test")
    judged = {"model": "m", "base_url": "http://127.0.0.1:9/v1", "attempts": 1}
    assert pad(*world.evaluate(judge=judged), "-q").exit_code == 0
    return world.root / "run"


FIGURES = ("report.json", "outputs.json", "costs.json")
FILES = ("recipe.json", "answered.json", "answers.jsonl", "judge.jsonl", *FIGURES)


@examples(25)
@given(
    name=st.sampled_from(FILES),
    start=st.integers(0, 300),
    cut=st.integers(0, 30),
    piece=st.binary(max_size=8) | st.sampled_from([b"null", b"{}", b"[]", b"1", b'"x"', b"NaN"]),
)
@example(name="recipe.json", start=0, cut=10**6, piece=b"[]")
@example(name="recipe.json", start=0, cut=10**6, piece=b"{")
@example(name="recipe.json", start=0, cut=10**6, piece=b'{"decoding": []}')
@example(name="answered.json", start=0, cut=10**6, piece=b"[]")
@example(name="answered.json", start=192, cut=27, piece=b"{}")
@example(name="answers.jsonl", start=0, cut=10**6, piece=b'{"key": "k"}\n')
@example(name="judge.jsonl", start=0, cut=10**6, piece=b'{"key": "k"}\n')
@example(name="judge.jsonl", start=0, cut=10**6, piece=b"[" * 5000 + b"\n")
@example(name="report.json", start=0, cut=10**6, piece=b"[]")
@example(name="costs.json", start=0, cut=10**6, piece=b"{}")
def test_a_runs_files_are_understood_or_refused(
    name: str, start: int, cut: int, piece: bytes, run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = Path(shutil.copytree(run, tmp_path_factory.mktemp("run") / "copied"))
    whole = (directory / name).read_bytes() if (directory / name).exists() else b""
    (directory / name).write_bytes(whole[:start] + piece + whole[start + cut :])
    plan, _ = tried(lambda: plan_judging(directory), PadError)
    if plan is not None:
        tried(lambda: judge(plan), PadError)


PLACES = st.lists(st.integers(0, 30), max_size=6)


def replaced(whole: Any, place: list[int], value: Any) -> Any:
    """The same with a value in place of that which this way leads to, at each step to the child of that number."""
    if not place or not isinstance(whole, dict | list) or not whole:
        return value
    keys = list(whole) if isinstance(whole, dict) else range(len(whole))
    key = keys[place[0] % len(keys)]
    copied: Any = whole.copy()
    copied[key] = replaced(whole[key], place[1:], value)
    return copied


@examples(25)
@given(name=st.sampled_from(FIGURES), place=PLACES, value=JSON)
@example(name="report.json", place=[0], value=None)
@example(name="report.json", place=[4], value=[])
@example(name="report.json", place=[4], value=[{"scorer": {}}])
@example(name="outputs.json", place=[3], value=[{}])
@example(name="costs.json", place=[], value=[{}])
@example(name="costs.json", place=[0, 3], value="long")
def test_a_runs_figures_are_understood_or_refused(
    name: str, place: list[int], value: Any, run: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = Path(shutil.copytree(run, tmp_path_factory.mktemp("figures") / "copied"))
    whole = json.loads((directory / name).read_text())
    (directory / name).write_text(json.dumps(replaced(whole, place, value)))
    _, error = tried(lambda: write_pages(directory), PadError)
    assert error is None or "pad eval" in str(error.hint)


def test_the_run_is_judged_when_nothing_is_changed(run: Path) -> None:
    plan: Any = plan_judging(run)
    assert plan.waiting
