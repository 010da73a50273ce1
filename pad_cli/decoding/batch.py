"""`generate_file`: answer a file of prompts into a JSONL file, batch by batch; running again continues.

Of several processes each answers its share, in a part of the file that is merged in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

from pad_cli.decoding.engine import PadEngine
from pad_cli.models.distributed import wait_for_all
from pad_cli.pairs import RowError, note_changes, prompt_of, read_rows
from pad_cli.preference import Preference
from pad_cli.recipe import DecodingSettings
from pad_cli.records import Messages
from pad_cli.system.processes import processes
from pad_cli.system.progress import bar
from pad_cli.system.runs import ResultLog, check_output, fingerprint, is_log, merge_parts, only_here


class _Line(NamedTuple):
    place: str
    prompt: Messages
    preference: Preference
    row: dict[str, Any]  # what is written of it beside the answer


def generate_file(
    engine: PadEngine,
    source: Path,
    target: Path,
    specs: Sequence[str],
    settings: DecodingSettings,
    *,
    overwrite: bool = False,
) -> int:
    """Answer every row of a file; return how many were answered now, by all processes.

    Args:
        engine: the policy and its reward model.
        source: rows with `prompt` and, each row its own, `preference` (a specification or a list of them).
        target: one JSON object a line, in the order of the source: `key`, `line`, `prompt`, `preference` as given,
            `effective_preference` with the weights of profiles and the safety floor, that floor as `always`,
            `guidance_weight`, `text`, `finish_reason`, `tokens`. Lines already there are not answered again.
        specs: the preference of lines that have none.
        settings: how to decode.
        overwrite: whether a target that holds something else may be replaced.

    Raises:
        DataError, PreferenceError: a line is wrong; nothing is answered then.
        UsageError: another process writes this target, or it holds something else.
    """
    everyone = processes()
    with only_here(target):
        check_answers_output(target, overwrite=overwrite)
        if everyone.main:
            merge_parts(target, itemgetter("line"))
        wait_for_all()
        log = ResultLog(target, everyone.part, needs=("line", "text"))
        todo = _unanswered(engine, source, specs, settings, log)
        keys = everyone.share(list(todo))
        with bar(f"Answering {source.name}", total=len(keys)) as progress:
            for start in range(0, len(keys), settings.batch_size):
                batch = keys[start : start + settings.batch_size]
                lines = [todo[key] for key in batch]
                answers = engine.generate(
                    [line.prompt for line in lines],
                    [line.preference for line in lines],
                    settings,
                    streams=[str(line.row["line"]) for line in lines],
                )
                rows = [
                    {**line.row, "text": each.text, "finish_reason": each.finish_reason, "tokens": len(each.token_ids)}
                    for line, each in zip(lines, answers, strict=True)
                ]
                log.append(dict(zip(batch, rows, strict=True)))
                progress.advance(len(batch))
        wait_for_all()
        if everyone.main:
            merge_parts(target, itemgetter("line"))
    return len(todo)


def check_answers_output(target: Path, *, overwrite: bool = False) -> None:
    """Refuse to write answers to a file that holds anything but earlier ones, which are continued (UsageError)."""
    if processes().main and check_output(target, "file of answers", is_log, folder=False, overwrite=overwrite):
        target.unlink()


def _unanswered(
    engine: PadEngine, source: Path, default: Sequence[str], settings: DecodingSettings, log: ResultLog
) -> dict[str, _Line]:
    """The rows of a file that are not in the log, by their key there, all of them checked."""
    model = engine.reward_model.fingerprint if engine.reward_model else None
    context = [engine.policy.fingerprint, model, settings.decisive]
    todo: dict[str, _Line] = {}
    rows = read_rows(source)
    for row in rows:
        specs = row.values.get("preference")
        specs = list(default) if specs is None else [specs] if isinstance(specs, str) else specs
        if not isinstance(specs, list) or not all(isinstance(spec, str) for spec in specs):
            hint = 'Write "preference": "humorous" or "preference": ["humorous", "concise=0.5"].'
            raise RowError("neither a text nor a list of texts", field="preference", hint=hint).at(row)
        prompt, preference = prompt_of(row), engine.preference(specs)
        written = {
            "line": row.number,
            "prompt": [dict(message) for message in prompt],
            "preference": specs,
            "effective_preference": preference.describe(),
            "always": engine.always,
            "guidance_weight": settings.guidance_weight,
        }
        key = fingerprint([*context, row.number, written["prompt"], written["effective_preference"]])
        if key not in log.done:
            todo[key] = _Line(row.place, prompt, preference, written)
    if processes().main:
        note_changes(rows)
    engine.check_prompts([(line.place, line.prompt) for line in todo.values()])
    for line in todo.values():
        engine.check_room(line.place, line.prompt, line.preference)
    return todo
