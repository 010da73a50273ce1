"""What clients send beside a question: their history, null, keys that ask for nothing, the origin of a page."""

from __future__ import annotations

import http.client
import json
from typing import Any

import openai
import pytest
from openai.types.chat import completion_create_params as chat_params
from starlette.datastructures import Headers

from pad_cli import Limits, PadEngine
from pad_cli.models.heads import PreferenceHeads
from pad_cli.models.reward_model import PersonalizedRewardModel
from pad_cli.server.http_server import _origin
from tests.cli.test_commands import refused
from tests.hostile.scripted import make_scripted
from tests.server.conftest import Serve, Server
from tests.tiny import make_language_model, make_reward_model, make_tokenizer

CHAT = "/v1/chat/completions"
HI: Any = [{"role": "user", "content": "Hi"}]
ASK: dict[str, Any] = {"model": "pad/humorous", "messages": HI, "max_tokens": 8}
KEYS = set(chat_params.CompletionCreateParamsBase.__annotations__) | {"stream"}


def said(server: Server, messages: list[Any], **more: Any) -> str:
    status, content = server.post({"model": "pad/humorous", "messages": messages, "max_tokens": 8, **more})
    assert status == 200, content
    return str(content["choices"][0]["message"]["content"])


def prompt_tokens(server: Server, messages: list[Any], **more: Any) -> int:
    status, content = server.post({"model": "base", "messages": messages, "max_tokens": 1, **more})
    assert status == 200, content
    return int(content["usage"]["prompt_tokens"])


def test_whatever_an_answer_holds_can_be_sent_back(serve: Serve) -> None:
    server = serve()
    answer = server.client().chat.completions.create(model="pad/humorous", messages=HI, max_tokens=8)
    message = answer.choices[0].message
    plain = {"role": "assistant", "content": message.content}
    why = {"role": "user", "content": "Why?"}
    expected = said(server, [*HI, plain, why])
    for form in (
        message.model_dump(),
        message.to_dict(),
        {**plain, "annotations": [], "audio": None, "function_call": None, "tool_calls": []},
        {**plain, "refusal": "", "function_call": {}, "name": "pad", "nobody_knows": 1},
    ):
        assert said(server, [*HI, form, why]) == expected
    again = server.client().chat.completions.create(model="pad/humorous", messages=[*HI, message, why], max_tokens=8)
    assert again.choices[0].message.content == expected


@pytest.mark.parametrize("said_something", ["function_call", "tool_calls"])
def test_a_message_that_calls_a_tool_is_refused(serve: Serve, said_something: str) -> None:
    called = {"role": "assistant", "content": None, said_something: {"id": "1", "name": "clock"}}
    status, content = serve().post({**ASK, "messages": [*HI, called, *HI]})
    assert (status, content["error"]["param"]) == (400, "messages.1")
    assert "tool calls" in content["error"]["message"]


def test_null_asks_for_nothing_in_any_key(serve: Serve) -> None:
    server = serve()
    nulls = dict.fromkeys((KEYS | {"nobody_knows", "pad", "top_k", "chat_template_kwargs"}) - ASK.keys())
    answers = []
    for more in ({}, nulls, {"stream_options": {"include_usage": None, "nobody_knows": None}}):
        status, content = server.post({**ASK, **more})
        assert status == 200, content
        answers.append(content["choices"])
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_a_message_without_content_says_nothing(serve: Serve, role: str) -> None:
    server = serve()
    assert said(server, [{"role": role, "content": None}, *HI]) == said(server, [{"role": role, "content": ""}, *HI])
    status, content = server.post({**ASK, "messages": [{"role": role, "content": None}]})
    assert (status, content["error"]["param"]) == (400, "messages")


def test_every_key_of_the_api_is_known_and_none_is_half_understood(serve: Serve) -> None:
    server = serve()
    odd = {"nobody": "means this"}
    for key in sorted(KEYS - ASK.keys()):
        status, content = server.post({**ASK, key: odd})
        if status != 200:
            assert (content["error"]["code"], content["error"]["param"]) != ("unknown_parameter", key)
            assert content["error"]["param"].startswith(key)
    status, content = server.post({**ASK, "nobody_knows": odd})
    assert (status, content["error"]["code"]) == (400, "unknown_parameter")


