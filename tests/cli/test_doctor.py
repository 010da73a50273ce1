"""`pad doctor`: what is there, what is missing, the command that mends it; and no key's value, ever."""

from __future__ import annotations

import json
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest

from pad_cli.cli import doctor
from tests.cli.test_commands import pad


@pytest.fixture(autouse=True)
def _quickly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty PAD_HOME."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))


def broken(*arguments: str) -> str:
    result = pad("doctor", *arguments)
    assert result.exit_code == 1, result.output
    return " ".join(result.stdout.split())


def test_a_sound_installation_exits_0_and_has_no_problems() -> None:
    result = pad("doctor")
    assert result.exit_code == 0, result.output
    for heading in ("Extras", "Devices", "PAD_HOME", "Hub and keys"):
        assert f"\n{heading}\n" in result.stdout
    assert sys.version.split()[0] in result.stdout


def test_json_is_one_object_with_all_of_it() -> None:
    result = pad("doctor", "--json")
    row = json.loads(result.stdout)
    assert row["well"] is True
    assert {"torch", "transformers", "peft", "trl"} <= set(row["Packages"])
    assert set(row["Extras"]) == {"gguf", "judge", "quantized", "serve", "text"}
    assert row["PAD_HOME"]["hidden states"].endswith("in 0 files")
    assert "not writable" not in row["PAD_HOME"]["place"]


def test_a_torch_that_cannot_be_imported_is_said_and_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pad_cli.models.dtype", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    said = broken()
    assert "torch cannot be imported: import of torch halted" in said
    assert "pip install --force-reinstall torch" in said
    assert "not known without torch" in said


def test_a_package_that_is_too_old_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "old" / "peft-0.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: peft\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(tmp_path / "old")
    said = broken()
    (wanted,) = (each for each in requires("pad-cli") or () if each.startswith("peft"))
    assert f"peft is 0.1, but pad needs {wanted}." in said
    assert f'pip install "{wanted}"' in said


def test_a_home_that_cannot_be_written_is_said_and_exits_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PAD_HOME", str(tmp_path / "file" / "home"))
    said = broken()
    assert "cannot be written" in said
    assert "export PAD_HOME=/another/directory" in said


def test_little_space_is_said_but_nothing_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LITTLE", float("inf"))
    result = pad("doctor")
    assert result.exit_code == 0
    assert "GB are free for PAD_HOME" in result.stdout


def test_keys_are_found_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = "hf_planted0123456789"
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "PAD_API_KEY"):
        monkeypatch.setenv(name, planted)
    for arguments in ([], ["--json"]):
        result = pad("doctor", *arguments)
        assert planted not in result.output
    found = json.loads(pad("doctor", "--json").stdout)["Hub and keys"]
    assert [found[name] for name in ("HF_TOKEN", "OPENAI_API_KEY", "PAD_API_KEY")] == ["set"] * 3
