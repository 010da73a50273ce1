"""The training report says the same in every form, hides no verdict, and is safe to open."""

from __future__ import annotations

import io
import json
import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from rich.console import Console

from pad_cli.errors import DataError
from pad_cli.pairs import describe
from pad_cli.records import DataReport, Dropped, PreferenceReport, SourceReport, SplitReport
from pad_cli.reports import document
from pad_cli.reports.training_report import console_tables, training_document, warnings_of
from pad_cli.training.metrics import HeadGeometry, LengthEffect, PairScores, Share, split_figures, summarise
from pad_cli.training.record import (
    MARKDOWN,
    PAGE,
    RECORD,
    Record,
    metrics_of,
    read_training_record,
    write_training_report,
)
from pad_cli.training.stages import StageRecord

LABELS = ("formal", "humorous")


def plain(content: Record) -> Record:
    """The same as JSON has it."""
    return dict(json.loads(json.dumps(content, default=asdict)))


def make_split(name: str = "dev", accuracy: float = 0.9, n: int = 200, labels: tuple[str, ...] = LABELS) -> Record:
    """A split of which a share is right; the baselines are right on half of it."""
    generator = torch.Generator().manual_seed(n)
    right = torch.arange(n) < accuracy * n
    margins = torch.rand(n, generator=generator) + 0.1
    tokens = torch.randint(5, 30, (2, n), generator=generator)
    zeros = torch.zeros(n)
    signed = margins.where(right, -margins)
    scores = PairScores(signed, zeros, 0.1 * signed, zeros, *tokens)
    guess = torch.tensor([1.0, -1.0]).repeat(n)[:n]
    asked = [labels[row % len(labels)] for row in range(n)]
    return plain(split_figures(name, scores, asked, {"length": guess, "bag_of_words": -guess}))


DATA = DataReport(
    sources=(
        SourceReport("pairs.jsonl", "train", 510, 505, 505, 500, 0, 1.0, (Dropped("row", "empty", 5, ("a:3",)),)),
    ),
    splits=(SplitReport("train", 500, 250, 1000, 30.0, 80.0, {"formal": PreferenceReport(250, 0.5)}),),
)
HISTORY: list[dict[str, Any]] = [
    {
        "step": step,
        "loss": 1 / step,
        "splits": {"dev": {"policy_accuracy": 0.7, "pair_accuracy": 0.6}} if step > 1 else {},
        "pair_accuracy": 0.5,
    }
    for step in (1, 2, 3)
]


def make_record(**changed: Any) -> Record:
    """A run about which there is nothing to warn of."""
    made = {
        "name": "my-rm",
        "backbone": "some/model",
        "conditioning": "heads",
        "principles": LABELS,
        "rank": 8,
        "has_adapter": False,
        "has_encoder": True,
        "pairs": 500,
        "preferences": dict.fromkeys(LABELS, 250),
        "answers": 1000,
        "cut_answers": 10,
        "max_answer_tokens": 96,
        "stages": (StageRecord("heads", 250, 12.5, HISTORY), StageRecord("encoder", 100, 130.0, [])),
        "calibration": (1.25,),
        "train": Share(0.93, 500, 0.9, 0.95),
        "splits": (make_split(), make_split("paraphrases")),
        "heads": HeadGeometry(LABELS, (1.5, 2.5), ((1.0, 0.1), (0.1, 1.0))),
        "data": {**asdict(DATA), "lengths": {}},
        "shuffled_labels": False,
        "seed": 0,
        "cut_to_context": 0,
        "context_length": None,
    }
    return plain({**made, **changed})


def made(record: Record) -> document.Document:
    tables = describe(TypeAdapter(DataReport).validate_python(record["data"]))
    return training_document(record, tables)


def page(record: Record) -> str:
    return document.page(made(record))


def markdown(record: Record) -> str:
    return document.markdown(made(record))


def warnings(record: Record) -> list[str]:
    return warnings_of(record)


