"""The pages say what the files say, need nothing from elsewhere, and are safe to open."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pad_cli.errors import DataError
from pad_cli.evaluation.answering import prompt_key
from pad_cli.evaluation.contract import Answer, System
from pad_cli.evaluation.outputs import COSTS, JUDGED, MARKDOWN, OUTPUTS, PAGE, REPORT, write_outputs, write_pages
from pad_cli.records import BenchmarkItem, as_messages
from pad_cli.reports.document import MARKS
from pad_cli.reports.evaluation_report import full_colour
from pad_cli.reports.evaluation_tables import method_name
from pad_cli.system.runs import write_json
from tests.evaluation.reports import report_of, score, scores

SHARES = [0.1, 0.4, 0.5, 0.7, 0.2, 0.9, 0.3, 0.6]
EVIL = '<script>alert("1")</script> | *x* `y` [z](http://z) &amp; _u_ {braces} %s'
COST = {"models": 2, "parameters": 1234, "training_seconds": 5.5, "answers": 8, "tokens": 100, "seconds": 3.0}
JUDGE = {
    "model": "some-judge",
    "complete": False,
    "position": {"first": 7, "second": 3, "tie": 1},
    "pairwise": [
        {
            "policy": "home",
            "method": "base",
            "guidance_weight": 0.0,
            "opponent": "pad",
            "opponent_weight": 1.0,
            "group": "single",
            "preference": preference,
            "n": 8,
            "prompts": 8,
            "win_rate": rate,
            "low": 0.125,
            "high": 0.375,
            "length_controlled": 0.3125,
            "length_controlled_low": None,
            "wins": 1,
            "ties": 2,
            "length_controlled_high": None,
            "losses": 5,
            "unparsed": 1,
            "failed": 2,
            "missing": 3,
            "disagreed": 1,
        }
        for preference, rate in (("*", 0.2475), ("formal", 0.7777))
    ],
}


def directory_of(directory: Path, report: dict[str, Any], answers: list[Answer] | None = None) -> Path:
    """A finished run without its logs."""
    write_json(directory / REPORT, report)
    who = dict.fromkeys((row["method"], row["policy"], row["guidance_weight"]) for row in report["rows"])
    costs = [
        {"method": method, "policy": policy, **COST, "guidance_weight": weight, "seconds_per_100_tokens": 3.0 + number}
        for number, (method, policy, weight) in enumerate(who)
    ]
    write_json(directory / COSTS, costs)
    write_outputs(answers or answers_of("home", "pad", ["Yes."]), [], directory)
    write_pages(directory)
    return directory


def answers_of(policy: str, method: str, texts: list[str], *, label: str = "formal", seed: int = 0) -> list[Answer]:
    items = [
        BenchmarkItem(f"{label}/{number}", "single", label, as_messages(f"Why {number}?"), (label,))
        for number in range(len(texts))
    ]
    system = System(method, policy, 1.0)
    return [Answer(item, text, system, seed) for item, text in zip(items, texts, strict=True)]


@pytest.fixture
def report() -> dict[str, Any]:
    """Two methods of two groups by two scorers; one answer failed, and `base` is worse."""
    lower = [value - 0.1 for value in SHARES]
    base: dict[str, Any] = {"method": "base", "guidance_weight": 0.0}
    return report_of(
        *(each for name in ("hit", "repeated_4grams") for each in scores(SHARES, scorer=name)),
        *(each for name in ("hit", "repeated_4grams") for each in scores(lower, scorer=name, **base)),
        *scores(SHARES, scorer="hit", preference="funny", group="other"),
        *scores([None, *lower[1:]], scorer="hit", preference="funny", group="other", **base),
    )


class Tables(HTMLParser):
    """Every table of a page as rows of cells, each cell with its text and its numbers; and all visible text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[list[list[dict[str, Any]]]] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.heading = ""
        self.headings: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag in ("meta", "br", "input"):
            return
        self.open.append(tag)
        if tag == "table":
            self.tables.append([])
            self.headings.append(self.heading)
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append({"text": "", "values": []})
        elif tag == "data":
            self.tables[-1][-1][-1]["values"].append(float(dict(attrs)["value"] or "nan"))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)
            if self.open[-1] == "h2":
                self.heading = data
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1]["text"] += data

    def below(self, heading: str) -> list[list[list[dict[str, Any]]]]:
        return [table for table, above in zip(self.tables, self.headings, strict=True) if above == heading]


def test_every_mean_in_the_page_is_the_one_in_the_report(report: dict[str, Any], tmp_path: Path) -> None:
    page = Tables((directory_of(tmp_path, report) / PAGE).read_text())
    seen = 0
    for row in report["rows"]:
        if row["preference"] == "*":
            (table,) = page.below(f"Means: {row['group']}")
            line = next(line for line in table if line[1]["text"] == method_name(row["method"], row["guidance_weight"]))
            assert line[2]["values"] == [row["n"]]
        else:
            tables = [
                table for table in page.below("By preference") if row["preference"] in {r[0]["text"] for r in table}
            ]
            table = tables[0 if row["scorer"] == "hit" else -1]
            line = next(line for line in table if line[0]["text"] == row["preference"])
        names = [cell["text"].split(" (")[0].removesuffix(" ↓") for cell in table[0]]
        column = row["scorer"] if row["preference"] == "*" else method_name(row["method"], row["guidance_weight"])
        cell = line[names.index(column)]
        if row["mean"] is None:
            assert cell["text"] == "1 failed"
        else:
            assert cell["values"] == [row["mean"]]
            assert f"{row['mean']:.3f}" in cell["text"]
            assert f"{row['low']:.3f} to {row['high']:.3f}" in cell["text"]
        seen += 1
    assert seen == len(report["rows"]) == 12


