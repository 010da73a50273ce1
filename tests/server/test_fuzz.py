"""Whatever a request holds, it is understood or refused in the API's own words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli import Limits, PadEngine
from pad_cli.server.protocol import ApiError, read_request
from pad_cli.server.request_reader import RequestReader, Work
from tests.hostile.budget import examples
from tests.server.conftest import SETTINGS

TEXT = st.text(max_size=12) | st.sampled_from(["humorous", "not formal", "concise=0.5", "@me", "=", "+", "text:"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
MODELS = st.sampled_from(["pad", "base", "pad/humorous", "pad/humorous+formal=2", "pad/@me", "pad/+", "pad//"]) | TEXT
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "assistant"]), "content": TEXT}), max_size=3
)
KNOWN = {
    "model": MODELS,
    "messages": MESSAGES | JSON,
    "max_completion_tokens": JSON,
    "chat_template_kwargs": JSON,
    "pad": st.fixed_dictionaries({}, optional={"preference": TEXT | JSON, "guidance_weight": st.floats() | JSON})
    | JSON,
    "stop": JSON,
    "n": st.integers(-1, 40),
    "seed": st.integers(),
    "max_tokens": st.integers(-1, 2000),
    "temperature": st.floats() | JSON,
    "top_p": JSON,
    "top_k": JSON,
    "stream": JSON,
    "logprobs": JSON,
    "tools": JSON,
    "user": JSON,
}
MEANT = {"model": MODELS, "messages": MESSAGES}
REQUESTS = st.one_of(
    st.fixed_dictionaries(MEANT, optional={name: values for name, values in KNOWN.items() if name not in MEANT}),
    st.dictionaries(TEXT | st.sampled_from(sorted(KNOWN)), JSON, max_size=4),
)


@pytest.fixture
def reader(policy: Any, reward_model: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> RequestReader:
    monkeypatch.chdir(tmp_path)
    return RequestReader(PadEngine(policy, reward_model), SETTINGS, Limits())


def outcome(reader: RequestReader, body: bytes) -> Work | ApiError:
    try:
        return reader.work(read_request(body))
    except ApiError as error:
        return error


def check(found: Work | ApiError) -> None:
    if isinstance(found, ApiError):
        assert 400 <= found.status < 500
        assert found.body["error"]["message"]
        json.dumps(found.body, ensure_ascii=False).encode()
    else:
        assert found.items
        assert 0 < found.limit <= Limits().max_new_tokens


@examples(300)
@given(content=REQUESTS)
def test_any_json_is_understood_or_refused(reader: RequestReader, content: dict[str, Any]) -> None:
    check(outcome(reader, json.dumps(content).encode()))


@examples(300)
@given(body=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_understood_or_refused(reader: RequestReader, body: bytes) -> None:
    found = outcome(reader, body)
    assert isinstance(found, ApiError)
    check(found)


def test_the_fuzzer_reaches_requests_that_are_understood(reader: RequestReader) -> None:
    body = {"model": "pad/humorous", "messages": [{"role": "user", "content": "Hi"}], "pad": {"preference": ["formal"]}}
    assert isinstance(outcome(reader, json.dumps(body).encode()), Work)
