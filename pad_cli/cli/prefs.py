"""`pad prefs`: list preferences, show profiles, and measure what a preference does to the text."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pad_cli.cli.options import (
    GenerateRecipeName,
    Json,
    Overrides,
    Policy,
    Prompts,
    Quiet,
    RewardModel,
    complete,
    complete_preferences,
    default_recipe,
    read_as,
    read_generate,
)
from pad_cli.cli.tables import print_facts, print_text
from pad_cli.errors import UsageError
from pad_cli.system.terminal import say, say_json, say_table, text_table

if TYPE_CHECKING:
    from pad_cli.learning.effect import Effect
    from pad_cli.profiles import Profile

app = typer.Typer(help="List, show and try preferences: principles and profiles.", no_args_is_help=True)


@app.command("list")
def list_(
    recipe: GenerateRecipeName = None, reward_model: RewardModel = None, as_json: Json = False, quiet: Quiet = False
) -> None:
    """List a reward model's principles, and the profiles in ./profiles."""
    from pad_cli.models.inspection import inspect_reward_model
    from pad_cli.profiles import load_profile, profile_names

    location = reward_model or str(read_as("generate", recipe or default_recipe(), None).reward_model)
    config = inspect_reward_model(location).config
    principles = list(config.get("principles") or ())
    profiles = [load_profile(name) for name in profile_names()]
    if as_json:
        for name in principles:
            say_json({"kind": "principle", "name": name, "reward_model": location})
        for profile in profiles:
            say_json({"kind": "profile", **dataclasses.asdict(profile)})
        return
    free_text = config.get("conditioning") == "prompt" or config.get("encoder_width") is not None
    print_text(f"{location} knows: {', '.join(principles) or 'any text'}")
    say(f"Free text: {'yes' if free_text else 'no'}")
    print_facts("Profiles in ./profiles", [(f"@{each.name}", _summary(each)) for each in profiles])


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A profile, by name or file.", autocompletion=complete("profiles"))],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show a profile's weights with their intervals."""
    from pad_cli.profiles import load_profile

    profile = load_profile(name.removeprefix("@"))
    if as_json:
        say_json({"kind": "profile", **dataclasses.asdict(profile)})
        return
    ends = {each: f"{low:+.2f} to {high:+.2f}" for each, (low, high) in profile.intervals.items()}
    rows = [(each, f"{weight:+.2f}", ends.get(each, "")) for each, weight in _strongest_first(profile)]
    print_text(f"@{profile.name}: {_summary(profile)}")
    say_table(text_table(("principle", "weight", "95 % interval"), rows))


@app.command("test")
def try_(
    preferences: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PREF]...", help="As after --pref; summed.", autocompletion=complete_preferences),
    ] = None,
    prompts: Prompts = None,
    count: Annotated[int, typer.Option(min=1, help="Use only the first prompts, this many.")] = 16,
    show: Annotated[int, typer.Option("--show", min=0, help="Print the answers to this many prompts.")] = 3,
    recipe: GenerateRecipeName = None,
    policy: Policy = None,
    reward_model: RewardModel = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try a preference: answers without and with it, and what each of its parts gains alone and beside the others."""
    if not preferences:
        raise UsageError("There is no preference to try.", "Name one, for example: pad prefs test humorous")
    settings = read_generate(recipe, overrides, policy, reward_model)
    from pad_cli.decoding.engine import PadEngine
    from pad_cli.learning.effect import measure_effect, read_prompts

    conversations = read_prompts(prompts, count)
    engine = PadEngine.from_recipe(settings)
    effect = measure_effect(engine, engine.preference(preferences), conversations, settings.decoding)
    if as_json:
        say_json({"effect": dataclasses.asdict(effect)})
    else:
        _show_effect(effect, show)


@app.command()
def library(
    name: Annotated[str | None, typer.Argument(help="Show all of one principle.")] = None,
    own: Annotated[
        Path | None, typer.Option("--file", help="Your own principles; by default ./principles.yaml if it exists.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List ready principles, yours among them, or show one: its instruction, its opposite and how users ask for it."""
    from pad_cli.principles import find_principle, read_library

    known = read_library(own)
    selected = known if name is None else dict([find_principle(name, known)])
    if as_json:
        for each, principle in selected.items():
            say_json({"name": each, **principle.model_dump()})
    elif name is None:
        print_facts("library", ((each, principle.description) for each, principle in selected.items()))
    else:
        for each, principle in selected.items():
            texts = {key: "; ".join(value) if isinstance(value, tuple) else value for key, value in principle}
            print_facts(each, ((key.replace("_", " "), text or None) for key, text in texts.items()))


def _strongest_first(profile: Profile) -> list[tuple[str, float]]:
    return sorted(profile.weights.items(), key=lambda item: -abs(item[1]))


def _summary(profile: Profile) -> str:
    """The weights, the strongest first, and where they come from."""
    weights = ", ".join(f"{name} {weight:+.2g}" for name, weight in _strongest_first(profile) if weight)
    ends = profile.accuracy_interval
    interval = "" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})"
    parts = [
        weights or "no weights",
        f"for reward model {profile.reward_model}" if profile.reward_model else "for any reward model",
        f"from {profile.choices} choices" if profile.choices else "",
        f"accuracy {profile.accuracy:.2f}{interval}" if profile.accuracy is not None else "",
        f"created {profile.created}" if profile.created is not None else "",
    ]
    return "; ".join(filter(None, parts))


def _show_effect(effect: Effect, show: int) -> None:
    if show:
        names = ["prompt", "policy alone", f"{effect.preference} (weight {effect.guidance_weight:g})"]
        prompts = [prompt[-1]["content"] for prompt in effect.prompts[:show]]
        say_table(text_table(names, zip(prompts, effect.plain, effect.steered, strict=False), side_by_side=True))
    names = [f"reward, mean of {len(effect.prompts)} (nats)", "policy alone", "this alone", "together", "change"]
    rows = [
        (
            r.preference,
            f"{r.plain:.2f}",
            "" if r.alone is None else f"{r.alone:.2f}",
            f"{r.steered:.2f}",
            f"{r.steered - r.plain:+.2f}",
        )
        for r in effect.rewards
    ]
    say_table(text_table(names, rows, texts=1))