def test_every_comparison_in_the_page_is_the_one_in_the_report(report: dict[str, Any], tmp_path: Path) -> None:
    page = Tables((directory_of(tmp_path, report) / PAGE).read_text())
    shown = [line for table in page.below("Against pad at 1") for line in table[1:]]
    assert len(shown) == len(report["comparisons"]) == 3
    for line, row in zip(shown, report["comparisons"], strict=True):
        assert [line[place]["text"] for place in (0, 1, 2, 8)] == ["home", row["scorer"], "base", row["verdict"]]
        figures = [value for cell in line[3:8] for value in cell["values"]]
        names = ("n", "difference", "p", "p_holm", "effect_size")
        assert figures == [row[name] for name in names if row[name] is not None]


def test_marks_are_those_of_the_comparisons_in_every_form(report: dict[str, Any], tmp_path: Path) -> None:
    """`base` is lower by every scorer: worse by one, better by the one where lower is better."""
    directory = directory_of(tmp_path, report)
    page, text = (directory / PAGE).read_text(), (directory / MARKDOWN).read_text()
    (table,) = Tables(page).below("Means: single")
    line = next(line for line in table if line[1]["text"] == "base")
    assert [mark for cell in line for mark in MARKS.values() if mark in cell["text"]] == ["▼", "▲"]
    row = next(line for line in text.splitlines() if "| base |" in line)
    assert [letter for letter in row if letter in "▲▼"] == ["▼", "▲"]
    assert "worse than the reference" in page


def test_markdown_has_the_reports_figures(report: dict[str, Any], tmp_path: Path) -> None:
    text = (directory_of(tmp_path, report) / MARKDOWN).read_text()
    for row in report["rows"]:
        if row["mean"] is not None and (row["preference"] == "*" or row["scorer"] == "hit"):
            assert f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})" in text
    assert "'hit' failed on 1 answers" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def test_costs_are_shown(report: dict[str, Any], tmp_path: Path) -> None:
    content = (directory_of(tmp_path, report) / PAGE).read_text()
    (table,) = Tables(content).below("What it costs")
    assert [[value for cell in line for value in cell["values"]] for line in table[1:]] == [
        [2, 1234, 5.5, 8, 100, 3.0],
        [2, 1234, 5.5, 8, 100, 4.0],
    ]


def test_win_rates_are_shown_when_something_was_judged(report: dict[str, Any], tmp_path: Path) -> None:
    directory = directory_of(tmp_path, report)
    assert "Win rates" not in (directory / PAGE).read_text()
    write_json(directory / JUDGED, JUDGE)
    write_pages(directory)
    content = (directory / PAGE).read_text()
    (table,) = Tables(content).below("Win rates")
    assert [value for cell in table[1] for value in cell["values"]] == [8, 0.2475, 0.3125]
    assert [cell["text"] for cell in table[1][-2:]] == ["1", "6 (unparsed, failed, missing)"]
    assert "0.7777" not in content, "only pooled rows"
    assert "Not everything was judged" in content
    assert "0.247 (0.125 to 0.375)" in (directory / MARKDOWN).read_text()


def test_the_page_needs_nothing_from_elsewhere(report: dict[str, Any], tmp_path: Path) -> None:
    content = (directory_of(tmp_path, report) / PAGE).read_text()
    assert {"script", "link", "img", "iframe", "object"}.isdisjoint(re.findall(r"<(\w+)", content))
    assert not re.search(r"https?:|url\(|@import|src=|href=|fetch\(", content)
    assert "default-src 'none'" in content
    assert "prefers-color-scheme: dark" in content


def test_text_of_unknown_origin_is_shown_as_it_is(tmp_path: Path) -> None:
    report = report_of(*scores(SHARES, scorer="hit", preference=EVIL, group=EVIL, policy=EVIL))
    answers = answers_of(EVIL, EVIL, [EVIL], label=EVIL)
    directory = directory_of(tmp_path, report, answers)
    content, text = (directory / PAGE).read_text(), (directory / MARKDOWN).read_text()
    assert "<script" not in content
    page = Tables(content)
    assert " ".join(page.text).count(EVIL) >= 8
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not re.search(r"(?<!\\)<|(?<!\\)`|(?<!\\)\[", text)


