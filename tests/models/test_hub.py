"""Reward models on the hub: only their own files travel, by id and revision; nothing waits for a network in vain."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch

from pad_cli.errors import CheckpointError, StorageError, UsageError
from pad_cli.models.checkpoint import load_reward_model, save_reward_model
from pad_cli.models.checkpoint_files import CONFIG, OWN_FILES, fetch_checkpoint, hub_id
from pad_cli.models.language_model import LanguageModel
from pad_cli.models.publishing import push_reward_model
from pad_cli.recipe import ModelSettings
from tests.models.hub_server import COMMIT, Hub, serve
from tests.tiny import make_reward_model

FIRST, SECOND = "1" * 40, "2" * 40


@pytest.fixture
def saved(policy: LanguageModel, model_directory: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "rm"
    directory.mkdir()
    save_reward_model(make_reward_model(policy), directory, ModelSettings(model=str(model_directory)))
    return directory


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, without the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def cache(source: Path, repository: Path, commit: str, ref: str) -> None:
    """Put a directory into the hub's cache as it lies there after a download."""
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / ref).write_text(commit)
    shutil.copytree(source, repository / "snapshots" / commit)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("owner/name", ("owner/name", None)),
        ("owner/name@v1.2", ("owner/name", "v1.2")),
        ("owner/name@refs/pr/3", ("owner/name", "refs/pr/3")),
        ("name", None),
        ("./owner/name", None),
        ("/owner/name", None),
        ("~/name", None),
        ("a/b/c", None),
        ("there/missing", None),
        ("there/rm@v1", None),
        ("", None),
    ],
)
def test_what_is_an_id_on_the_hub(
    location: str, expected: tuple[str, str | None] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there" / "rm@v1").mkdir(parents=True)
    assert hub_id(location) == expected


def test_a_directory_is_never_looked_for_on_the_hub(saved: Path, hub_cache: Path) -> None:
    assert fetch_checkpoint(str(saved)) == str(saved)
    assert fetch_checkpoint("rm") == "rm"


def test_a_reward_model_that_was_fetched_before_loads_by_its_id_without_network(saved: Path, hub_cache: Path) -> None:
    cache(saved, hub_cache / "models--owner--name", FIRST, "main")
    loaded, local = load_reward_model("owner/name", device="cpu"), load_reward_model(str(saved), device="cpu")
    assert loaded.fingerprint == local.fingerprint


def test_an_id_with_a_revision_is_that_revision(saved: Path, hub_cache: Path) -> None:
    repository = hub_cache / "models--owner--name"
    cache(saved, repository, FIRST, "main")
    config = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps({**config, "calibration": 7.0}))
    cache(saved, repository, SECOND, "v2")
    assert load_reward_model("owner/name@v2", device="cpu").calibration == 7.0
    assert load_reward_model(f"owner/name@{SECOND}", device="cpu").calibration == 7.0
    assert load_reward_model("owner/name", device="cpu").calibration == 1.0


@pytest.mark.parametrize("location", ["owner/name", "owner/name@v9"])
def test_what_was_never_fetched_is_refused_at_once_without_network(location: str, hub_cache: Path) -> None:
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=f"'{location}'") as caught:
        load_reward_model(location)
    assert "network" in caught.value.hint
    assert time.monotonic() - began < 2


def test_the_released_form_stays_an_id(hub_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "released").mkdir()
    (tmp_path / "released" / "value_head.safetensors").touch()
    cache(tmp_path / "released", hub_cache / "models--owner--name", FIRST, "main")
    assert fetch_checkpoint("owner/name") == "owner/name"


def test_every_file_of_a_checkpoint_is_its_own(saved: Path) -> None:
    assert {path.name for path in saved.iterdir()} <= set(OWN_FILES)


@pytest.mark.parametrize("name", ["name", "a/b/c", "owner/na me", "owner/name@v1", ""])
def test_pushing_to_what_is_no_id_is_refused(name: str, saved: Path) -> None:
    with pytest.raises(UsageError, match="no id"):
        push_reward_model(str(saved), name)


def test_pushing_what_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=CONFIG):
        push_reward_model(str(tmp_path), "owner/name")


def test_pushing_without_network_says_what_to_do(saved: Path, hub_cache: Path) -> None:
    with pytest.raises(StorageError, match="Cannot push to 'owner/name'") as caught:
        push_reward_model(str(saved), "owner/name")
    assert "HF_HUB_OFFLINE" in caught.value.hint
    assert "hf auth login" in caught.value.hint


def test_the_tiny_reward_model_has_weights(saved: Path) -> None:
    """Guards the fingerprints above against comparing nothing."""
    assert load_reward_model(str(saved), device="cpu").shift(torch.ones(1, 32), torch.ones(1, 3)).any()


PROGRAM = """
import sys
from pad_cli import load_reward_model
from pad_cli.cli.main import app
from pad_cli.system.progress import set_quiet

def pad(*words):
    try:
        app(words)
    except SystemExit as end:
        print("exit code", end.code)

pad("push", sys.argv[1], "me/rm", "--private", "-m", "First of all")
print("then", file=sys.stderr)
set_quiet(True)
print(load_reward_model("me/rm", device="cpu").fingerprint)
print("then", file=sys.stderr)
pad("inspect", "me/other")
"""


def run(program: str, *arguments: str, hub: Hub, home: Path) -> subprocess.CompletedProcess[str]:
    """A program in a process of its own that knows only our hub."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_TOKEN": "hf_test", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], env={**kept, **settings}, capture_output=True, text=True, cwd=home
    )


def test_what_is_pushed_can_be_fetched_by_its_id_and_is_the_same_reward_model(saved: Path, tmp_path: Path) -> None:
    (saved / "secret.txt").write_text("not part of a reward model")
    (saved / "README.md").write_text("Mine.\n\npad inspect . --policy MODEL\n")
    home = tmp_path / "home"
    home.mkdir()
    with serve() as hub:
        done = run(PROGRAM, str(saved), hub=hub, home=home)
    assert done.returncode == 0, done.stderr
    address, pushing, fingerprint, missing = done.stdout.splitlines()
    assert (address, pushing) == (f"{hub.address}/me/rm/commit/{COMMIT}", "exit code 0")
    assert (hub.private, hub.messages, hub.tokens) == ({"me/rm"}, ["First of all"], {"Bearer hf_test"})
    pushed = hub.files["me/rm"]
    assert set(pushed) == {path.name for path in saved.iterdir()} - {"secret.txt"}
    assert pushed["README.md"].decode() == "Mine.\n\npad inspect me/rm --policy MODEL\n"
    assert pushed[CONFIG] == (saved / CONFIG).read_bytes()
    assert fingerprint == load_reward_model(str(saved), device="cpu").fingerprint
    _, fetching, refusal = done.stderr.split("then\n")
    assert fetching == ""
    assert missing == "exit code 1"
    assert "no such repository" in " ".join(refusal.split())
