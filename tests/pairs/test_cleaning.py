"""What is taken out of the pairs, and that every row and pair is accounted for."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pad_cli.errors import DataError
from pad_cli.records import PairData, SourceReport
from tests.pairs.conftest import Write, load, make_pair, texts_of

GOOD = make_pair("How?", "humorous", "Ha.", "So.")


def dropped(data: PairData, number: int = 0) -> dict[str, int]:
    return {entry.reason: entry.count for entry in data.report.sources[number].dropped if entry.what == "pair"}


def test_pairs_of_equal_answers_are_dropped_and_named(write: Write) -> None:
    path = write(GOOD, make_pair("Why?", "humorous", "So. ", "So."))
    data = load(path)
    assert texts_of(data) == [("How?", "humorous", "Ha.", "So.")]
    (entry,) = data.report.sources[0].dropped
    assert (entry.what, entry.reason, entry.examples) == ("pair", "chosen equals rejected", (f"{path}:2",))


def test_of_exact_duplicates_the_first_stays(write: Write) -> None:
    same = {**GOOD, "preference": {"humorous": 1.0}}
    data = load(write(GOOD, same, {**GOOD, "preference": {"humorous": 2.0}}, GOOD))
    assert [dict(pair.preference) for pair in data.train] == [{"humorous": 1.0}, {"humorous": 2.0}]
    assert dropped(data) == {"duplicate": 2}


def test_contradictions_are_dropped_on_both_sides(write: Write) -> None:
    turned = make_pair("How?", "humorous", "So.", "Ha.")
    others = [make_pair("How?", "formal", "So.", "Ha."), make_pair("Why?", "humorous", "So.", "Ha.")]
    data = load(write(GOOD, turned, GOOD, *others))
    assert [text[:2] for text in texts_of(data)] == [("How?", "formal"), ("Why?", "humorous")]
    assert dropped(data) == {"duplicate": 1, "contradiction: the same two answers also the other way round": 2}


def test_a_pair_that_two_sources_hold_is_trained_on_once_and_counted_for_the_second(write: Write) -> None:
    sources = [{"path": str(write(GOOD, name=name))} for name in ("a.jsonl", "b.jsonl")]
    sources.append({"path": str(write(make_pair("Why?", "humorous", "a", "b"), name="c.jsonl"))})
    data = load(sources)
    assert len(data.train) == 2
    assert [dropped(data, number) for number in range(3)] == [{}, {"duplicate": 1}, {}]


def test_prompts_of_a_validation_split_are_dropped_from_training_only(write: Write) -> None:
    train = write(GOOD, make_pair("Why?", "humorous", "a", "b"), make_pair("Why  not?", "humorous", "a", "b"))
    dev = write(make_pair(" how?\n", "formal", "c", "d"), make_pair("WHY not?", "formal", "c", "d"), name="dev.jsonl")
    data = load(train, validation={"dev": str(dev)})
    assert [text[0] for text in texts_of(data)] == ["Why?"]
    assert len(data.validation[0].pairs) == 2
    assert dropped(data) == {"prompt of a validation split": 2}
    assert dropped(data, 1) == {}


def test_a_longer_conversation_with_the_same_last_question_is_another_prompt(write: Write) -> None:
    longer = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
    longer.append({"role": "user", "content": "How?"})
    data = load(write(GOOD), validation={"dev": str(write({**GOOD, "prompt": longer}, name="dev.jsonl"))})
    assert len(data.train) == 1


def test_validation_splits_are_cleaned_too(write: Write) -> None:
    dev = write(*[make_pair("Why?", "humorous", "a", "b")] * 2, make_pair("Why?", "humorous", "a", "a"), name="d.jsonl")
    data = load(write(GOOD), validation={"dev": str(dev)})
    assert len(data.validation[0].pairs) == 1
    assert dropped(data, 1) == {"duplicate": 1, "chosen equals rejected": 1}
    assert data.report.sources[1].split == "dev"


@pytest.mark.parametrize("where", ["train", "validation"])
def test_nothing_left_is_an_error_that_counts_the_reasons(write: Write, where: str) -> None:
    bad = write({**GOOD, "chosen": "So."}, GOOD, {**GOOD, "chosen": "So.", "rejected": "Ha."}, name="bad.jsonl")
    good = write(make_pair("Why?", "humorous", "a", "b"))
    train, dev = (bad, good) if where == "train" else (good, bad)
    with pytest.raises(DataError, match=f"no {where}.* pairs are left") as caught:
        load(train, validation={"dev": str(dev)})
    assert "1 pair: chosen equals rejected" in caught.value.message
    assert "2 pairs: contradiction" in caught.value.message


_letters = st.sampled_from(["a", "b", "A", " a", ""])
_row = st.fixed_dictionaries(
    {"prompt": _letters, "preference": st.sampled_from(["p", "q", {"p": 1}, {"p": -1}, {}]), "chosen": _letters},
    optional={"rejected": _letters},
)
_lines = st.lists(st.one_of(_row.map(json.dumps), st.sampled_from(["{", "3"])), min_size=1, max_size=12)


def balances(source: SourceReport) -> None:
    count = {what: sum(e.count for e in source.dropped if e.what == what) for what in ("row", "pair")}
    assert source.rows == source.rows_used + count["row"]
    assert source.pairs_made == source.pairs_kept + count["pair"]
    assert all(1 <= len(entry.examples) <= min(entry.count, 3) for entry in source.dropped)


def load_lines(lines: list[str], dev: list[str], **data: Any) -> PairData | None:
    """None where nothing is left."""
    with tempfile.TemporaryDirectory() as scratch:
        paths = [Path(scratch) / name for name in ("train.jsonl", "dev.jsonl")]
        for path, content in zip(paths, (lines, dev), strict=True):
            path.write_text("\n".join(content))
        try:
            return load(paths[0], bad_rows="drop", validation={"dev": str(paths[1])} if dev else {}, **data)
        except DataError as error:
            assert "pairs are left" in error.message  # noqa: PT017  # not every example raises it
            return None


@given(_lines, _lines | st.just([]), st.booleans())
def test_every_row_and_pair_is_used_or_counted_with_a_reason(lines: list[str], dev: list[str], contrast: bool) -> None:
    data = load_lines(lines, dev, contrast=contrast)
    if data is not None:
        assert data.report.sources[0].rows == len(lines)
        for source in data.report.sources:
            balances(source)
        source = data.report.sources[0]
        assert len(data.train) == source.pairs_kept + source.contrast_pairs
        assert [split.pairs for split in data.report.splits] == [
            len(data.train),
            *(len(s.pairs) for s in data.validation),
        ]


@given(_lines)
def test_every_line_twice_is_every_line_once(lines: list[str]) -> None:
    once, twice = load_lines(lines, []), load_lines(lines * 2, [])
    assert (once is None) == (twice is None)
    if once is not None and twice is not None:
        assert once.train == twice.train


@given(_lines)
def test_cleaned_pairs_hold_no_duplicate_contradiction_or_equal_answers(lines: list[str]) -> None:
    data = load_lines(lines, [])
    if data is not None:
        keys = [(str(p.prompt), str(sorted(p.preference.items())), p.chosen, p.rejected) for p in data.train]
        assert len(set(keys)) == len(keys)
        assert not {(prompt, preference, b, a) for prompt, preference, a, b in keys} & set(keys)
        assert all(a.strip() != b.strip() for *_, a, b in keys)
