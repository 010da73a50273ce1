"""`pad list`: what can be named, each with a line about it."""

from __future__ import annotations

from typing import Annotated

import typer

from pad_cli.cli.completion import complete_kinds
from pad_cli.cli.options import Json
from pad_cli.cli.tables import print_facts
from pad_cli.system.terminal import say_json


def list_(
    kind: Annotated[
        str | None, typer.Argument(help="Only these, for example scorers.", autocompletion=complete_kinds)
    ] = None,
    as_json: Json = False,
) -> None:
    """List what can be named: principles, ready ones, profiles, recipes, scorers, methods, benchmarks, data sources."""
    import pad_cli

    for each in pad_cli.catalogue_kinds() if kind is None else [kind]:
        names = pad_cli.names_of(each)
        if as_json:
            for name, description in names.items():
                say_json({"kind": each, "name": name, "description": description})
        elif names or kind is not None:
            print_facts(each, names.items())
