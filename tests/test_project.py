"""What the project says of itself agrees: its versions, its bounds, its citation."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = ("gguf", "judge", "serve", "text")
"""What pad itself imports; the others are tools, or need a GPU."""
REQUIREMENTS = [
    Requirement(line)
    for line in (
        *PROJECT["dependencies"],
        *(each for name in EXTRAS for each in PROJECT["optional-dependencies"][name]),
    )
]


def pins(name: str) -> dict[str, Version]:
    """Versions of a file of constraints by the names of packages, as pip compares them."""
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
    parts = [line.partition("==") for line in lines]
    return {package.lower().replace("_", "-"): Version(version) for package, _, version in parts}


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_the_oldest_versions_are_the_lower_bounds(requirement: Requirement) -> None:
    (lowest,) = (Version(each.version) for each in requirement.specifier if each.operator == ">=")
    assert pins("constraints-oldest.txt")[requirement.name.lower()] == lowest


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_what_is_installed_by_default_is_within_the_bounds(requirement: Requirement) -> None:
    assert pins("constraints.txt")[requirement.name.lower()] in requirement.specifier


def test_the_citation_is_of_this_version_and_names_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    (paper,) = citation["references"]
    assert paper["authors"][0]["family-names"] == "Chen"
    assert "2410.04070" in paper["url"]
