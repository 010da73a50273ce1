"""`pad list` and `pad recipe list`: all names with a line about each, found without importing anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pad_cli.errors import RecipeError
from pad_cli.recipe import KINDS, check_names, read_recipe, shipped_recipes
from pad_cli.recipe.catalogue import REGISTRIES, catalogue_kinds, names_of
from tests.cli.test_commands import NO_TORCH, pad, refused, shell


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("arguments", [["list"], ["recipe", "list"]])
def test_lists_load_no_torch(arguments: list[str]) -> None:
    done = shell(*arguments, check=NO_TORCH)
    assert (done.returncode, done.stderr.decode()) == (0, "[]\n")


@pytest.mark.parametrize("kind", REGISTRIES)
def test_every_registered_name_has_a_line_about_it(kind: str) -> None:
    found = names_of(kind)
    assert list(found) == REGISTRIES[kind].names()
    assert all(found.values()), [name for name, about in found.items() if not about]


def test_every_kind_is_listed_and_json_has_the_same_names() -> None:
    text, rows = pad("list").stdout, [json.loads(line) for line in pad("list", "--json").stdout.splitlines()]
    assert {row["kind"] for row in rows} == set(catalogue_kinds()) - {"profiles"}  # there are none here
    for row in rows:
        assert f"\n  {row['name']}" in text
        assert row["description"] in text, "cut, or wrapped although piped"


def test_one_kind_can_be_listed_and_an_empty_one_says_so() -> None:
    assert pad("list", "scorers").stdout.startswith("scorers\n  all ")
    assert pad("list", "profiles").stdout == "profiles\n  none\n"


def test_a_plugin_is_described_from_its_source_and_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exploding.py").write_text('raise SystemExit\n\n\nclass Loud:\n    """Shouts. A lot."""\n')
    info = tmp_path / "exploding-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: exploding\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pad.scorers]\nloud = exploding:Loud\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert names_of("scorers")["loud"] == "Shouts"


def test_recipe_list_is_sorted_by_kind_and_says_what_each_is_for() -> None:
    text = pad("recipe", "list").stdout
    assert [line for line in text.splitlines() if not line.startswith(" ")] == list(KINDS)
    rows = [json.loads(line) for line in pad("recipe", "list", "--json").stdout.splitlines()]
    assert {row["name"] for row in rows} == set(shipped_recipes())
    assert all(row["purpose"] and row["kind"] in KINDS for row in rows)


def test_check_refuses_names_that_are_not_registered_all_at_once() -> None:
    said = refused("recipe", "check", "embedded-eval", "--set", "scorers.0=on_topik", "--set", "methods.0=bas")
    assert "methods.0.method: no such name 'bas'" in said
    assert "scorers.0.scorer: no such name 'on_topik'" in said
    with pytest.raises(RecipeError, match=r"objectives\.formal\.scorer"):
        check_names(read_recipe("embedded-sweep", ["objectives.formal.scorer=presnt"]))
