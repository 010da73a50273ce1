"""The shipped models and what they were made from belong together; whatever changes of either is noticed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pad_cli.records import as_messages
from pad_cli.system.resources import shipped
from pad_cli.world import build
from pad_cli.world.build import MANIFEST, POLICIES, made_from, stale_parts
from pad_cli.world.grammar import load_world
from pad_cli.world.shipped_models import SHIPPED
from pad_cli.world.writing import Document


def test_the_shipped_models_are_made_from_what_is_there_now() -> None:
    stale = stale_parts()
    assert not stale, f"changed since the embedded models were built: {', '.join(stale)}. Run: make embedded"


def test_one_character_of_any_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("data", "recipes"):
        shutil.copytree(shipped(folder), tmp_path / "shipped" / folder)
    monkeypatch.setattr("pad_cli.system.resources._PACKAGE", tmp_path)
    load_world.cache_clear()
    sources = ["recipes/embedded.yaml", *(f"data/world/{path.name}" for path in (shipped("data") / "world").iterdir())]
    for source in sources:
        with (tmp_path / "shipped" / source).open("a", encoding="utf-8") as file:
            file.write("#")
    embedded = shipped("data") / "embedded"
    files = [path for path in embedded.rglob("*") if path.is_file() and path.name != MANIFEST]
    assert {path.relative_to(embedded).parts[0] for path in files} == set(SHIPPED)
    for path in files:
        content = bytearray(path.read_bytes())
        content[-2] ^= 1
        path.write_bytes(content)
    assert set(stale_parts()) == {*sources, *(path.relative_to(embedded).as_posix() for path in files)}
    load_world.cache_clear()


def test_everything_that_training_reads_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = {name: replace(each, answers=9, glossary=9, asked=min(each.asked, 9)) for name, each in POLICIES.items()}
    monkeypatch.setattr(build, "POLICIES", tiny)
    before = made_from()
    plan = replace(tiny["small"].plan, steps=1)
    monkeypatch.setitem(tiny, "small", replace(tiny["small"], plan=plan))
    monkeypatch.setattr(build, "_CHAT_TEMPLATE", "{{ messages }}")
    monkeypatch.setattr(build, "write_preference_documents", lambda *_, **__: [Document(as_messages("Why?"), "So.")])
    monkeypatch.setattr("pad_cli.world.writing._ANSWER_RATE", 0.26)
    now = made_from()
    changed = {name for name in before if before[name] != now[name]}
    assert before.keys() == now.keys()
    assert changed == {"plan of small", "chat template", "preference pairs", *(f"documents of {name}" for name in tiny)}


def test_without_a_manifest_everything_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a build that did not end."""
    monkeypatch.setattr(build, "made_from", lambda: {"plan of small": "abc"})
    (tmp_path / "shipped" / "data" / "embedded" / "small").mkdir(parents=True)
    (tmp_path / "shipped" / "data" / "embedded" / "small" / "config.json").write_text("{}")
    monkeypatch.setattr("pad_cli.system.resources._PACKAGE", tmp_path)
    assert stale_parts() == ["plan of small", "small/config.json"]
