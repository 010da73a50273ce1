"""`pad serve` and `pad export`: preferences for other programs, over HTTP or as LoRA adapters."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pad_cli.cli.options import (
    GenerateRecipeName,
    Overrides,
    Overwrite,
    Policy,
    Preferences,
    Quiet,
    RewardModel,
    Weight,
    read_generate,
)
from pad_cli.errors import UsageError
from pad_cli.system.offline import is_this_machine
from pad_cli.system.progress import note, stage
from pad_cli.system.terminal import say

_KEY = "PAD_API_KEY"


def serve(
    pref: Preferences = None,
    weight: Weight = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 for any that is free.")] = 8000,
    max_batch: Annotated[int, typer.Option(min=1, help="Most answers decoded together.")] = 32,
    max_queue: Annotated[int, typer.Option(min=1, help="Maximum number of queued answers; then 429.")] = 256,
    max_prompt_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest prompt; by default what the models can read.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, whatever a request asks for.")] = 1024,
    timeout: Annotated[float, typer.Option(min=0.1, help="Longest wait for an answer, in seconds.")] = 120.0,
    allow_origin: Annotated[
        list[str] | None, typer.Option(help="Allow web pages from this origin ('*': all); repeat.")
    ] = None,
    recipe: GenerateRecipeName = None,
    policy: Policy = None,
    reward_model: RewardModel = None,
    overrides: Overrides = None,
    quiet: Quiet = False,
) -> None:
    """Serve steered answers through an OpenAI-compatible HTTP API, on one machine.

    --pref sets the preference of the model `pad`. If PAD_API_KEY is set, clients must send it as their key.
    """
    settings = read_generate(recipe, overrides, policy, reward_model, guidance_weight=weight)
    key = os.environ.get(_KEY)
    if key is not None and not key.strip():
        raise UsageError(f"{_KEY} is empty.", "Set it to a secret, or unset it.")
    if key is None and not is_this_machine(host):
        note(f"Warning: everybody who can reach {host}:{port} may use this server. Set {_KEY} to ask for a key.")
    try:
        from pad_cli.server.http_server import serve
        from pad_cli.server.request_reader import Limits
    except ModuleNotFoundError as error:
        raise UsageError(f"pad serve needs the package {error.name}.", "pip install 'pad-cli[serve]'") from error
    limits = Limits(
        max_batch=max_batch,
        max_queue=max_queue,
        timeout=timeout,
        max_prompt_tokens=max_prompt_tokens,
        max_new_tokens=max_new_tokens,
    )
    serve(settings, limits, default=pref or [], host=host, port=port, api_key=key, allow_origins=allow_origin or [])


def export(
    out: Annotated[Path, typer.Option(help="Directory of the adapter; with --users, of all their directories.")],
    pref: Preferences = None,
    users: Annotated[Path | None, typer.Option(help="Table from `pad learn --users`; one adapter per user.")] = None,
    weight: Weight = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Reduce the adapter to this rank.")] = None,
    recipe: GenerateRecipeName = None,
    policy: Policy = None,
    reward_model: RewardModel = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write a preference as an ordinary LoRA adapter of the policy's output layer.

    The policy must be the reward model's backbone. The adapter guides all tokens; pad generate, its candidates only.
    """
    if bool(pref) == (users is not None):
        raise UsageError("Give --pref or --users.", "pad export --pref humorous --out adapter")
    settings = read_generate(recipe, overrides, policy, reward_model, guidance_weight=weight)
    from pad_cli.decoding.engine import PadEngine
    from pad_cli.server.lora_export import check_adapter_output, export_preference, export_users

    if users is None:
        check_adapter_output(out, overwrite=overwrite)
    engine = PadEngine.from_recipe(settings)
    guidance_weight = settings.decoding.guidance_weight
    if users is not None:
        count, without = export_users(engine, users, guidance_weight, out, rank, overwrite=overwrite)
        say(f"{count} adapters in {out}")
        if without:
            note(f"No preference was found for {len(without)} users ({', '.join(without[:3])} ...): no adapter.")
        return
    with stage("Exporting"):
        preference = engine.preference(pref or [])
        adapter = export_preference(engine, preference, guidance_weight, out, rank, overwrite=overwrite)
    reduced = f", relative error {adapter.error:.2%}" if adapter.error else ""
    say(f"{out}  (rank {adapter.rank}{reduced})")