NEUTRAL: dict[str, Any] = {
    "frequency_penalty": 0.0,
    "presence_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "top_logprobs": 0,
    "response_format": {"type": "text"},
    "reasoning_effort": "none",
    "tools": [],
    "tool_choice": "auto",
    "functions": [],
    "function_call": "none",
    "modalities": ["text"],
    "parallel_tool_calls": True,
    "service_tier": "auto",
    "store": False,
    "metadata": {"a": "b"},
    "user": "me",
    "safety_identifier": "me",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "prediction": {"type": "content", "content": "Hello"},
    "stop": [],
    "n": 1,
    "top_p": 1,
    "top_k": -1,
    "cache_control": {"type": "ephemeral"},
}
MEANT: dict[str, Any] = {
    "frequency_penalty": 0.5,
    "presence_penalty": -1,
    "logit_bias": {"5": 1},
    "logprobs": True,
    "top_logprobs": 3,
    "response_format": {"type": "json_object"},
    "reasoning_effort": "medium",
    "verbosity": "high",
    "tools": [{"type": "function", "function": {"name": "clock"}}],
    "tool_choice": "required",
    "functions": [{"name": "clock"}],
    "function_call": {"name": "clock"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "web_search_options": {"search_context_size": "low"},
    "moderation": {"model": "m"},
}


def test_what_asks_for_nothing_is_taken_and_changes_no_answer(serve: Serve) -> None:
    server = serve()
    assert said(server, HI, **NEUTRAL) == said(server, HI)


@pytest.mark.parametrize("key", MEANT)
def test_what_would_change_the_answer_is_refused_by_name(serve: Serve, key: str) -> None:
    status, content = serve().post({**ASK, key: MEANT[key]})
    error = content["error"]
    assert (status, error["type"], error["code"], error["param"]) == (
        400,
        "invalid_request_error",
        "unsupported_parameter",
        key,
    )


def test_parts_of_a_message_stand_on_lines_of_their_own(serve: Serve) -> None:
    server = serve()
    parts = [
        {"type": "text", "text": "start", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "with", "nobody_knows": [1]},
    ]
    for role in ("system", "user", "assistant"):
        lines = [{"role": role, "content": "start\nwith"}, *HI]
        assert said(server, [{"role": role, "content": parts}, *HI]) == said(server, lines)


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "text"),
        ({"role": "user", "content": [{"type": "text"}]}, "text"),
        ({"role": "user", "content": 7}, "neither a text nor a list of parts"),
        ({"role": "tool", "content": "x"}, "assistant"),
        ({"content": "x"}, "role"),
    ],
)
def test_a_bad_message_is_told_what_a_message_may_hold(serve: Serve, message: Any, named: str) -> None:
    status, content = serve().post({**ASK, "messages": [message]})
    assert (status, content["error"]["param"]) == (400, "messages.0")
    assert named in content["error"]["message"]


def test_more_tokens_than_there_may_be_are_cut_and_the_reply_says_so(serve: Serve) -> None:
    server = serve(Limits(max_new_tokens=5))
    for key in ("max_tokens", "max_completion_tokens"):
        status, content = server.post({"model": "base", "messages": HI, key: 4096})
        assert (status, content["choices"][0]["finish_reason"]) == (200, "length")
        assert content["usage"]["completion_tokens"] == 5
        assert content["pad"]["max_tokens"] == 5
    assert "max_tokens" not in server.post({"model": "base", "messages": HI, "max_tokens": 5})[1]["pad"]


def test_an_answer_ends_where_the_models_can_read_no_further(serve: Serve) -> None:
    long = [{"role": "user", "content": "a" * 250}]
    status, content = serve().post({"model": "base", "messages": long, "max_tokens": 4096})
    assert (status, content["choices"][0]["finish_reason"]) == (200, "length")
    assert content["usage"]["total_tokens"] == 256


@pytest.fixture
def thinking() -> PadEngine:
    """A model whose template opens a thought unless it is told not to."""
    tokenizer = make_tokenizer()
    tokenizer.chat_template += "{% if not (enable_thinking is defined and not enable_thinking) %}<user>{% endif %}"
    policy = make_language_model(tokenizer, seed=0)
    return PadEngine(policy, make_reward_model(policy))


def test_options_reach_the_chat_template(serve: Serve, thinking: PadEngine) -> None:
    server = serve(engine=thinking)
    told = {"chat_template_kwargs": {"enable_thinking": False}}
    assert prompt_tokens(server, HI) == prompt_tokens(server, HI, **told) + 1
    assert prompt_tokens(server, HI, chat_template_kwargs={"enable_thinking": True, "other": [1]}) == 5
    steered = {"model": "pad/formal", "messages": HI, "max_tokens": 2, **told}
    assert server.post(steered)[1]["usage"]["prompt_tokens"] == 4


