"""Whatever data say, a page shows it: its elements and attributes are those that it has for harmless words."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pad_cli.decoding.detokenize import Candidate, TokenChoice
from pad_cli.decoding.heat_map import heat_map
from pad_cli.evaluation.outputs import MARKDOWN, PAGE
from pad_cli.evaluation.report import Reference, build_report
from pad_cli.reports.charts import Point, Series, plot
from pad_cli.reports.document import Cell, Document, Figure, Section, Table, page
from tests.cli.test_commands import pad
from tests.evaluation.reports import SCORERS, make_recipe, scores
from tests.evaluation.test_report_page import answers_of, directory_of
from tests.hostile.budget import examples, fuzzed
from tests.hostile.conftest import World
from tests.training.conftest import make_rows, write_rows

SCRIPT = "</script><script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(1)>"
QUOTES = '" onmouseover="alert(1)" x=\'y\' `'
SHAPES = "</title></style></svg></text><svg onload=alert(1)><!-- --> <![CDATA[ ]]>"
OTHERS = "\u2028\u2029&lt;{title}{0}%s\\u003cscript\x00"
WORDS = st.sampled_from([SCRIPT, IMAGE, QUOTES, SHAPES, OTHERS, "javascript:alert(1)", "&", "<", ">", '"', "'"])
TEXTS = WORDS | st.text(max_size=8) | st.lists(WORDS, max_size=3).map("".join)
TRIED = (SCRIPT, IMAGE, QUOTES, SHAPES, OTHERS)


class Skeleton(HTMLParser):
    """Elements and the names of their attributes; and all text, as a reader sees it."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, ...]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.in_script = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.in_script = tag == "script"
        self.elements.append((tag, *(name for name, _ in attributes)))
        self.text += [value for _, value in attributes if value]

    def handle_data(self, data: str) -> None:
        (self.scripts if self.in_script else self.text).append(data)

    def handle_endtag(self, tag: str) -> None:
        self.in_script = False


def shows(render: Callable[[str], str], text: str) -> Skeleton:
    """Check a page with a text everywhere against one with a harmless word."""
    found, harmless = Skeleton(render(text)), Skeleton(render("word"))
    assert found.elements == harmless.elements
    assert found.scripts == harmless.scripts
    return found


def examples_of(test: Any) -> Any:
    for text in TRIED:
        test = example(text=text)(test)
    return test


@fuzzed
@given(text=TEXTS)
@examples_of
def test_sections_and_charts_show_whatever_they_are_given(text: str) -> None:
    def render(word: str) -> str:
        points = (Point(1.0, 2.0, word), Point(2.0, 3.0, word))
        cell = Cell(word, word, "better", 1.0)
        table = Table((word, word), ((word, cell),), "<>", word)
        chart = plot([Series(word, points, points)] * 7, word, word)
        section = Section(word, (word,), (table, replace(table, fold="open")), (Figure(word, chart),))
        return page(Document(word, (word,), (word,), (section,)))

    shows(render, f"x{text}")


@fuzzed
@given(text=TEXTS)
@examples_of
def test_the_map_of_an_answer_shows_whatever_was_asked_and_said(text: str) -> None:
    def render(word: str) -> str:
        candidate = Candidate(word, 0.5, 1.0)
        return heat_map(word, word, [TokenChoice(0, word, word, 1.0, (candidate,))])

    shows(render, f"x{text}")


@examples(12)
@given(text=TEXTS)
@examples_of
def test_an_evaluations_page_shows_whatever_its_recipe_its_data_and_its_models_say(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def render(word: str) -> str:
        method, other, scorer = f"pad{word}", f"base{word}", f"s{word}"
        names: dict[str, Any] = {"policy": f"p{word}", "group": f"g{word}", "scorer": scorer}
        found = [
            *scores([1.0, 2.0, 3.0], method=method, preference=f"f{word}", **names),
            *scores([1.0, 1.0, None], method=other, preference=f"f{word}", **names),
        ]
        recipe = make_recipe(scorers=[{"scorer": "words", "name": scorer}], policies={f"p{word}": {"model": word}})
        report = build_report(recipe, found, {scorer: SCORERS["words"]}, Reference(method, 1.0))
        answers = answers_of(f"p{word}", method, [word, word], label=f"f{word}")
        directory = directory_of(tmp_path_factory.mktemp("page"), report, answers)
        assert not re.search(r"(?<!\\)<\w", (directory / MARKDOWN).read_text(encoding="utf-8"))
        return (directory / PAGE).read_text(encoding="utf-8")

    found = shows(render, f"x{text}")
    assert not found.scripts
    assert any("default-src 'none'" in each and "script-src" not in each for each in found.text)


def test_the_page_of_a_training_shows_whatever_its_rows_say(world: World) -> None:
    def render(word: str) -> str:
        rows = [{**row, "preference": f"{row['preference']}{word}"} for row in make_rows(60, 0)]
        held = write_rows(world.root / "held.jsonl", [{**row, "prompt": f"{row['prompt']}?"} for row in rows[:8]])
        data = {"train": write_rows(world.root / "rows.jsonl", rows), "validation": {f"held{word}": held}}
        content = {
            "kind": "train-rm",
            "output": str(world.root / f"trained{len(word)}"),
            "backbone": {"model": str(world.policy)},
            "data": data,
            "stages": [{"stage": "heads", "steps": 4, "batch_size": 8}],
            "heads": {"rank": 2},
        }
        done = pad("train-rm", world.recipe("pages", content), "-q")
        assert done.exit_code == 0, done.stderr
        return (world.root / f"trained{len(word)}" / "report.html").read_text(encoding="utf-8")

    hostile = f"{SCRIPT}{IMAGE}{QUOTES}"
    found = shows(render, hostile)
    assert sum(hostile in each for each in found.text) > 3, "and it is shown as it is"


def test_every_page_is_made_where_its_policy_is() -> None:
    """No other module opens a document of its own, which would have no policy."""
    import pad_cli

    package = Path(pad_cli.__file__).parent
    files = [path for path in package.rglob("*.*") if path.suffix in (".py", ".j2", ".html")]
    opening = {path.name for path in files if re.search('^<!doctype|"""<!doctype', path.read_text(), re.I | re.M)}
    assert opening == {"page.html.j2"}
