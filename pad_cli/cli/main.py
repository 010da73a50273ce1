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

from pad_cli.cli import demo, doctor, evaluate, generate, learn, pairs, prefs, recipe, serve, train_rm
from pad_cli.errors import PadError, UsageError
from pad_cli.system.offline import go_offline
from pad_cli.system.processes import processes
from pad_cli.system.terminal import console, say


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: what is finished is kept, and scratch files go."""


def _terminate(*_: object) -> None:
    raise _TerminatedError


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
            raise typer.Exit(143 if isinstance(interrupt, _TerminatedError) else 130) from interrupt
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
_COMMANDS: dict[str, dict[str, Callable[..., None]]] = {
    "Begin": {"demo": demo.demo, "doctor": doctor.doctor, "list": recipe.list_names},
    "Steer": {"generate": generate.generate, "learn": learn.learn, "serve": serve.serve, "export": serve.export},
    "Train": {"train-rm": train_rm.train_rm, "inspect": train_rm.inspect, "push": train_rm.push},
    "Evaluate": {
        "eval": evaluate.evaluate,
        "judge": evaluate.judge,
        "sweep": evaluate.sweep,
        "reproduce": evaluate.reproduce,
        "bench": evaluate.bench,
    },
}
for _panel, _functions in _COMMANDS.items():
    for _name, _function in _functions.items():
        app.command(_name, rich_help_panel=_panel)(_function)
app.add_typer(prefs.app, name="prefs", rich_help_panel="Steer")
app.add_typer(pairs.app, name="pairs", rich_help_panel="Train")
app.add_typer(recipe.app, name="recipe", rich_help_panel="Begin")


def _print_version(requested: bool) -> None:
    if requested:
        from pad_cli import __version__

        say(f"pad {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    without_network: Annotated[
        bool,
        typer.Option(
            "--offline", help="Block all connections to other machines; use cached files only. Same as PAD_OFFLINE=1."
        ),
    ] = False,
) -> None:
    if without_network:
        go_offline()
    if processes().count > 1 and context.invoked_subcommand not in _SHARED:
        raise UsageError(f"Only {', '.join(_SHARED)} can be shared by several processes.", "Run it in one.")


def main() -> None:
    """Entry point of the `pad` script."""
    if processes().count == 1:  # of several, one that waits for the others in C would not notice
        signal.signal(signal.SIGTERM, _terminate)
    with contextlib.ExitStack() as stack:
        if not processes().main:  # the first process prints the results
            nowhere = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        app()
