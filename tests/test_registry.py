"""Lookup by name, and a package that adds a name from outside."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoints
from pathlib import Path

import pytest

from pad_cli import registry as registry_module
from pad_cli.errors import PluginError, UsageError
from pad_cli.evaluation.contract import load_scorer
from pad_cli.recipe import ScorerSettings
from pad_cli.registry import BENCHMARKS, METHODS, MODEL_SOURCES, PAIR_SOURCES, SCORERS, Registry, resolve_model

PLUGIN = Path(__file__).parent / "plugin_package"
ALL = (SCORERS, BENCHMARKS, METHODS, MODEL_SOURCES, PAIR_SOURCES)

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a distribution with the given entry points on the path, as `pip install` would, but by hand."""

    def write(name: str, version: str, entry_points: dict[str, dict[str, str]], code: Path | None = None) -> None:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        lines = [
            f"[{group}]\n{key} = {target}\n" for group, table in entry_points.items() for key, target in table.items()
        ]
        (info / "entry_points.txt").write_text("".join(lines))
        monkeypatch.syspath_prepend(tmp_path)
        if code is not None:
            monkeypatch.syspath_prepend(code)

    return write


def test_every_shipped_entry_can_be_imported() -> None:
    for registry in ALL:
        for name in registry.names():
            assert registry.get(name) is not None


NEEDED = {
    "present": {"principle": "humorous"},
    "classifier": {"model": "some/classifier"},
    "armorm": {"label": 0},
}
"""Options without which a scorer cannot be."""


def test_every_shipped_scorer_says_what_it_measures_and_its_direction(tmp_path: Path) -> None:
    rows = ({"prompt": f"{number}?", "answers": {"plain": "No.", "formal": "Indeed."}} for number in range(5))
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    needed = {**NEEDED, "style": {"answers": str(tmp_path / "answers.jsonl")}}
    for name in SCORERS.names():
        scorer = load_scorer(ScorerSettings(scorer=name, options=needed.get(name, {})))
        assert scorer.description, name
        assert scorer.dimension, name
        assert isinstance(scorer.higher_is_better, bool), name
        assert isinstance(scorer.unit, str), name
        assert scorer.batch_size > 0, name


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(UsageError, match=r"No scorers entry is named 'on_topik'") as caught:
        SCORERS.get("on_topik")
    assert "Did you mean on_topic?" in caught.value.hint


def test_an_unknown_name_far_from_all_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        PAIR_SOURCES.get("zzz")
    assert caught.value.hint == "Known: contrast, embedded."


@pytest.mark.parametrize(
    "target", ["no_such_module_anywhere:THING", "pad_cli.records:NoSuchThing", "pad_cli.records", ":", "a b:c"]
)
def test_an_entry_that_cannot_be_imported_is_a_plugin_error(target: str) -> None:
    registry = Registry("scorers", {"broken": target})
    with pytest.raises(PluginError, match="'broken'") as caught:
        registry.get("broken")
    assert caught.value.exit_code == 1


def test_an_entry_whose_module_fails_is_a_plugin_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_plugin_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match="division by zero"):
        Registry("scorers", {"failing": "failing_plugin_module:X"}).get("failing")


def test_a_package_from_outside_adds_a_scorer(install: Install) -> None:
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "shouting" not in SCORERS.names()
    install(project["name"], project["version"], project["entry-points"], PLUGIN)
    assert "shouting" in SCORERS.names()
    scorer = SCORERS.get("shouting")
    assert scorer("ABcd", {}) == 0.5
    assert scorer("", {}) == 0.0
    assert scorer.higher_is_better is False


def test_a_plugin_is_offered_when_its_name_is_misspelt(install: Install) -> None:
    install("shouting", "1.0", {"pad.scorers": {"shouting": "shouting:SHOUTING"}})
    with pytest.raises(UsageError, match="Did you mean shouting"):
        SCORERS.get("shoutin")


def test_a_broken_plugin_harms_only_those_who_ask_for_it(install: Install) -> None:
    install("broken", "1.0", {"pad.scorers": {"broken": "nowhere_to_be_found:X"}})
    assert SCORERS.get("words")("two words", {}) == 2.0
    with pytest.raises(PluginError, match="nowhere_to_be_found"):
        SCORERS.get("broken")


@pytest.mark.parametrize("name", ["words", "hit"])
def test_a_plugin_cannot_replace_a_shipped_entry(install: Install, name: str) -> None:
    """Neither one of the tables nor one of the embedded world, which is a plug-in itself."""
    shipped = SCORERS.get(name)
    install("usurper", "1.0", {"pad.scorers": {name: "nowhere_to_be_found:X"}})
    assert SCORERS.get(name) is shipped
    assert SCORERS.names().count(name) == 1


def test_a_copy_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_entry_points", lambda *_: EntryPoints(()))
    for look_up in (lambda: SCORERS.get("hit"), lambda: resolve_model("embedded/medium")):
        with pytest.raises(PluginError, match="not installed") as caught:
            look_up()
        assert "pip install" in caught.value.hint
    assert SCORERS.get("words") is not None


def test_a_plugin_of_another_kind_is_not_seen(install: Install) -> None:
    install("other", "1.0", {"pad.benchmarks": {"elsewhere": "nowhere_to_be_found:X"}})
    assert "elsewhere" in BENCHMARKS.names()
    assert "elsewhere" not in SCORERS.names()