def test_answers_stand_beside_each_other_with_their_places_and_scores(report: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / REPORT, report)
    write_json(tmp_path / COSTS, [])
    answers = [
        answer for method in ("base", "pad") for answer in answers_of("home", method, [f"{method} says\n1 < 2", "b"])
    ]
    key = prompt_key(answers[0].item)
    scored = [
        score(value, key, method=method, item="formal/0", scorer="hit")
        for method, value in (("base", 0.25), ("pad", 0.5), ("pad", 0.75))
    ]
    write_outputs(answers, scored, tmp_path)
    outputs = json.loads((tmp_path / OUTPUTS).read_text())
    assert (outputs["answers"], outputs["shown"], len(outputs["items"])) == (4, 4, 2)
    assert [each["scores"] for each in outputs["items"][0]["answers"]] == [{"hit": 0.25}, {"hit": 0.5}]
    write_pages(tmp_path)
    content = (tmp_path / PAGE).read_text()
    assert content.count("<article>") == 2
    assert "pad says\n1 &lt; 2" in content
    assert "home · single · formal" in content
    assert "4 of 4 answers" in content


def with_tokens(directory: Path, report: dict[str, Any], *answers: list[tuple[str, float]] | None) -> str:
    """The page of a run whose `outputs.json` has token rewards, as earlier versions wrote; None for no rewards."""
    write_json(directory / REPORT, report)
    write_json(directory / COSTS, [])
    texts = ["plain" if each is None else "".join(text for text, _ in each) for each in answers]
    write_outputs(answers_of("home", "pad", texts), [], directory)
    outputs = json.loads((directory / OUTPUTS).read_text())
    for item, tokens in zip(outputs["items"], answers, strict=True):
        item["answers"][0]["tokens"] = tokens
    write_json(directory / OUTPUTS, outputs)
    write_pages(directory)
    return (directory / PAGE).read_text()


def test_tokens_are_coloured_by_reward_on_one_scale(report: dict[str, Any], tmp_path: Path) -> None:
    first = [("I", 0.1), (" like", 2.0), (" it", -0.5), ("", -8.0)]
    content = with_tokens(tmp_path, report, first, [("No", 1.0), ("", 0.0)], None)
    assert (
        '<p>I <span class="p1" title="+2.00">like</span> it <span class="n4 end" title="-8.00">end</span></p>'
    ) in content, "full at 8, half of all reward; 0.5 is near 0"
    assert "<p>No</p>" in content
    assert "<p>plain</p>" in content
    assert "-8 nats" in content
    assert content.count('type="checkbox"') == 1
    for name in ("p1", "p4", "n1", "n4"):
        assert re.search(rf"\.{name} {{ background: rgba", content)
    assert Tables(content).open == []


def test_without_rewards_nothing_is_coloured_and_there_is_no_box(report: dict[str, Any], tmp_path: Path) -> None:
    for answers in ([None], [[("Yes", 0.0), ("", 0.0)]]):
        content = with_tokens(tmp_path, report, *answers)
        assert "checkbox" not in content
        assert not re.search(r'<span class="[pn]\d', content)


def test_tokens_of_unknown_origin_are_shown_as_they_are(report: dict[str, Any], tmp_path: Path) -> None:
    pieces = [(EVIL[:9], 5.0), (EVIL[9:], 0.0), (" " + EVIL, -5.0), ("\n", 5.0), ("", 0.0)]
    content = with_tokens(tmp_path, report, pieces)
    assert "<script" not in content
    text = "".join(Tables(content).text)
    assert f"{EVIL} {EVIL}\n" in text


@pytest.mark.parametrize(
    ("rewards", "full"),
    [([], 0.0), ([0.0, 0.0], 0.0), ([0.01] * 90 + [2.44, -2.46], 2.4), ([1.0, -1.0], 1.0), ([1e-5], 1e-5)],
)
def test_colours_are_full_where_half_of_all_reward_is(rewards: list[float], full: float) -> None:
    assert full_colour([[("x", reward) for reward in rewards]]) == pytest.approx(full)


def test_few_answers_show_every_preference_and_every_policy(tmp_path: Path) -> None:
    """900 items of three preferences and two policies, ten methods: 40 items are shown, as many of each."""
    answers: list[Answer] = []
    for policy in ("home", "away"):
        for method in range(10):
            for label in ("a", "b", "c"):
                answers += answers_of(policy, f"m{method}", ["x"] * 150, label=label)
    write_outputs([*answers, *(each._replace(seed=1) for each in answers[:450])], [], tmp_path)
    outputs = json.loads((tmp_path / OUTPUTS).read_text())
    assert (outputs["answers"], outputs["shown"], len(outputs["items"])) == (9450, 400, 40)
    places = [(item["policy"], item["preference"]) for item in outputs["items"]]
    assert {places.count(place) for place in places} == {6, 7}
    assert len(set(places)) == 6
    assert all(len(item["answers"]) == 10 for item in outputs["items"])


@pytest.mark.parametrize("name", ["report.json", OUTPUTS, COSTS])
def test_an_unfinished_run_has_no_pages_and_says_so(report: dict[str, Any], tmp_path: Path, name: str) -> None:
    directory = directory_of(tmp_path, report)
    (directory / name).write_text("{")
    with pytest.raises(DataError, match=re.escape(name)) as caught:
        write_pages(directory)
    assert caught.value.hint
