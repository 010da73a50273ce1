"""Preference pairs (floor 3): from files, data sets or a registered source, cleaned and counted.

A file has one JSON object a line (or is a JSON array, CSV or Parquet), the field's columns plus `preference`:

    {"prompt": str | [{"role", "content"}, ...], "preference": str | [str, ...] | {name: weight},
     "chosen": ..., "rejected": ...}

`chosen` and `rejected` are texts, or conversations that end with the answer (an assistant's message). What stands
before an answer is read whole, or the row is refused. Rows of another form are read by another pair format
(`pairs/formats/`, and the entry-point group `pad.pair_formats`).
"""

from pad_cli.pairs.conversation import prompt_of
from pad_cli.pairs.data_report import describe
from pad_cli.pairs.files import read_rows
from pad_cli.pairs.load import load_pairs
from pad_cli.pairs.readings import PairFormat, RawPair, Reading
from pad_cli.pairs.rows import Row, RowError, note_changes
from pad_cli.pairs.sources import read_pairs

__all__ = [
    "PairFormat",
    "RawPair",
    "Reading",
    "Row",
    "RowError",
    "describe",
    "load_pairs",
    "note_changes",
    "prompt_of",
    "read_pairs",
    "read_rows",
]
