"""The package as a user installs it: a wheel, outside the checkout; and the same commit's is always the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel, far from the checkout."""
    tmp_path = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    wheel = next(tmp_path.glob("*.whl"))
    venv.create(tmp_path / "env", with_pip=True, system_site_packages=False)
    python = tmp_path / "env" / "bin" / "python"
    packages = next(Path(sys.prefix).glob("lib/python*/site-packages"))  # the dependencies of this environment
    (next((tmp_path / "env").glob("lib/python*/site-packages")) / "dependencies.pth").write_text(str(packages))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    return python.parent


def test_an_installed_wheel_carries_its_recipes_and_its_world(installed: Path, tmp_path: Path) -> None:
    python = installed / "python"
    where = "import pad_cli, sys; print(pad_cli.__file__)"
    found = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert found.startswith(str(installed.parent))
    assert (Path(found.strip()).parent / "py.typed").exists(), "type checkers would not read its types"
    listed = subprocess.run(
        [installed / "pad", "recipe", "list"], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "embedded" in listed.stdout
    world = "from pad_cli.world.grammar import load_world; print(len(load_world().topics))"
    assert subprocess.run([python, "-c", world], check=True, capture_output=True, cwd=tmp_path).stdout.strip() == b"50"


def test_an_installed_wheel_answers_at_once_and_writes_nothing(installed: Path, tmp_path: Path) -> None:
    home, kept = tmp_path / "home", tmp_path / "kept"
    home.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PAD_HOME": str(kept)}
    command = ["generate", "How do I start with photography?", "--pref", "humorous", "--compare"]
    answered = subprocess.run(
        [installed / "pad", *command], check=True, capture_output=True, text=True, cwd=home, env=environment
    )
    assert "humorous (weight 1.5)" in answered.stdout
    assert "photography" in answered.stdout
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix not in (".lock", ".log")]
    assert written == []


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return [name for name in listed.splitlines() if (ROOT / name).is_file()]


def build(checkout: Path) -> dict[str, bytes]:
    """Archives by name, built from the tracked files alone, in a directory of their own."""
    for name in tracked():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, checkout / name)
    subprocess.run([sys.executable, "-m", "hatchling", "build"], check=True, capture_output=True, cwd=checkout)
    return {path.name: path.read_bytes() for path in (checkout / "dist").iterdir()}


def test_the_same_files_build_the_same_bytes_in_another_directory_under_another_umask(tmp_path: Path) -> None:
    first = build(tmp_path / "first")
    umask = os.umask(0o077)
    try:
        second = build(tmp_path / "somewhere" / "else")
    finally:
        os.umask(umask)
    assert sorted(name.rpartition(".")[2] for name in first) == ["gz", "whl"]
    assert first == second


def test_the_source_archive_holds_every_tracked_file_and_builds_the_same_wheel(tmp_path: Path) -> None:
    built = build(tmp_path / "checkout")
    archive = next((tmp_path / "checkout" / "dist").glob("*.tar.gz"))
    with tarfile.open(archive) as opened:
        opened.extractall(tmp_path / "unpacked", filter="data")
    (source,) = (tmp_path / "unpacked").iterdir()
    files = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    assert files == {*tracked(), "PKG-INFO"}
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run(command, check=True, capture_output=True, cwd=source)
    (wheel,) = (source / "dist").iterdir()
    assert wheel.read_bytes() == built[wheel.name]
