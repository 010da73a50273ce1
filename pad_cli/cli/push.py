"""`pad push`: a reward model to the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated

import typer

from pad_cli.cli.options import Quiet
from pad_cli.system.progress import set_quiet, stage
from pad_cli.system.terminal import say


def push(
    directory: Annotated[str, typer.Argument(help="Directory of a trained reward model.")],
    repository: Annotated[str, typer.Argument(help="Where to on the hub: owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, when it is made.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; made when it is not there.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the commit.")] = None,
    quiet: Quiet = False,
) -> None:
    """Push a reward model with its card; whoever may read it can then name it by its id."""
    set_quiet(quiet)
    import pad_cli

    with stage(f"Pushing to {repository}"):
        address = pad_cli.push_reward_model(directory, repository, private=private, revision=revision, message=message)
    say(address)
