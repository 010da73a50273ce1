"""`pad demo`: the embedded models steered, from three examples to a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.options import Overwrite, Quiet
from pad_cli.cli.tables import print_report
from pad_cli.progress import set_quiet
from pad_cli.terminal import say, say_table


def demo(
    out: Annotated[Path, typer.Option(help="Where the report, the reward model and the answers go.")] = Path(
        "runs/demo"
    ),
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Steer the small embedded models, evaluate them, and show it all.

    Takes a minute the first time and seconds afterwards.
    """
    set_quiet(quiet)
    import pad_cli

    result = pad_cli.run_demo(out, overwrite=overwrite)
    from rich.table import Table
    from rich.text import Text

    examples = Table("preference", "base", "pad", title="Three examples", show_lines=True)
    for row in result.examples:
        examples.add_row(Text(f"{row['prompt']}\n\n{row['preference']}"), Text(row["base"]), Text(row["pad"]))
    say_table(examples)
    figures = ("pairs", "pair_accuracy", "margin", "policy_accuracy")
    measured = Table("validation split", *figures, title="Reward model")
    for split, values in result.metrics.items():
        measured.add_row(split, *(f"{values[figure]:g}" for figure in figures))
    say_table(measured)
    print_report(result.report)
    say(f"Report: {result.directory / 'report.html'}; beside it answers.jsonl, examples.jsonl and reward-model/")
    say('Next:  pad generate "How do I start with photography?" --pref humorous --compare')
    say("       pad recipe copy real-local     for a reward model of your own")
