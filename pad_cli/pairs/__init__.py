"""Preference pairs (floor 3): from files, data sets or a registered source, cleaned and counted.

A file has one JSON object a line (or is a JSON array, CSV or Parquet), the field's columns plus `preference`:

    {"prompt": str | [{"role", "content"}, ...], "preference": str | [str, ...] | {name: weight},
     "chosen": ..., "rejected": ...}

`chosen` and `rejected` are texts, or conversations that end with the answer (an assistant's message). What stands
before an answer is read whole, or the row is refused. Rows of another form are read by another pair format
(`pairs/formats.py`, and the entry-point group `pad.pair_formats`).
"""

from pad_cli.pairs.conversation import prompt_of, read_sample, read_steer_text
from pad_cli.pairs.data_report import describe
from pad_cli.pairs.files import read_rows, scan_data_set
from pad_cli.pairs.parsed_rows import PairFormat, ParsedRows, RawPair, Reading, Row, RowError, is_text, note_changes
from pad_cli.pairs.sources import read_pairs
from pad_cli.pairs.splits import load_pairs

__all__ = [
    "PairFormat",
    "ParsedRows",
    "RawPair",
    "Reading",
    "Row",
    "RowError",
    "describe",
    "is_text",
    "load_pairs",
    "note_changes",
    "prompt_of",
    "read_pairs",
    "read_rows",
    "read_sample",
    "read_steer_text",
    "scan_data_set",
]
