"""`pad demo`: one prompt under several preferences, a table of how well that works, and what to type next."""

from __future__ import annotations

import math
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.options import Overwrite, Quiet, importing
from pad_cli.cli.tables import print_report
from pad_cli.system.terminal import console, say, say_table, text_table

_OUT = Path("runs/demo")
_ANSWER = 25  # columns in which an answer is easy to read
_FIGURES = ("pairs", "pair_accuracy", "margin", "policy_accuracy")


def demo(
    out: Annotated[Path, typer.Option(help="Where the report, the reward model and the answers go.")] = _OUT,
    full: Annotated[bool, typer.Option("--full", help="Evaluate on every prompt, not on a fifth of them.")] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Steer the small embedded models, evaluate them, and show it all.

    Takes less than a minute the first time and seconds afterwards.
    """
    with importing():
        from pad_cli.world.demonstration import run_demo

    result = run_demo(out, full=full, on_examples=_show_examples, overwrite=overwrite)
    rows = [(split, *(f"{values[each]:,g}" for each in _FIGURES)) for split, values in result.metrics.items()]
    names = ("validation split", *(figure.replace("_", " ") for figure in _FIGURES))
    title = "The reward model, measured on preference pairs"
    say_table(text_table(names, rows, title=title, texts=1))
    say()
    print_report(result.report)
    say(f"Report: {result.directory / 'report.html'}; beside it answers.jsonl, examples.jsonl and reward-model/")
    say()
    for line in _next(_program(), out, full):
        say(line)


def _show_examples(examples: Sequence[Mapping[str, str]]) -> None:
    """The answers side by side, as many as the terminal has room for."""
    answers = [("the policy alone", examples[0]["base"]), *((each["preference"], each["pad"]) for each in examples)]
    lines = math.ceil(len(answers) / max(1, console().width // _ANSWER))
    across = math.ceil(len(answers) / lines)
    title = f"{examples[0]['prompt']}  One prompt, {len(examples)} preferences"
    for start in range(0, len(answers), across):
        names, texts = zip(*answers[start : start + across], strict=True)
        say_table(text_table(names, [texts], title=None if start else title, side_by_side=True))
    say()


def _program() -> str:
    """How the shell calls this program: by its name where that is on the path, by where it is elsewhere."""
    called, on_path = Path(sys.argv[0]), shutil.which("pad")
    if called.stem != "pad":
        return f"{shlex.quote(sys.executable)} -m pad_cli"
    return "pad" if on_path and Path(on_path).resolve() == called.resolve() else shlex.quote(str(called))


def _next(program: str, out: Path, full: bool) -> Iterator[str]:
    yield "Next:"
    yield f'  {program} generate "How do I start with photography?" --pref humorous --compare'
    yield f'  {program} generate "Why should I try sailing?" --pref "something a bit more lyrical"'
    yield f"  {program} learn me --ask"
    if not full:
        yield f"  {program} demo --full" + ("" if out == _OUT else f" --out {shlex.quote(str(out))}")
    yield f"  {program} recipe copy real-local"
