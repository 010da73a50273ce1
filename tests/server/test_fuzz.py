"""Whatever a request holds, it is understood or refused in the API's own words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli import Limits, PadEngine
from pad_cli.server.api_error import ApiError
from pad_cli.server.catalogue import Catalogue
from pad_cli.server.reading import Reading, Work
from pad_cli.server.schema import ChatRequest, TextRequest, read_request
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
    "prompt": TEXT | st.lists(TEXT, max_size=3) | st.lists(st.integers(-5, 400), max_size=4) | JSON,
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
MEANT = {"model": MODELS, "messages": MESSAGES}, {"model": MODELS, "prompt": KNOWN["prompt"]}
REQUESTS = st.one_of(
    *(st.fixed_dictionaries(must, optional={k: v for k, v in KNOWN.items() if k not in must}) for must in MEANT),
    st.dictionaries(TEXT | st.sampled_from(sorted(KNOWN)), JSON, max_size=4),
)


@pytest.fixture
def reading(policy: Any, reward_model: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Reading:
    monkeypatch.chdir(tmp_path)
    engine = PadEngine(policy, reward_model)
    return Reading(engine, SETTINGS, Limits(), Catalogue(engine, []))


def outcome(reading: Reading, body: bytes, schema: Any) -> Work | ApiError:
    try:
        return reading.work(read_request(schema, body))
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
def test_any_json_is_understood_or_refused(reading: Reading, content: dict[str, Any]) -> None:
    body = json.dumps(content).encode()
    for schema in (ChatRequest, TextRequest):
        check(outcome(reading, body, schema))


@examples(300)
@given(body=st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_understood_or_refused(reading: Reading, body: bytes) -> None:
    found = outcome(reading, body, ChatRequest)
    assert isinstance(found, ApiError)
    check(found)


def test_the_fuzzer_reaches_requests_that_are_understood(reading: Reading) -> None:
    body = {"model": "pad/humorous", "messages": [{"role": "user", "content": "Hi"}], "pad": {"preference": ["formal"]}}
    assert isinstance(outcome(reading, json.dumps(body).encode(), ChatRequest), Work)
    assert isinstance(outcome(reading, json.dumps({"model": "pad", "prompt": "Hi"}).encode(), TextRequest), Work)
