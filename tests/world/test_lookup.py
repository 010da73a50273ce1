"""Where the names of the embedded models lead: to files of the package, found without loading or building anything."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pad_cli.errors import ModelLoadError, StorageError, UsageError
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.language_model import load_language_model
from pad_cli.recipe import ModelSettings
from pad_cli.system.resources import shipped
from pad_cli.world.shipped_models import SHIPPED, model_directory

POLICIES = [name for name in SHIPPED if name != "reward-model"]


@pytest.mark.parametrize("name", POLICIES)
def test_weights_ship_in_half_precision_and_load_as_the_same_numbers_in_float32(name: str) -> None:
    model = load_language_model(ModelSettings(model=f"embedded/{name}", device="cpu")).model
    halves = load_file(model_directory(name) / "model.safetensors")
    assert {weight.dtype for weight in halves.values()} == {torch.float16}
    loaded = dict(model.named_parameters())
    assert loaded.keys() == halves.keys()
    for key, half in halves.items():
        assert loaded[key].dtype == torch.float32
        assert torch.equal(loaded[key], half.float())


def test_the_reward_model_belongs_to_the_medium_policy_as_it_ships() -> None:
    medium = load_language_model(ModelSettings(model="embedded/medium", device="cpu"))
    model = load_reward_model("embedded/reward-model", backbone=medium)
    assert model.backbone is medium
    assert load_reward_model("embedded/reward-model", device="cpu").backbone.fingerprint == medium.fingerprint


def test_all_models_together_take_a_few_megabytes() -> None:
    files = [path for path in (shipped("data") / "embedded").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8e6


def test_no_shipped_file_names_a_directory_of_the_machine_that_built_it() -> None:
    for path in (shipped("data") / "embedded").rglob("*.*"):
        if path.suffix != ".safetensors":
            assert str(Path.home()) not in path.read_text(encoding="utf-8")
            assert str(shipped("data")) not in path.read_text(encoding="utf-8")


def test_looking_one_up_imports_neither_torch_nor_what_builds() -> None:
    program = (
        "import sys\n"
        "from pad_cli.world.shipped_models import model_directory\n"
        "model_directory('medium'), model_directory('reward-model')\n"
        "names = [name for name in sys.modules if name.startswith('pad_cli.')]\n"
        "print('torch' in sys.modules, *sorted(names))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    found = [
        f"pad_cli.{name}"
        for name in ("errors", "system", "system.offline", "system.resources", "world", "world.shipped_models")
    ]
    assert done.stdout.split() == ["False", *found]


@pytest.mark.parametrize("name", ["larg", "Large", "large-4"])
def test_a_name_like_one_is_answered_with_it(name: str) -> None:
    with pytest.raises(UsageError, match=f"No embedded model is named '{name}'") as caught:
        model_directory(name)
    assert "large" in caught.value.hint


def test_a_name_far_from_all_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        model_directory("zzz")
    assert caught.value.hint == "Known: following, large, medium, reward-model, small."


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The models of an installation that may be damaged."""
    models = tmp_path / "package" / "shipped" / "data" / "embedded"
    shutil.copytree(shipped("data") / "embedded" / "small", models / "small")
    monkeypatch.setattr("pad_cli.system.resources._PACKAGE", tmp_path / "package")
    return models


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_damaged_model_says_to_reinstall(installation: Path, file: str) -> None:
    content = (installation / "small" / file).read_bytes()
    (installation / "small" / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelLoadError, match="'embedded/small'") as caught:
        load_language_model(ModelSettings(model="embedded/small", device="cpu"))
    assert caught.value.hint == f"Reinstall the package that has {installation / 'small'}."


def test_a_missing_model_says_to_reinstall(installation: Path) -> None:
    with pytest.raises(StorageError, match="lacks its 'data/embedded/medium' files") as caught:
        load_language_model(ModelSettings(model="embedded/medium", device="cpu"))
    assert "Reinstall" in caught.value.hint
