"""Whatever a file of a recipe holds, it is a recipe or a recipe error, soon."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from pad_cli.errors import RecipeError
from pad_cli.recipe import load_recipe, read_recipe, shipped_recipes
from pad_cli.system.checked_yaml import YamlError, read_yaml
from pad_cli.system.runs import fingerprint, write_json
from tests.hostile.budget import fuzzed, tried

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
HEAD = "kind: generate\npolicy: {model: p}\nreward_model: r\n"
GOOD = [text for path in shipped_recipes().values() if len(text := path.read_text(encoding="utf-8")) < 1500]
MARKS = [
    ": ",
    ":\n  ",
    "- ",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "&a ",
    "*a",
    "<<: ",
    "'",
    '"',
    "#",
    "\t",
    "---\n",
    "...",
    "%YAML 9",
]
TAGS = ["!!set ", "!!binary ", "!!omap ", "!!python/object:os.system ", "!!python/tuple ", "! "]
VALUES = ["1", "-1", "0x", "1e999", ".inf", ".nan", "1:1:1", "2026-01-01", "yes", "null", "~", "\\u0000", "\ufeff", "é"]
KEYS = ["kind", "generate", "eval", "train-rm", "policy", "model", "decoding", "data"]
WORDS = st.sampled_from([*MARKS, *TAGS, *VALUES, *KEYS])
PIECES = st.lists(WORDS | st.text(max_size=4), max_size=30).map("".join)


@st.composite
def changed(draw: st.DrawFn) -> str:
    """A shipped recipe with a piece of it replaced."""
    text = draw(st.sampled_from(GOOD))
    start = draw(st.integers(0, len(text)))
    return text[:start] + draw(PIECES) + text[start + draw(st.integers(0, 40)) :]


def check(content: bytes, place: Path, *overrides: str) -> None:
    path = place / "recipe.yaml"
    path.write_bytes(content)
    recipe, error = tried(lambda: read_recipe(str(path), overrides), RecipeError)
    if error is not None:
        assert str(path) in error.message or "--set" in error.message
        assert error.hint
    else:
        fingerprint(recipe.model_dump())
        write_json(place / "recipe.json", recipe.model_dump())


@fuzzed
@given(content=st.binary(max_size=80) | PIECES.map(str.encode) | changed().map(str.encode))
@example(content=BOMB.encode())
@example(content=f"{HEAD}{BOMB}".encode())
@example(content=f"{HEAD}decoding: &d {{a: *d}}".encode())
@example(content=f"{HEAD}decoding: {{seed: 0x{'f' * 4000}}}".encode())
@example(content=f"{HEAD}decoding: {{seed: {'9' * 5000}}}".encode())
@example(content=f"{HEAD}decoding: {{seed: {'1:' * 20000}1}}".encode())
@example(content=f"{HEAD}reward_model: other".encode())
@example(content=f"{HEAD}always: {'[' * 1000}".encode())
@example(content=f"{HEAD}always: {'[' * 200}{']' * 200}".encode())
@example(content=b"kind: !!python/object/apply:os.system [id]")
@example(content=b"kind: !!set {a, b}")
@example(content=b"? [a]\n: b")
@example(content=b"kind: generate\n1: 2\n")
@example(content=b"kind: \0generate")
@example(content="\ufeffkind: generate\r\npolicy: {model: p}\r\nreward_model: r\r\n".encode())
@example(content=b"\xff\xfek\0i\0n\0d\0")
@example(content=b"kind: \xed\xa0\x80")
def test_a_files_bytes_are_a_recipe_or_a_recipe_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    check(content, tmp_path_factory.getbasetemp())


@fuzzed
@given(
    override=st.text(max_size=30) | st.builds("{}={}".format, st.sampled_from(["a", "decoding.seed", "0", "."]), PIECES)
)
@example(override=f"decoding={BOMB}")
@example(override="decoding.seed.x.y=1")
@example(override="policy..=1")
@example(override=f"decoding.seed=0x{'f' * 4000}")
def test_what_follows_set_is_a_change_or_a_recipe_error(
    override: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    check(HEAD.encode(), tmp_path_factory.getbasetemp(), override)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "x: {b: 1, b: 1}", "{a: 1, 'a': 2}"])
def test_equal_keys_are_refused(text: str) -> None:
    with pytest.raises(YamlError, match="is duplicated"):
        read_yaml(text)


def test_aliases_in_reason_are_read() -> None:
    assert read_yaml("a: &x [1, 2]\nb: *x\nc: {<<: {d: 1}, e: 2}") == yaml.safe_load(
        "a: [1, 2]\nb: [1, 2]\nc: {d: 1, e: 2}"
    )


@pytest.mark.parametrize("path", shipped_recipes().values(), ids=lambda path: path.stem)
def test_every_shipped_recipe_reads_as_the_library_reads_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert read_yaml(text) == yaml.safe_load(text)


@pytest.mark.parametrize("name", ["../out", "/etc", "a/b", "..", "", ".", "a\\b", "a\0b", "x" * 300])
def test_a_table_of_a_recipe_is_no_path_out_of_the_run(name: str) -> None:
    evaluation = {
        "policies": {"home": {"model": "p"}},
        "reward_model": "r",
        "benchmarks": [{"benchmark": "embedded"}],
        "scorers": ["hit"],
    }
    for table, label in ((name, "run"), ("table", name)):
        content = {
            "kind": "reproduce",
            "output": "o",
            "tables": {table: {"question": "?", "runs": {label: evaluation}}},
        }
        with pytest.raises(RecipeError, match="the name of a directory"):
            load_recipe(content)
