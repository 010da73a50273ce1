"""Links lead somewhere, quoted messages are ones that `pad` can say, and a figure is the same wherever it stands."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.documents.pages import BLOCKS, PAGES, ROOT, Block, outside_of_fences

_LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)$", re.MULTILINE)
_WRITTEN = "docs/reference"  # from the code, when the site is built


def links(page: Path) -> list[str]:
    """Where the links of a page lead."""
    return [first or second for first, second in _LINK.findall("\n".join(outside_of_fences(page)))]


def anchors(page: Path) -> set[str]:
    """The names by which the headings of a page can be linked to, as GitHub and the site make them."""
    titles = [line.lstrip("#").strip().lower() for line in outside_of_fences(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_within_the_repository_lead_to_files_and_headings(page: Path) -> None:
    for link in links(page):
        path, _, anchor = link.partition("#")
        if "://" in link or (page.parent / path).resolve().is_relative_to(ROOT / _WRITTEN):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_to_elsewhere_are_addresses(page: Path) -> None:
    for link in (link for link in links(page) if "://" in link):
        assert urlsplit(link).scheme == "https", link
        assert "." in (urlsplit(link).hostname or ""), link


def test_the_readme_links_to_no_page_that_only_the_site_has() -> None:
    assert not [link for link in links(ROOT / "README.md") if link.startswith(_WRITTEN)]


@cache
def texts_of_the_program() -> tuple[str, ...]:
    """Every string constant of the package; of an f-string the parts between its values."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "pad_cli").rglob("*.py"))
    return tuple(
        node.value
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def quoted_messages() -> list[str]:
    """The code in the first column of the tables of troubleshooting."""
    lines = outside_of_fences(ROOT / "docs" / "troubleshooting.md")
    rows = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    return [text for row in rows for text in re.findall(r"`([^`]+)`", row) if " " in text]


@pytest.mark.parametrize("message", quoted_messages())
def test_a_message_in_troubleshooting_is_one_that_the_program_says(message: str) -> None:
    for part in filter(None, (part.strip() for part in message.split("..."))):
        assert any(part in text for text in texts_of_the_program()), part


def test_troubleshooting_quotes_messages() -> None:
    assert len(quoted_messages()) > 20


def demo_figures(group: str, policy: str, weight: str) -> str:
    """The hit rate in a line of the demo's whole table."""
    text = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
    table = re.search(r"```text\n(.*?)```", text, re.DOTALL)
    assert table is not None
    part = re.search(rf"^{group} .*?(?=\n\n)", table[1], re.DOTALL | re.MULTILINE)
    assert part is not None
    line = re.search(rf"\b{policy} +\w+ +{weight} +[\d,]+ +(\d\.\d+) ", part[0])
    assert line is not None
    return line[1]


def test_the_readme_has_the_demos_figures() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([^|]+) \| (\d\.\d+ \| \d\.\d+(?:, \d\.\d+)?) \|$", readme, re.MULTILINE))
    groups = {
        "one principle": "single",
        "two principles that never occur together in training": "combination",
        "one principle, in unseen paraphrases": "paraphrase",
        "a principle absent from training": "untrained",
    }
    for title, group in groups.items():
        assert rows.pop(title) == f"{demo_figures(group, 'medium', '0')} | {demo_figures(group, 'medium', '1.5')}"
    others = ("small", "large")
    plain = {demo_figures("cross-policy", policy, "0") for policy in others}
    steered = ", ".join(demo_figures("cross-policy", policy, "1.5") for policy in others)
    assert rows == {"one principle, on the two other policies": f"{plain.pop()} | {steered}"}
    assert not plain


def rows_of(page: Path, pattern: str) -> list[list[str]]:
    """The cells of those table rows of a page whose first cell matches."""
    rows = [line.strip("| ").split(" | ") for line in outside_of_fences(page) if line.startswith("| ")]
    return [row for row in rows if re.match(pattern, row[0])]


@pytest.mark.parametrize("method", ["pad", "prompt", "soup", "morl-dpo"])
def test_the_readme_has_the_comparisons_figures(method: str) -> None:
    """One to three principles on the policy `medium`, and two on `following`, as docs/evaluation.md has them."""
    (row,) = rows_of(ROOT / "README.md", f"`{method}`:")
    *_, medium, following = rows_of(ROOT / "docs" / "evaluation.md", f"`{method}`$")
    assert row[1] == medium[1].partition(" (")[0]
    assert row[2:] == [figure.removesuffix(" ▼") for figure in (*medium[2:5], following[2])]


def defined_in(path: Path) -> set[str]:
    """Names of functions, classes and methods of a module."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
            names |= {f"{node.name}.{each.name}" for each in ast.walk(node) if isinstance(each, ast.FunctionDef)}
    return names


def test_every_function_that_the_method_names_exists() -> None:
    page = ROOT / "docs" / "method.md"
    named = re.findall(r"\[`([A-Za-z_.]+)`\]\(([^)]+\.py)\)", page.read_text(encoding="utf-8"))
    assert len(named) > 8
    for name, path in named:
        target = page.parent / path
        assert name == target.name or name in defined_in(target), name


def _listings() -> list[Block]:
    return [block for block in BLOCKS if block.language == "{literalinclude}"]


@pytest.mark.parametrize("block", _listings(), ids=str)
def test_every_listing_shows_a_function_that_exists(block: Block) -> None:
    path = re.search(r"literalinclude\} (\S+)", (ROOT / block.page).read_text().splitlines()[block.line - 1])
    shown = re.search(r"^:pyobject: (\S+)$", block.text, re.MULTILINE)
    assert path is not None
    assert shown is not None
    assert shown[1] in defined_in(ROOT / "docs" / path[1])
