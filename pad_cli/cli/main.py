"""`pad`: the application, its commands, and the one place where errors become exit codes.

0 done   1 it could not be done   2 it was asked wrongly   130 interrupted   143 terminated
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pad_cli import __version__, show_imports
from pad_cli.cli import (
    bench,
    demo,
    doctor,
    evaluate,
    export,
    generate,
    inspect,
    judge,
    learn,
    listing,
    prefs,
    push,
    recipe,
    reproduce,
    serve,
    sweep,
    train_rm,
)
from pad_cli.cli.bash_words import complete_whole_words, completing_in_bash
from pad_cli.errors import PadError, UsageError
from pad_cli.offline import go_offline
from pad_cli.processes import processes
from pad_cli.progress import stage
from pad_cli.terminal import console, say


class _ToldToEndError(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: what is finished is kept, and scratch files go."""


def _told_to_end(*_: object) -> None:
    raise _ToldToEndError


class _Boundary(TyperGroup):
    """Errors that are the user's to fix are printed without a traceback; bugs keep theirs."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PadError as error:
            here = console(stderr=True, soft_wrap=True)
            here.print("Error: ", style="bold red", end="")
            here.print(error.message)
            if error.hint:
                here.print(error.hint, style="dim")
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            say("Interrupted. Run the same command again to continue.", stderr=True)
            raise typer.Exit(143 if isinstance(interrupt, _ToldToEndError) else 130) from interrupt
        except BrokenPipeError:
            sys.stderr.close()  # the reader of our output has left; so do we, in silence
            raise typer.Exit(1) from None


_SHARED = ("generate", "eval", "train-rm")
_EXIT_CODES = (
    "Exit codes: 0 done, 1 it could not be done, 2 it was asked wrongly (the message says what to change), "
    "130 interrupted, 143 terminated. Answers go to stdout, everything else to stderr."
)

app = typer.Typer(
    cls=_Boundary,
    help="Personalised alignment of language models at decoding time.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("generate")(generate.generate)
app.command("train-rm")(train_rm.train_rm)
app.command("inspect")(inspect.inspect)
app.command("push")(push.push)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.command("eval")(evaluate.evaluate)
app.command("judge")(judge.judge)
app.command("sweep")(sweep.sweep)
app.command("reproduce")(reproduce.reproduce)
app.command("bench")(bench.bench)
app.command("demo")(demo.demo)
app.command("learn")(learn.learn)
app.add_typer(prefs.app, name="prefs")
app.add_typer(recipe.app, name="recipe")
app.command("list")(listing.list_)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"pad {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
    without_network: Annotated[
        bool,
        typer.Option(
            "--offline", help="Reach nothing but this machine; what was fetched before is found. Or set PAD_OFFLINE=1."
        ),
    ] = False,
) -> None:
    if without_network:
        go_offline()
    if processes().count > 1 and context.invoked_subcommand not in _SHARED:
        raise UsageError(f"Only {', '.join(_SHARED)} can be shared by several processes.", "Run it in one.")


def main() -> None:
    """Entry point of the `pad` script."""
    if completing_in_bash():
        complete_whole_words(app)
        return
    show_imports(lambda: stage("Importing torch and transformers"))
    if processes().count == 1:  # of several, one that waits for the others in C could not be told so
        signal.signal(signal.SIGTERM, _told_to_end)
    if processes().main:
        app()
    else:  # the first process says it
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            app()
