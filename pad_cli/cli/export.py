"""`pad export`: a preference as a LoRA adapter, or of each user of a table, for PEFT and for serving engines."""

from __future__ import annotations

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
    read_as,
)
from pad_cli.errors import UsageError
from pad_cli.system.progress import note, set_quiet, stage
from pad_cli.system.terminal import say


def export(
    out: Annotated[Path, typer.Option(help="Directory of the adapter; with --users, of all their directories.")],
    pref: Preferences = None,
    users: Annotated[
        Path | None, typer.Option(help="A table of users, as `pad learn --users` writes it: an adapter each.")
    ] = None,
    weight: Annotated[float | None, typer.Option("--weight", "-w", help="Guidance weight.")] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Reduce the adapter to this rank.")] = None,
    recipe: GenerateRecipeName = "embedded-generate",
    policy: Policy = None,
    reward_model: RewardModel = None,
    overrides: Overrides = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write a preference as an ordinary LoRA adapter of the policy's output layer.

    The policy must be the reward model's backbone. The adapter guides all tokens; pad generate, its candidates only.
    """
    set_quiet(quiet)
    if bool(pref) == (users is not None):
        raise UsageError("Give --pref or --users.", "pad export --pref humorous --out adapter")
    import pad_cli

    options = {"decoding.guidance_weight": weight, "policy.model": policy, "reward_model": reward_model}
    settings = read_as("generate", recipe, overrides, options=options)
    if users is None:
        pad_cli.check_adapter_output(out, overwrite=overwrite)
    engine = pad_cli.PadEngine.from_recipe(settings)
    guidance_weight = settings.decoding.guidance_weight
    if users is not None:
        count, without = pad_cli.export_users(engine, users, guidance_weight, out, rank, overwrite=overwrite)
        say(f"{count} adapters in {out}")
        if without:
            note(f"No preference was found for {len(without)} users ({', '.join(without[:3])} ...): no adapter.")
        return
    with stage("Exporting"):
        adapter = pad_cli.export_preference(
            engine, engine.preference(pref or []), guidance_weight, out, rank, overwrite=overwrite
        )
    reduced = f", relative error {adapter.error:.2%}" if adapter.error else ""
    say(f"{out}  (rank {adapter.rank}{reduced})")
