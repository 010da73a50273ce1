"""The site builds without a warning, has every page, and needs nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import typer

import pad_cli
from pad_cli.cli.main import app
from pad_cli.recipe import EvalRecipe, GenerateRecipe, Stage, TrainRecipe
from tests.documents.pages import PAGES, ROOT

_LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does, from a copy, so that nothing is written into the checkout."""
    pytest.importorskip("sphinx", reason="the site is built by developers only: extra dev, not test")
    root = tmp_path_factory.mktemp("site")
    for name in ("docs", "pad_cli", "recipes", "data"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "reference"))
    for path in ROOT.glob("*.md"):
        shutil.copy(path, root)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "out"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return root / "out"


class _Page(HTMLParser):
    """What a page loads, where it links to, and the names of its places."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attributes if value}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if tag in _LOADS and _LOADS[tag] in given:
            self.loads.append(given[_LOADS[tag]])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])


def test_every_document_is_a_page(site: Path) -> None:
    documents = {path.stem for path in PAGES if path.parent == ROOT / "docs"}
    assert documents <= {path.stem for path in site.glob("*.html")}
    assert (site / "reference" / "contributing.html").is_file()


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        assert [url for url in _Page(path).loads if re.match(r"(https?:)?//", url)] == [], path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8")), path.name


def test_every_link_within_the_site_leads_to_a_file_and_a_place(site: Path) -> None:
    pages = {path: _Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            file, _, place = link.partition("#")
            target = (path.parent / file).resolve() if file else path
            assert target.is_file(), f"{path.name}: {link}"
            if place and target in pages:
                assert place in pages[target].places, f"{path.name}: {link}"


def test_the_command_reference_has_every_command_and_option(site: Path) -> None:
    text = (site / "reference" / "commands.html").read_text(encoding="utf-8")

    def look(command: object, path: str) -> None:
        section = re.search(rf'<section id="{path.replace(" ", "-")}">.*?(?=<section|\Z)', text, re.DOTALL)
        assert section is not None, path
        for parameter in getattr(command, "params", ()):
            for name in (name for name in parameter.opts if name.startswith("--")):
                assert re.search(rf"<code[^>]*>[^\n]*{name}\b", section[0]), f"{path} {name}"
        for name, child in getattr(command, "commands", {}).items():
            look(child, f"{path} {name}")

    look(typer.main.get_command(app), "pad")


@pytest.mark.parametrize("model", [TrainRecipe, GenerateRecipe, EvalRecipe, Stage])
def test_the_recipe_reference_has_every_key_with_its_sentence(site: Path, model: type[TrainRecipe]) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "reference" / "recipes.html").read_text(encoding="utf-8"))
    for name, field in model.model_fields.items():
        assert name in text
        words = re.findall(r"\w+", field.description or "")
        assert " ".join(words) in " ".join(re.findall(r"\w+", text)), name


def test_no_page_has_a_second_title(site: Path) -> None:
    """As one that a # in somebody's help would make."""
    for page in site.rglob("*.html"):
        assert page.read_text(encoding="utf-8").count("<h1") <= 1, page.relative_to(site)


def test_the_python_reference_has_every_public_name(site: Path) -> None:
    places = _Page(site / "reference" / "api.html").places
    assert {f"pad_cli.{name}" for name in pad_cli.__all__} <= places
