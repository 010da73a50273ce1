"""`pad demo`: one prompt under several preferences, a table of how well that works, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.options import Overwrite, Quiet
from pad_cli.cli.tables import metrics_table
from pad_cli.errors import ModelLoadError
from pad_cli.system.terminal import say, say_table, text_table

_OUT = Path("runs/demo")
_NEXT = """Next:
  pad generate "How do I start with photography?" --pref humorous --compare
  pad generate "Why should I visit the sea?" --policy smollm2 --pref pirate --stream
  pad generate "Why should I try sailing?" --pref "something a bit more lyrical"
  pad learn me --ask
  pad recipe copy real-local"""


def demo(
    out: Annotated[Path, typer.Option(help="Where the report and the answers go.")] = _OUT,
    full: Annotated[bool, typer.Option("--full", help="Evaluate on every prompt, not on a fifth of them.")] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Steer the tiny embedded models, evaluate them, and then steer a real language model, if it is installed.

    Takes a few minutes the first time.
    """
    from pad_cli.reports.evaluation_tables import report_table
    from pad_cli.world.demonstration import run_demo, steer_real_model

    result = run_demo(out, full=full, on_examples=_show_examples, overwrite=overwrite)
    say_table(metrics_table(result.metrics))
    say()
    say_table(report_table(result.report))
    say(f"Report: {result.directory / 'report.html'}; beside it answers.jsonl and examples.jsonl")
    say()
    try:
        _show_examples(steer_real_model(out))
    except ModelLoadError as error:
        say(f"{error.message} To see it steered: {error.hint}")
        say()
    say(_NEXT)
    if not full:
        say("  pad demo --full" + ("" if out == _OUT else f" --out {shlex.quote(str(out))}"))


def _show_examples(examples: Sequence[Mapping[str, str]]) -> None:
    """One prompt, and an answer to it under each preference."""
    rows = [
        (f"{examples[0]['policy']} alone", examples[0]["base"]),
        *((each["preference"], each["pad"]) for each in examples),
    ]
    say_table(text_table(("preference", "answer"), rows, title=examples[0]["prompt"]))
    say()
