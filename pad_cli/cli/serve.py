"""`pad serve`: an OpenAI-compatible server for one machine."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from pad_cli.cli.options import GenerateRecipeName, Overrides, Policy, Preferences, Quiet, RewardModel, read_as
from pad_cli.errors import UsageError
from pad_cli.system.progress import note, set_quiet

_KEY = "PAD_API_KEY"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(
    pref: Preferences = None,
    weight: Annotated[
        float | None, typer.Option("--weight", "-w", help="Guidance weight where a request gives none.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    max_batch: Annotated[int, typer.Option(min=1, help="Most answers decoded together.")] = 32,
    max_queue: Annotated[int, typer.Option(min=1, help="Most answers that wait; beyond, 429.")] = 256,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest prompt; by default what the models can read.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest answer; a request that asks for more gets this.")
    ] = 1024,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest wait for an answer, in seconds.")] = 120.0,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Let web pages of this origin ask, e.g. http://localhost:3000; '*' for all. Repeatable."),
    ] = None,
    recipe: GenerateRecipeName = "embedded-generate",
    policy: Policy = None,
    reward_model: RewardModel = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Serve steered answers over HTTP in the form of the OpenAI API, for one machine.

    --pref is what model `pad` stands for. If PAD_API_KEY is set, clients must send it as their key.
    """
    set_quiet(quiet)
    import pad_cli

    options = {"decoding.guidance_weight": weight, "policy.model": policy, "reward_model": reward_model}
    settings = read_as("generate", recipe, overrides, options=options)
    key = os.environ.get(_KEY)
    if key is not None and not key.strip():
        raise UsageError(f"{_KEY} is empty.", "Set it to a secret, or unset it.")
    if key is None and host not in _LOOPBACK:
        note(f"Warning: everybody who can reach {host}:{port} may use this server. Set {_KEY} to ask for a key.")
    try:
        limits = pad_cli.Limits(
            max_batch=max_batch,
            max_queue=max_queue,
            timeout=timeout,
            max_prompt_tokens=max_prompt_tokens,
            max_new_tokens=max_new_tokens,
        )
        run = pad_cli.serve
    except ModuleNotFoundError as error:
        raise UsageError(f"pad serve needs the package {error.name}.", "pip install 'pad-cli[serve]'") from error
    run(settings, limits, default=pref or [], host=host, port=port, api_key=key, allow_origins=allow_origin or [])
