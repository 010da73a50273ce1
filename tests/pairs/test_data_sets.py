"""Data sets as `datasets` knows them, all of them local: directories of files, and what save_to_disk writes."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import pytest

from pad_cli.errors import DataError
from pad_cli.records import PairData
from tests.pairs.conftest import Write, load, make_pair, texts_of

ROWS = [make_pair(f"{number}?", "humorous", f"good {number}", f"bad {number}") for number in range(10)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.fixture(params=["jsonl", "json", "gzip", "csv", "parquet", "saved", "saved dict"])
def directory(request: pytest.FixtureRequest, tmp_path: Path, write: Write) -> Path:
    """The ten rows in a directory, as a split `train` of every kind."""
    path, table = tmp_path / "data", datasets.Dataset.from_list(ROWS)
    path.mkdir()
    if request.param == "jsonl":
        write(*ROWS, name="data/train.jsonl")
    elif request.param == "json":
        write(f"[{write(*ROWS).read_text().strip().replace(chr(10), ',')}]", name="data/train.json")
    elif request.param == "gzip":
        (path / "train.jsonl.gz").write_bytes(gzip.compress(write(*ROWS).read_bytes()))
    elif request.param == "csv":
        table.to_csv(path / "train.csv")
    elif request.param == "parquet":
        table.to_parquet(path / "train.parquet")
    elif request.param == "saved":
        table.save_to_disk(path)
    else:
        other = datasets.Dataset.from_list(ROWS[:1])
        datasets.DatasetDict({"train": table, "test": other}).save_to_disk(path)
    return path


def load_set(path: Path, options: Mapping[str, Any] | None = None, **keys: Any) -> PairData:
    return load({"dataset": str(path), **({"options": options} if options else {}), **keys})


def test_every_kind_of_data_set_gives_its_rows_in_order(directory: Path) -> None:
    data = load_set(directory)
    assert texts_of(data) == [(f"{n}?", "humorous", f"good {n}", f"bad {n}") for n in range(10)]
    assert data.report.sources[0].name == f"{directory} [train]"


@pytest.mark.parametrize(("split", "expected"), [("train[2:4]", [2, 3]), ("train[:10%]+train[-1:]", [0, 9])])
def test_a_part_of_a_split_is_spelt_as_in_datasets(directory: Path, split: str, expected: list[int]) -> None:
    assert [text[0] for text in texts_of(load_set(directory, split=split))] == [f"{number}?" for number in expected]


def test_an_unknown_split_names_the_data_set_and_the_split(directory: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_set(directory, split="training")
    assert caught.value.path == str(directory)
    assert "training" in caught.value.message
    assert caught.value.hint


def test_a_bad_row_is_named_by_data_set_and_number(tmp_path: Path) -> None:
    rows = [*ROWS, {**ROWS[0], "chosen": None}]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "data")
    with pytest.raises(DataError) as caught:
        load_set(tmp_path / "data")
    assert caught.value.message.startswith(f"{tmp_path / 'data'}[10], field 'chosen': missing or empty")


def test_a_data_set_saved_with_a_tensor_format_gives_plain_values(tmp_path: Path) -> None:
    rows = [{"prompt": "How?", "response": text, "score1": score} for text, score in (("a", 0.5), ("b", -0.5))]
    datasets.Dataset.from_list(rows).with_format("torch").save_to_disk(tmp_path / "data")
    data = load_set(tmp_path / "data", {"scores": {"score1": "harmless"}}, format="ric")
    assert texts_of(data) == [("How?", "harmless", "a", "b")]


def test_keys_that_a_data_set_adds_to_a_map_ask_for_nothing(tmp_path: Path) -> None:
    """Arrow gives every row every key, and None where there was none."""
    rows = [make_pair("1?", {"humorous": 1.0}, "a", "b"), make_pair("2?", {"formal": 1.0, "humorous": -1.0}, "a", "b")]
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "data")
    assert [dict(pair.preference) for pair in load_set(tmp_path / "data").train] == [row["preference"] for row in rows]


@pytest.mark.parametrize("name", ["nobody/such-data-set", "no-such-directory", "missing/directory/deep"])
def test_a_data_set_that_cannot_be_had_says_what_to_do(name: str) -> None:
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        load({"dataset": name})
    assert caught.value.path == name
    assert "network" in caught.value.hint


def test_damaged_and_foreign_directories_are_data_errors(tmp_path: Path, write: Write) -> None:
    (tmp_path / "empty").mkdir()
    write("{", name="broken/train.jsonl")
    write("{}", name="damaged/state.json")
    for name in ("empty", "broken", "damaged"):
        with pytest.raises(DataError) as caught:
            load_set(tmp_path / name)
        assert caught.value.path == str(tmp_path / name)
        assert caught.value.hint


def test_a_file_is_no_data_set_and_a_saved_one_has_no_revisions(tmp_path: Path, write: Write) -> None:
    with pytest.raises(DataError, match="cannot be loaded"):
        load_set(write(*ROWS))
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "data")
    with pytest.raises(DataError, match="no configurations"):
        load_set(tmp_path / "data", revision="main")


def test_an_empty_data_set_is_refused(tmp_path: Path) -> None:
    datasets.Dataset.from_list(ROWS).select([]).save_to_disk(tmp_path / "data")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_set(tmp_path / "data")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "full")
    with pytest.raises(DataError, match="no data"):
        load_set(tmp_path / "full", split="train[:0]")


def test_progress_bars_are_as_they_were(tmp_path: Path, capsys: pytest.CaptureFixture[str], write: Write) -> None:
    write(*ROWS, name="data/train.jsonl")
    assert not datasets.are_progress_bars_disabled()
    load_set(tmp_path / "data")
    assert not datasets.are_progress_bars_disabled()
    assert capsys.readouterr().err == ""
