"""`pad`: the application, its commands, and the one place where errors become exit codes.

0 success   1 failure   2 usage error   130 interrupted   143 terminated
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from pad_cli import show_imports
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
from pad_cli.system.offline import go_offline
from pad_cli.system.processes import processes
from pad_cli.system.progress import stage
from pad_cli.system.terminal import console, say


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
            _print_error(error)
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as interrupt:
            say("Interrupted. Run the same command again to continue.", stderr=True)
            raise typer.Exit(143 if isinstance(interrupt, _ToldToEndError) else 130) from interrupt
        except BrokenPipeError:
            sys.stderr.close()  # the reader of our output has left; so do we, in silence
            raise typer.Exit(1) from None


def _print_error(error: PadError) -> None:
    """On a terminal words are wrapped, but a command stays one line, to be copied; elsewhere all lines stay whole."""
    here = console(stderr=True)
    message = Text.assemble(("Error: ", "bold red"), error.message)
    here.print(message, soft_wrap=not here.is_terminal)
    if error.hint:
        command = error.hint.startswith(("pad ", "pip "))
        here.print(Text(error.hint, style="dim"), soft_wrap=command or not here.is_terminal)


_SHARED = ("generate", "eval", "train-rm")
_EXIT_CODES = (
    "Exit codes: 0 success, 1 failure, 2 usage error (the message says what to change), "
    "130 interrupted, 143 terminated. Answers go to stdout, everything else to stderr."
)

app = typer.Typer(
    cls=_Boundary,
    help="Personalised alignment of language models at decoding time.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
_PANELS: dict[str, dict[str, tuple[Callable[..., None], str]]] = {
    "Begin": {
        "demo": (demo.demo, "See all of it on small models, built here from nothing."),
        "doctor": (doctor.doctor, "Say what is installed, what is missing, and how to mend it."),
        "list": (listing.list_, "List what can be named: principles, recipes, scorers, methods ..."),
    },
    "Steer": {
        "generate": (generate.generate, "Answer a prompt, steered to a preference."),
        "learn": (learn.learn, "Learn what one user wants from choices between answers."),
        "serve": (serve.serve, "Serve steered answers over HTTP, as the OpenAI API does."),
        "export": (export.export, "Write a preference as an ordinary LoRA adapter."),
    },
    "Train": {
        "train-rm": (train_rm.train_rm, "Train a personalised reward model."),
        "inspect": (inspect.inspect, "Show what a reward model is, and whether it fits a policy."),
        "push": (push.push, "Push a reward model to the Hugging Face hub."),
    },
    "Evaluate": {
        "eval": (evaluate.evaluate, "Answer benchmarks with several methods, and score the answers."),
        "judge": (judge.judge, "Have a language model judge an evaluation's answers."),
        "sweep": (sweep.sweep, "Trade preferences off against each other: Pareto fronts."),
        "reproduce": (reproduce.reproduce, "Run the paper's tables, at the scale of a recipe's models."),
        "bench": (bench.bench, "Time steered decoding against plain decoding."),
    },
}
for _panel, _commands in _PANELS.items():
    for _name, (_function, _summary) in _commands.items():
        app.command(_name, short_help=_summary, rich_help_panel=_panel)(_function)
app.add_typer(prefs.app, name="prefs", rich_help_panel="Steer")
app.add_typer(recipe.app, name="recipe", rich_help_panel="Begin")


def _version(wanted: bool) -> None:
    if wanted:
        from pad_cli import __version__

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
