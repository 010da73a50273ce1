"""Whatever stands in a file of rows or in a profile, it is read, or refused with the file's name."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import DataError, PadError, PreferenceError, RecipeError
from pad_cli.learning.choices import read_choices, read_users
from pad_cli.learning.effect import read_prompts
from pad_cli.pairs import load_pairs
from pad_cli.preference import expand_profiles
from pad_cli.profiles import load_profile, profile_path, profile_weights
from pad_cli.prompts import load_jsonl
from pad_cli.recipe import DataSettings
from pad_cli.registry import PAIR_FORMATS
from pad_cli.server.lora_export import export_users
from pad_cli.system.runs import ResultLog, fingerprint
from tests.hostile.budget import examples, fuzzed, tried
from tests.tiny import PRINCIPLES

PIECES = ["@me", "@", "=", "2", ",", " and ", "not ", "../x", "1e400", "text:", "humorous"]
TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "humorous",
        "concise",
        "\0",
        "\ud800",
        "\x1b[31m",
        "\u2028",
        "../../x",
        "/etc",
        "=1+1",
        "@me",
        "\n\nHuman: a\n\nAssistant: b",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
MESSAGES = st.lists(st.fixed_dictionaries({"role": TEXTS | st.just("user"), "content": TEXTS}), max_size=3)
FIELDS = {
    "prompt": st.just("Why?") | TEXTS | MESSAGES | VALUES,
    "chosen": st.just("a") | TEXTS | MESSAGES | VALUES,
    "rejected": st.just("b") | TEXTS | MESSAGES | VALUES,
    "preference": st.just("humorous") | TEXTS | st.dictionaries(TEXTS, st.integers() | st.floats()) | VALUES,
    "answers": st.just(["a", "b"]) | VALUES,
    "choice": st.integers(0, 1) | VALUES,
    "user": TEXTS | VALUES,
    "weights": st.dictionaries(st.sampled_from(PRINCIPLES), st.floats() | VALUES) | VALUES,
    "response": VALUES,
    "completions": VALUES,
    "helpfulness": VALUES,
    "key": TEXTS | VALUES,
}
ROWS = st.lists(st.fixed_dictionaries({}, optional=FIELDS) | VALUES, max_size=5)
LINES = ROWS.map(lambda rows: "".join(json.dumps(row) + "\n" for row in rows).encode())
DEEP = b'{"prompt": ' + b"[" * 950 + b"]" * 950 + b"}\n"
FILES = st.binary(max_size=60) | LINES | st.builds(lambda lines, cut: lines[:cut], LINES, st.integers(0, 200))


def training_pairs(path: Path) -> None:
    for name in PAIR_FORMATS.names():
        source = {"path": str(path), "format": name}
        for principles in (None, PRINCIPLES, ()):
            load_pairs(DataSettings.model_validate({"train": source, "bad_rows": "drop"}), 0, principles)


def log_of_results(path: Path) -> None:
    fingerprint(ResultLog(path).done)


READERS: dict[str, Callable[[Path], Any]] = {
    "pairs": training_pairs,
    "choices": read_choices,
    "users": read_users,
    "prompts": lambda path: read_prompts(path, 3),
    "benchmark": lambda path: fingerprint(
        [vars(item) for item in load_jsonl(path=str(path), preferences=["humorous"])]
    ),
    "results": log_of_results,
}


@pytest.mark.parametrize("reader", READERS)
@examples(40)
@given(content=FILES)
@example(content=DEEP)
@example(content=b'{"prompt": "a", "chosen": "b", "rejected": "c", "preference": ' + b"[" * 960 + b"]" * 960 + b"}\n")
@example(content=b'{"key": ' + b"[" * 985 + b"]" * 985 + b"}\n")
@example(content=b'{"key": ' + b"[" * 100_000)
@example(content=b'{"key": ""}\n{"key": null}\n')
@example(content=b'{"prompt": ' + b"9" * 5000 + b"}\n")
@example(content=b'{"prompt": "a", "user": 1' + b"0" * 4000 + b"}\n")
@example(content=b'\xef\xbb\xbf{"prompt": "a"}\r\n{"prompt": "b"}\r\n')
@example(content=b'{"prompt": "a\\u0000"}\n')
@example(content=b'{"prompt": "\\ud800"}\n')
@example(content=b'{"prompt": "a", "prompt": 1}\n')
@example(content=b'{"prompt": NaN}\n')
def test_rows_are_read_or_refused(reader: str, content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    path.write_bytes(content)
    _, error = tried(lambda: READERS[reader](path), DataError, RecipeError, PreferenceError)
    assert error is None or "rows.jsonl" in str(error) or "training" in str(error)


@examples(30)
@given(content=LINES)
@example(content=b'{"user": "../../x", "weights": {"humorous": 1}}\n')
@example(content=b'{"user": "/x", "weights": {"humorous": 1}}\n')
@example(content=b'{"user": "..", "weights": {"humorous": 1}}\n')
@example(content=b'{"user": ".", "weights": {"humorous": 1}}\n')
@example(content=b'{"user": "a/b", "weights": {"humorous": 1}}\n')
@example(content=b'{"user": "ann", "weights": {"humorous": 1}}\n')
@example(content=b'{"user": "ann", "weights": {"humorous": 1' + b"0" * 400 + b"}}\n")
@example(content=b'{"user": "ann", "weights": {"humorous": 1e300}}\n')
def test_users_of_a_table_get_adapters_in_its_directory_only(
    content: bytes, policy: Any, reward_model: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("users")
    (root / "table.jsonl").write_bytes(content)
    out = root / "deep" / "out"
    tried(lambda: export_users(PadEngine(policy, reward_model), root / "table.jsonl", 1.0, out), PadError)
    assert {path.name for path in root.iterdir()} <= {"table.jsonl", "deep"}
    assert not (root / "deep").exists() or {path.name for path in (root / "deep").iterdir()} <= {"out"}


@fuzzed
@given(content=st.binary(max_size=60) | st.dictionaries(TEXTS, VALUES).map(lambda value: json.dumps(value).encode()))
@example(content=b"weights: {humorous: 1, humorous: 2}")
@example(content=b"weights: {humorous: 0x" + b"f" * 4000 + b"}")
@example(content=b"weights: {humorous: 1" + b"0" * 290 + b"}")
@example(content=b"weights: {humorous: 1" + b"0" * 310 + b"}")
@example(content=b"weights: &a {humorous: *a}")
@example(content=b"weights: {? {a: b} : 1}")
@example(content=b"weights: {humorous: !!timestamp 99}")
@example(content=b"created: 2026-99-99\nweights: {}")
@example(content=b"- a")
def test_a_profile_is_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "me.yaml"
    path.write_bytes(content)
    profile, error = tried(lambda: load_profile(str(path)), PadError)
    assert profile is not None or "me.yaml" in str(error)


@fuzzed
@given(name=st.text(max_size=12) | st.text("./\\~@ab\0\n", max_size=8))
@example(name="../x")
@example(name="/etc/passwd")
@example(name="a\n")
@example(name="")
@example(name="a/../../x")
def test_a_profiles_name_is_a_file_in_profiles_or_refused(name: str) -> None:
    path, error = tried(lambda: profile_path(name), PreferenceError)
    if error is None:
        assert path is not None
        assert os.path.normpath(path) == f"profiles/{name}.yaml"


@fuzzed
@given(
    specs=st.lists(
        st.text(max_size=10)
        | st.lists(st.sampled_from(["@me", "@", "=", "2", ",", " and ", "not ", "../x", "1e400", "text:"])).map(
            "".join
        ),
        max_size=3,
    )
)
@example(specs=["@../me"])
@example(specs=["@me=1e400"])
@example(specs=["humorous=1e300"])
@example(specs=["@me=" + "9" * 400])
@example(specs=["not " * 400 + "humorous"])
def test_a_preference_with_profiles_is_understood_or_refused(
    specs: list[str], reward_model: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assume(all(letter < "\ud800" or letter > "\udfff" for spec in specs for letter in spec))
    place = tmp_path_factory.getbasetemp() / "with-profiles"
    (place / "profiles").mkdir(parents=True, exist_ok=True)
    (place / "profiles" / "me.yaml").write_text("weights: {humorous: 1, formal: -0.5}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        _, error = tried(lambda: expand_profiles(specs, profile_weights), PreferenceError, DataError)
        preference, refused = tried(lambda: reward_model.preference(specs), PreferenceError, DataError)
    assert error is None or refused is not None
    if preference is not None:
        assert set(preference.weights) <= set(PRINCIPLES)
        assert reward_model.weights([preference]).isfinite().all()