def console_text(record: Record, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for renderable in console_tables(record):
        console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def every_form(record: Record) -> dict[str, str]:
    """All forms as plain text: no tags, no escapes, no line breaks."""
    visible = _Reader.visible(page(record))
    forms = {"html": visible, "markdown": re.sub(r"\\(.)", r"\1", markdown(record))}
    return {name: " ".join(text.split()) for name, text in {**forms, "console": console_text(record)}.items()}


class _Reader(HTMLParser):
    """Collects visible text, and checks that every element is closed where it should be."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    @classmethod
    def visible(cls, content: str) -> str:
        reader = cls()
        reader.feed(content)
        reader.close()
        assert reader.open == []
        return " ".join(reader.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


@pytest.mark.parametrize(("accuracy", "words"), [(0.9, "beats"), (0.5, "does not beat"), (0.2, "is worse than")])
def test_every_form_says_at_the_top_whether_each_split_beats_the_best_baseline(accuracy: float, words: str) -> None:
    record = make_record(splits=(make_split("dev"), make_split("rare", accuracy)))
    for form, text in every_form(record).items():
        found = re.findall(r"(\w+) \(200 pairs\): the reward model (.*?) the best baseline", text)
        assert found == [("dev", "beats"), ("rare", words)], form
    top = markdown(record).split("## ")[0]
    assert f"the reward model {words} the best baseline" in top
    assert f"the reward model {words} the best baseline" in page(record).split("<h2>")[0]


def test_the_best_baseline_is_the_one_that_is_right_most_often() -> None:
    split = make_split(n=201)  # length guesses one more of an odd number
    assert split["baselines"][0]["pair_accuracy"]["value"] > split["baselines"][1]["pair_accuracy"]["value"]
    assert "length on 50.2%" in markdown(make_record(splits=(split,)))


def test_every_form_says_what_the_model_is_and_its_accuracies() -> None:
    record = make_record()
    forms = every_form(record)
    for form in ("html", "markdown"):
        for words in ("some/model", "2 preference heads of rank 8 (formal, humorous)", "encoder for free text",
                      "500 preference pairs of 2 preferences", "heads (250 steps, 12 s)", "0.900", "paraphrases",
                      "pairs.jsonl", "empty", "a:3"):  # fmt: skip
            assert words in forms[form], (form, words)
    assert "0.900 (0.83 to 0.94)" in forms["console"]
    assert "one dense head" in markdown(make_record(conditioning="prompt", principles=(), heads=None))


def test_a_page_is_well_formed_and_needs_nothing_from_elsewhere() -> None:
    content = page(make_record())
    assert _Reader.visible(content)
    assert {"script", "link", "img", "iframe", "object"}.isdisjoint(re.findall(r"<(\w+)", content))
    assert not re.search(r"https?:|url\(|@import|src=|href=", content)
    assert "prefers-color-scheme: dark" in content
    assert content.count('<svg class="plot"') == 3  # two accuracies and the loss


EVIL = '<script>alert("1")</script> | *x* `y` [z](http://z) &amp; _u_ {braces} %s'


def test_text_of_unknown_origin_is_shown_as_it_is() -> None:
    splits = {EVIL: {"policy_accuracy": 1, "pair_accuracy": 1}}
    history = [{"step": 1, "loss": 0.5, "splits": splits, "pair_accuracy": 0.5}]
    record = make_record(
        name=EVIL,
        backbone=EVIL,
        principles=(EVIL, "formal"),
        preferences={EVIL: 250, "formal": 250},
        splits=(make_split(EVIL, labels=(EVIL, "formal")),),
        heads=HeadGeometry((EVIL, "formal"), (1.0, 1.0), ((1.0, 0.95), (0.95, 1.0))),
        stages=(StageRecord("heads", 3, 1.0, history),),
        data=asdict(replace(DATA, sources=(replace(DATA.sources[0], name=EVIL),))),
    )
    content = page(record)
    assert "<script" not in content
    reader = _Reader()
    reader.feed(content)
    assert " ".join(reader.text).count(EVIL) >= 8
    assert not [name for name, _ in reader.attributes if name.startswith("on")]
    text = markdown(record)
    assert not re.search(r"(?<!\\)<|(?<!\\)`|(?<!\\)\[", text)
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block
    assert console_text(record, width=2000).count(EVIL) >= 3


def test_a_line_break_in_a_name_breaks_no_table() -> None:
    text = markdown(make_record(splits=(make_split(labels=("a\nb", "formal")),)))
    assert "| a b | 100 |" in text


def test_what_is_written_can_be_read_and_gives_the_same_report(tmp_path: Path) -> None:
    record = make_record()
    write_training_report(tmp_path, record)
    assert json.dumps(read_training_record(tmp_path)) == json.dumps(record)
    assert (tmp_path / MARKDOWN).read_text() == markdown(record)
    assert (tmp_path / PAGE).read_text() == page(record)


@pytest.mark.parametrize("content", [None, "{", "[]", '{"name": "x"}', "\x00"])
def test_a_missing_or_foreign_report_is_an_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / RECORD).write_text(content)
    with pytest.raises(DataError, match=RECORD) as caught:
        read_training_record(tmp_path)
    assert caught.value.hint


def test_nothing_to_warn_of_gives_no_warning() -> None:
    assert warnings(make_record()) == []
    assert "Warnings" not in markdown(make_record())


def leaning(split: Record, correlation: float) -> Record:
    return {**split, "length": LengthEffect(correlation, 0.6, 0.8)}


def geometry(cosine: float) -> HeadGeometry:
    return HeadGeometry(LABELS, (1.0, 1.0), ((1.0, cosine), (cosine, 1.0)))


@pytest.mark.parametrize(
    ("quiet", "loud", "words"),
    [
        ({"splits": (make_split(n=100),)}, {"splits": (make_split(n=99),)}, "dev has 99 pairs"),
        ({"cut_answers": 200}, {"cut_answers": 210}, "21% of the answers were cut at the limits"),
        (
            {"cut_answers": 200, "context_length": 64},
            {"cut_answers": 210, "cut_to_context": 210, "context_length": 64},
            "21% of the answers were cut at the limits",
        ),
        (
            {"train": Share(0.98, 90, 0.92, 1.0)},
            {"splits": (make_split(), make_split("far", 0.6))},
            "0.93 on training pairs and 0.60 on far",
        ),
        (
            {"heads": geometry(-0.5)},
            {"heads": geometry(-0.51)},
            "oppose each other: 'formal' and 'humorous'",
        ),
        ({"heads": geometry(0.9)}, {"heads": geometry(0.91)}, "Heads that do the same"),
        (
            {"preferences": {"formal": 100, "humorous": 10}},
            {"preferences": {"formal": 101, "humorous": 10}},
            "'formal' has 101 training pairs, 'humorous' 10",
        ),
        ({"splits": (leaning(make_split(), 0.5),)}, {"splits": (leaning(make_split(), 0.51),)}, "+0.51"),
        ({"splits": (leaning(make_split(), -0.5),)}, {"splits": (leaning(make_split(), -0.51),)}, "-0.51"),
        ({"train": None}, {"splits": ()}, "There is no validation split"),
        ({"shuffled_labels": False}, {"shuffled_labels": True}, "swapped at random"),
    ],
)
def test_each_warning_comes_when_it_must_and_only_then(quiet: dict[str, Any], loud: dict[str, Any], words: str) -> None:
    assert warnings(make_record(**quiet)) == []
    (warning,) = warnings(make_record(**loud))
    assert words in warning
    for form, text in every_form(make_record(**loud)).items():
        assert " ".join(warning.split()) in text, form


def test_balance_counts_in_how_many_pairs_a_principle_is_asked_for() -> None:
    rare_together = {"formal": 100, "humorous": 90, "formal, not humorous=0.5": 1}
    assert warnings(make_record(preferences=rare_together)) == []
    (warning,) = warnings(make_record(preferences={"formal": 91, "formal, not humorous": 9}))
    assert "'formal' has 100 training pairs, 'humorous' 9" in warning


def test_a_gap_that_chance_explains_is_no_overfitting() -> None:
    small = make_split(accuracy=0.8, n=100)
    assert warnings(make_record(train=Share(0.92, 20, 0.75, 0.98), splits=(small,))) == []


def test_metrics_are_those_of_the_scores_and_say_what_the_baselines_reach() -> None:
    zeros = torch.zeros(4)
    scores = PairScores(torch.tensor([1.0, 2, -1, 3]), zeros, torch.tensor([1.0, -1, -1, 1]), zeros, *torch.ones(2, 4))
    guess = torch.tensor([1.0, -1, -1, -1])
    record = make_record(splits=(split_figures("dev", scores, ["a", "a", "b", "b"], {"length": guess}),))
    found = metrics_of(record)["dev"]
    assert list(found)[:4] == list(summarise(scores.margins, scores.guided_margins))
    assert found["pair_accuracy"] == 0.75
    assert found["baselines"]["length"] == {
        "pair_accuracy": 0.25,
        "reward_model": "does not beat",
        "difference": 0.5,
        "p": 0.5,
    }
    assert {label: row["pair_accuracy"] for label, row in found["preferences"].items()} == {"a": 1.0, "b": 0.5}
    assert {label: row["policy_accuracy"] for label, row in found["preferences"].items()} == {"a": 0.5, "b": 0.5}
    assert {label: row["baselines"] for label, row in found["preferences"].items()} == {
        "a": {"length": 0.5},
        "b": {"length": 0.0},
    }
    assert json.loads(json.dumps(found)) == found


def test_figures_that_do_not_exist_are_not_shown_as_numbers() -> None:
    zeros, same = torch.zeros(120), torch.full((120,), 7)
    split = split_figures("dev", PairScores(zeros, zeros, zeros, zeros, same, same), ["a"] * 120, {"length": zeros})
    record = make_record(splits=(split,), train=None, stages=(), heads=None, data={})
    for form, text in every_form(record).items():
        assert not re.search(r"\bnan\b|\bNone\b|\binf\b", text), form


@pytest.mark.parametrize("count", [1, 40])
def test_a_table_of_many_heads_is_whole(count: int) -> None:
    names = tuple(f"principle-{number}" for number in range(count))
    cosines = tuple(tuple(float(row == column) for column in range(count)) for row in range(count))
    text = markdown(make_record(heads=HeadGeometry(names, (1.0,) * count, cosines)))
    assert len(re.findall(r"^\| principle-\d+ \| 1 \|", text, flags=re.MULTILINE)) == count
