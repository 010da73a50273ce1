"""Bad requests get the API's own error and the server lives; so it does when clients are slow, leave, or are many."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from pad_cli import Limits, PadEngine
from tests.server.conftest import Serve, Server
from tests.tiny import make_language_model, make_reward_model, make_tokenizer

HI: Any = [{"role": "user", "content": "Hi"}]
ASK = {"model": "pad/humorous", "messages": HI}


def changed(**keys: Any) -> dict[str, Any]:
    return {**ASK, **keys}


def lives(server: Server) -> bool:
    return server.post(changed(max_tokens=2))[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b'{"model": "pad", "messages": [', 400, "invalid_json", None),
        (b"\xff\xfe", 400, "invalid_json", None),
        (b"[]", 400, "invalid_json", None),
        (b'{"a": ' * 100_000, 400, "invalid_json", None),
        (b'{"model": "pad", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, "invalid_json", None),
        (b'{"model": "pad", "temperature": NaN}', 400, "invalid_json", None),
        ({"messages": HI}, 400, "missing_parameter", "model"),
        ({"model": "pad"}, 400, "missing_parameter", "messages"),
        (changed(model=3), 400, "invalid_value", "model"),
        (changed(model="gpt-4o"), 404, "model_not_found", "model"),
        (changed(model="pad/humerous"), 404, "model_not_found", "model"),
        (changed(model="pad/"), 404, "model_not_found", "model"),
        (changed(model="pad/@nobody"), 404, "model_not_found", "model"),
        (changed(model="pad/@../../secret"), 404, "model_not_found", "model"),
        (changed(messages=[]), 400, "invalid_value", "messages"),
        (changed(messages=[{"role": "user", "content": 7}]), 400, "invalid_value", "messages.0"),
        (changed(messages=[{"role": "tool", "content": "x"}]), 400, "invalid_value", "messages.0"),
        (changed(messages=[{"role": "user", "content": " "}]), 400, "invalid_value", "messages"),
        (changed(temprature=1), 400, "unknown_parameter", "temprature"),
        (changed(temperature="hot"), 400, "invalid_value", "temperature"),
        (changed(temperature=3), 400, "invalid_value", "temperature"),
        (changed(max_tokens=0), 400, "invalid_value", "max_tokens"),
        (changed(max_tokens=True), 400, "invalid_value", "max_tokens"),
        (changed(messages=[{"role": "user", "content": "a" * 300}]), 400, "context_length_exceeded", "messages"),
        (changed(n=33), 400, "invalid_value", "n"),
        (changed(stop=["a"] * 5), 400, "invalid_value", "stop"),
        (changed(stop=""), 400, "invalid_value", "stop.0"),
        (changed(logprobs=True), 400, "unsupported_parameter", "logprobs"),
        (changed(tools=[{"type": "function"}]), 400, "unsupported_parameter", "tools"),
        (changed(pad={"preference": "humerous"}), 400, "unknown_preference", "pad.preference"),
        (changed(pad={"preference": "humorous=x"}), 400, "unknown_preference", "pad.preference"),
        (changed(pad={"preference": {"humorous": "much"}}), 400, "unknown_preference", "pad.preference"),
        (changed(pad={"preference": "x" * 3000}), 400, "invalid_value", "pad.preference.0"),
        (changed(pad={"preferences": "humorous"}), 400, "unknown_parameter", "pad.preferences"),
        (changed(pad=[]), 400, "invalid_value", "pad"),
        (changed(model="base", pad={"preference": "humorous"}), 400, "invalid_value", "pad.preference"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(
    serve: Serve, body: bytes | dict[str, Any], status: int, code: str, param: str | None
) -> None:
    server = serve()
    found, content = server.post(body)
    error = content["error"]
    assert (found, error["code"], error["param"]) == (status, code, param), error
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert lives(server)


def test_neutral_values_and_unused_keys_of_the_api_are_taken(serve: Serve) -> None:
    taken = {"frequency_penalty": 0, "logit_bias": {}, "user": "me", "metadata": {"a": "b"}, "tools": [], "seed": None}
    assert serve().post(changed(max_tokens=2, **taken))[0] == 200


def test_an_unknown_path_or_method_is_refused_in_the_apis_shape(serve: Serve) -> None:
    server = serve()
    status, content = server.post({}, "/v1/completions")
    assert (status, content["error"]["code"]) == (404, "no_such_route")
    assert "/v1/chat/completions" in content["error"]["message"]
    assert server.post({}, "/v1/models")[0] == 405
    assert server.post({}, "/v1/models")[1]["error"]["message"] == "POST /v1/models: Method Not Allowed."


def test_a_body_that_is_too_large_is_refused(serve: Serve) -> None:
    server = serve(Limits(max_body=1000))
    status, content = server.post(b" " * 2000)
    assert (status, content["error"]["code"]) == (413, "request_too_large")
    assert lives(server)


def test_a_client_that_is_slow_to_ask_is_dropped(serve: Serve) -> None:
    server = serve(Limits(read_timeout=0.3))
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")
    assert lives(server)


def test_a_client_that_leaves_while_it_asks_is_no_fault_of_ours(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    server = serve()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert lives(server)
    assert not caplog.records


@pytest.fixture
def decoded() -> list[int]:
    """The number of tokens of each batch that the slow engine decodes."""
    return []


@pytest.fixture
def slow(policy: Any, reward_model: Any, monkeypatch: pytest.MonkeyPatch, decoded: list[int]) -> PadEngine:
    """An engine that takes a while for each token, as a large model does."""
    engine = PadEngine(policy, reward_model)
    steps_of = engine.steps

    def steps(*arguments: Any) -> Any:
        decoded.append(0)
        for step in steps_of(*arguments):
            time.sleep(0.05)
            decoded[-1] += 1
            yield step

    monkeypatch.setattr(engine, "steps", steps)
    return engine


def test_a_full_queue_refuses_and_takes_again_when_there_is_room(serve: Serve, slow: PadEngine) -> None:
    server = serve(Limits(max_batch=1, max_queue=1, batch_wait=0), engine=slow)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: server.post(ASK), range(8)))
    statuses = sorted(status for status, _ in found)
    assert set(statuses) == {200, 429}
    assert {content["error"]["code"] for status, content in found if status == 429} == {"queue_full"}
    assert lives(server)
    with pytest.raises(openai.RateLimitError) as refused, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: server.client().chat.completions.create(model="pad", messages=HI), range(8)))
    assert refused.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_is_given_up(serve: Serve, slow: PadEngine, stream: bool) -> None:
    server = serve(Limits(timeout=0.3, max_batch=1, batch_wait=0), engine=slow)
    if stream:
        with pytest.raises(openai.APIError, match=r"No answer within 0\.3 s") as given_up:
            list(server.client().chat.completions.create(**changed(stream=True)))
        assert given_up.value.code == "timeout"
    else:
        status, content = server.post(ASK)
        assert (status, content["error"]["code"]) == (504, "timeout")
    assert lives(server)


def test_one_that_waits_too_long_is_not_begun(serve: Serve, slow: PadEngine, decoded: list[int]) -> None:
    server = serve(Limits(timeout=0.5, max_batch=1, batch_wait=0), engine=slow)
    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda _: server.post(ASK)[0], range(4)))
    assert statuses == [504] * 4
    assert server.settles("running", 0)
    assert len(decoded) < 4


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place(serve: Serve, slow: PadEngine, stream: bool, decoded: list[int]) -> None:
    server = serve(Limits(max_batch=1), engine=slow)
    body = json.dumps(changed(stream=stream)).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        if stream:
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        assert server.settles("running", 1)
    assert server.settles("running", 0)
    assert sum(decoded) < 24


def test_a_batch_that_fails_is_those_requests_end_only(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    policy: Any,
    reward_model: Any,
) -> None:
    engine = PadEngine(policy, reward_model)
    steps_of, broken = engine.steps, threading.Event()

    def steps(*arguments: Any) -> Any:
        if broken.is_set():
            raise RuntimeError("out of memory")
        return steps_of(*arguments)

    monkeypatch.setattr(engine, "steps", steps)
    server = serve(engine=engine)
    broken.set()
    status, content = server.post(ASK)
    assert (status, content["error"]["type"], content["error"]["code"]) == (500, "server_error", "internal_error")
    assert "memory" not in content["error"]["message"]
    assert "out of memory" in caplog.text
    broken.clear()
    assert lives(server)


def test_what_is_under_way_may_end_when_the_server_stops(serve: Serve, slow: PadEngine) -> None:
    server = serve(Limits(max_batch=1, grace=20), engine=slow)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(server.post, ASK) for _ in range(2)]
        assert server.settles("waiting", 1)
        server.server.should_exit = True
        assert [future.result(30)[0] for future in asked] == [200, 200]


def test_those_whose_time_is_up_when_the_server_stops_are_told(serve: Serve, slow: PadEngine) -> None:
    server = serve(Limits(max_batch=1, grace=0.2), engine=slow)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(server.post, changed(max_tokens=200)) for _ in range(3)]
        assert server.settles("waiting", 2)
        server.server.should_exit = True
        found = [future.result(30) for future in asked]
    assert {(status, content["error"]["code"]) for status, content in found} == {(503, "shutting_down")}


def test_a_failure_of_our_own_is_an_error_of_the_api(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve()

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("pad_cli.server.request_reader.RequestReader.work", broken)
    status, content = server.post(ASK)
    assert (status, content["error"]["code"]) == (500, "internal_error")


def test_a_key_is_asked_for_everywhere_but_at_the_health_check(serve: Serve) -> None:
    server = serve(api_key="sesame")
    assert server.health() == {"status": "ok", "waiting": 0, "running": 0}
    for wrong in ("", "open", "sesame2", "sésame"):
        status, content = 0, {}
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            head = f"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {wrong}\r\n\r\n"
            client.sendall(head.encode())
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        status = int(answer.split()[1])
        content = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert (status, content["error"]["code"]) == (401, "invalid_api_key")
    assert server.post(ASK)[0] == 401
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x/health?\r\nConnection: close\r\n\r\n")
        assert client.recv(100).split()[1] != b"200"
    names = [model.id for model in server.client(api_key="sesame").models.list()]
    assert "pad" in names


def test_a_chat_template_that_refuses_is_quoted_and_takes_a_system_message_in_the_users_turn(serve: Serve) -> None:
    tokenizer = make_tokenizer(chat=False)
    tokenizer.chat_template = (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Roles must alternate') }}{% endif %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    policy = make_language_model(tokenizer, seed=0)
    server = serve(engine=PadEngine(policy, make_reward_model(policy)))
    status, body = server.post(changed(messages=[*HI, *HI]))
    assert (status, body["error"]["param"]) == (400, "messages")
    assert "refuses a conversation of user, user: Roles must alternate" in body["error"]["message"]
    system = {"role": "system", "content": "Be kind."}
    answers = [
        server.post(changed(messages=messages, max_tokens=4))
        for messages in ([system, *HI], [{"role": "user", "content": "Be kind.\n\nHi"}])
    ]
    assert [status for status, _ in answers] == [200, 200]
    assert answers[0][1]["choices"] == answers[1][1]["choices"]
