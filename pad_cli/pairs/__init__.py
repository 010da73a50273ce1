"""Preference pairs (floor 3): from files, data sets or a registered source, cleaned and counted.

A file has one JSON object a line (or is a JSON array), the field's columns plus `preference`:

    {"prompt": str | [{"role", "content"}, ...], "preference": str | [str, ...] | {name: weight},
     "chosen": ..., "rejected": ...}

`chosen` and `rejected` are texts, or conversations that end with the answer (an assistant's message). What stands
before an answer is read whole, or the row is refused. Rows of another form are read by another pair format
(`pairs/formats.py`, and the entry-point group `pad.pair_formats`).
"""

from pad_cli.pairs.conversation import prompt_of as prompt_of
from pad_cli.pairs.conversation import read_sample as read_sample
from pad_cli.pairs.conversation import read_steer_text as read_steer_text
from pad_cli.pairs.files import read_rows as read_rows
from pad_cli.pairs.files import scan_data_set as scan_data_set
from pad_cli.pairs.parsed_rows import PairFormat as PairFormat
from pad_cli.pairs.parsed_rows import ParsedRows as ParsedRows
from pad_cli.pairs.parsed_rows import RawPair as RawPair
from pad_cli.pairs.parsed_rows import Reading as Reading
from pad_cli.pairs.parsed_rows import Row as Row
from pad_cli.pairs.parsed_rows import RowError as RowError
from pad_cli.pairs.parsed_rows import is_text as is_text
from pad_cli.pairs.parsed_rows import note_changes as note_changes
from pad_cli.pairs.splits import describe as describe
from pad_cli.pairs.splits import load_pairs as load_pairs
from pad_cli.pairs.splits import makes_pairs as makes_pairs
