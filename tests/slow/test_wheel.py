"""The package as a user installs it: a wheel, outside the checkout."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parent.parent.parent


def test_an_installed_wheel_carries_its_recipes_and_its_world(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    wheel = next(tmp_path.glob("*.whl"))
    venv.create(tmp_path / "env", with_pip=True, system_site_packages=False)
    python = tmp_path / "env" / "bin" / "python"
    packages = next(Path(sys.prefix).glob("lib/python*/site-packages"))  # the dependencies of this environment
    (next((tmp_path / "env").glob("lib/python*/site-packages")) / "dependencies.pth").write_text(str(packages))
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    where = "import pad_cli, sys; print(pad_cli.__file__)"
    found = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert str(tmp_path) in found
    listed = subprocess.run(
        [tmp_path / "env" / "bin" / "pad", "recipe", "list"], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "embedded" in listed.stdout
    world = "from pad_cli.world.grammar import load_world; print(len(load_world().topics))"
    assert subprocess.run([python, "-c", world], check=True, capture_output=True, cwd=tmp_path).stdout.strip() == b"50"