@pytest.mark.parametrize("name", ["chat_template", "tokenize", "messages", "add_generation_prompt", "self"])
def test_a_client_does_not_bring_a_template_of_its_own(serve: Serve, name: str) -> None:
    status, content = serve().post({**ASK, "chat_template_kwargs": {name: "{{ 1 }}"}})
    assert (status, content["error"]["param"]) == (400, f"chat_template_kwargs.{name}")


@pytest.fixture
def says(serve: Serve) -> Server:
    """A server whose model goes on from <assistant> with a text in white space."""
    policy = make_scripted("\t sunk\n")
    heads = PreferenceHeads(("formal",), policy.hidden_size, rank=1).eval().requires_grad_(False)
    return serve(engine=PadEngine(policy, PersonalizedRewardModel(policy, heads)))


def test_a_chat_answer_is_trimmed(says: Server) -> None:
    whole = says.client().chat.completions.create(model="base", messages=HI)
    assert whole.choices[0].message.content == "sunk"
    pieces = says.client().chat.completions.create(model="base", messages=HI, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == "sunk"


PAGE = "http://localhost:3000"


def asked_by(server: Server, origin: str, method: str = "POST", path: str = CHAT, **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    body = json.dumps(ASK) if method == "POST" else None
    connection.request(method, path, body, {"Origin": origin, **headers})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status, Headers({name.lower(): value for name, value in response.getheaders()})


def preflight(server: Server, origin: str, headers: str = "") -> Any:
    wanted = {"Access-Control-Request-Method": "POST"}
    if headers:
        wanted["Access-Control-Request-Headers"] = headers
    return asked_by(server, origin, "OPTIONS", **wanted)


def test_a_page_of_an_allowed_origin_may_ask(serve: Serve) -> None:
    server = serve(api_key="sesame", allow_origins=[PAGE, "https://b.example"])
    for names in ("", "authorization,content-type,x-stainless-lang,x-stainless-retry-count"):
        for origin in (PAGE, "https://b.example"):
            status, headers = preflight(server, origin, names)  # without a key, as browsers send it
            assert status == 200
            assert headers["access-control-allow-origin"] == origin
            allowed = {name.strip().lower() for name in headers.get("access-control-allow-headers", "").split(",")}
            assert set(names.split(",")) <= allowed
    for key, path, expected in (("sesame", CHAT, 200), ("wrong", CHAT, 401), ("sesame", "/v1/nowhere", 404)):
        status, headers = asked_by(server, PAGE, path=path, Authorization=f"Bearer {key}")
        assert (status, headers["access-control-allow-origin"]) == (expected, PAGE)


@pytest.mark.parametrize("allowed", [[], [PAGE]])
def test_other_origins_get_nothing(serve: Serve, allowed: list[str]) -> None:
    server = serve(allow_origins=allowed)
    for origin in ("http://evil.example", "http://localhost:3001", "https://localhost:3000", "null"):
        for status, headers in (preflight(server, origin), asked_by(server, origin)):
            assert "access-control-allow-origin" not in headers
            assert status in (200, 400, 405)
    assert preflight(server, "http://evil.example")[0] >= 400


def test_an_origin_is_compared_as_browsers_write_it() -> None:
    for text, origin in (
        ("http://localhost:3000/", PAGE),
        ("HTTPS://Chat.Example:443", "https://chat.example"),
        ("http://127.0.0.1:80", "http://127.0.0.1"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("*", "*"),
        ("null", "null"),
    ):
        assert _origin(text) == origin


@pytest.mark.parametrize("text", ["localhost:3000", "localhost", "http://", "http://a/b", "http://a:port", ""])
def test_what_is_no_origin_is_refused(text: str) -> None:
    told = refused("serve", "--port", "0", "--policy", "/nothing", "--allow-origin", text)
    assert "is not an origin" in told
    assert "--allow-origin http://localhost:3000" in told


def test_an_idle_connection_stays_open_longer_than_clients_keep_it(serve: Serve) -> None:
    assert Limits().keep_alive > 90
    server = serve()
    assert server.server.config.timeout_keep_alive == Limits().keep_alive
    short = serve(Limits(keep_alive=1))
    connection = http.client.HTTPConnection("127.0.0.1", short.port, timeout=20)
    connection.request("GET", "/health")
    assert connection.getresponse().read()
    assert connection.sock.recv(1) == b"", "its time is over"
    connection.close()


def test_the_openai_client_reads_what_is_refused(serve: Serve) -> None:
    with pytest.raises(openai.BadRequestError, match="not supported") as told:
        serve().client().chat.completions.create(**ASK, tools=MEANT["tools"])
    assert (told.value.code, told.value.param) == ("unsupported_parameter", "tools")
