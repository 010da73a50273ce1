"""`pad prefs`: which preferences there are, what they do to text, and which cannot both be had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pad_cli.cli.completion import complete_library, complete_preferences, complete_profiles_and_principles
from pad_cli.cli.options import GenerateRecipeName, Json, Overrides, Policy, Quiet, RewardModel, read_as
from pad_cli.cli.tables import print_facts, print_text
from pad_cli.errors import PreferenceError, UsageError, did_you_mean
from pad_cli.system.progress import bar, set_quiet
from pad_cli.system.terminal import FittingTable, say, say_json, say_table

if TYPE_CHECKING:
    from pad_cli import Effect, Principle, Profile, TradeOff

app = typer.Typer(help="List, show and try preferences: principles and profiles.", no_args_is_help=True)

_EXAMPLE = "embedded-generate"
_STRONGEST = 4  # weights of a profile that a list shows


@app.command("list")
def list_(
    recipe: GenerateRecipeName = _EXAMPLE, reward_model: RewardModel = None, as_json: Json = False, quiet: Quiet = False
) -> None:
    """List a reward model's principles, and the profiles in ./profiles."""
    set_quiet(quiet)
    import pad_cli

    location = _location(recipe, reward_model)
    config = pad_cli.inspect_reward_model(location).config
    principles, free = list(config.get("principles") or ()), _reads_text(config)
    profiles = [pad_cli.load_profile(name) for name in pad_cli.profile_names()]
    if as_json:
        rows = [
            *({"kind": "principle", "name": name, "reward_model": location} for name in principles),
            *({"kind": "profile", **_row(profile)} for profile in profiles),
        ]
        _print(rows)
        return
    print_text(f"{location} knows: {', '.join(principles) or 'any text'}")
    say(f"Free text: {'yes' if free else 'no'}")
    if not profiles:
        say("There are no profiles in ./profiles.")
        return
    _table(
        ("profile", "reward model", "choices", "accuracy", "strongest weights"),
        [
            (f"@{each.name}", each.reward_model or "any", each.choices or "", _accuracy(each), _strongest(each))
            for each in profiles
        ],
    )


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A profile's name, with or without its @, its file, or a principle.",
            autocompletion=complete_profiles_and_principles,
        ),
    ],
    recipe: GenerateRecipeName = _EXAMPLE,
    reward_model: RewardModel = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show a profile's weights with their intervals, or how many wordings of a principle the reward model knows."""
    set_quiet(quiet)
    import pad_cli

    if name.startswith("@") or name in pad_cli.profile_names() or Path(name).is_file():
        _show_profile(pad_cli.load_profile(name.removeprefix("@")), as_json)
        return
    location = _location(recipe, reward_model)
    principles = list(pad_cli.inspect_reward_model(location).config.get("principles") or ())
    found = {each.lower(): each for each in principles}.get(name.lower())
    if found is None:
        known = [*principles, *(f"@{each}" for each in pad_cli.profile_names())]
        raise PreferenceError(f"'{name}' is no profile, and no principle of {location}.", did_you_mean(name, known))
    wordings = pad_cli.known_paraphrases(location).get(found)
    if as_json:
        _print([{"kind": "principle", "name": found, "reward_model": location, "wordings": wordings}])
        return
    say(f"{found}: a principle of {location}")
    say("no preference encoder: ask for it by name" if wordings is None else f"wordings it was trained on: {wordings}")
    say(f"What it does to text: pad prefs test {found}")


@app.command("test")
def try_(
    preferences: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PREF]...", help="As after --pref; several add up.", autocompletion=complete_preferences
        ),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSONL of prompts; without it the embedded ones.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Use the first so many prompts.")] = 16,
    shown: Annotated[int, typer.Option("--show", min=0, help="Print the answers to the first so many prompts.")] = 3,
    every: Annotated[bool, typer.Option("--all", help="Look for conflicts among all principles.")] = False,
    recipe: GenerateRecipeName = _EXAMPLE,
    policy: Policy = None,
    reward_model: RewardModel = None,
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try a preference: answers without and with it, their rewards, and which of its parts exclude each other."""
    set_quiet(quiet)
    if not preferences and not every:
        raise UsageError("There is no preference to try.", "Name one, for example: pad prefs test humorous; or --all")
    import pad_cli

    options = {"policy.model": policy, "reward_model": reward_model}
    settings = read_as("generate", recipe, overrides, options=options)
    asked = pad_cli.read_prompts(prompts, count)
    engine = pad_cli.PadEngine.from_recipe(settings)
    model = engine.reward_model
    assert model is not None, "a recipe names one"
    wanted = engine.preference(preferences or [])
    parts = pad_cli.parts_of(engine.preference(model.principles) if every else wanted)
    if not parts:
        raise UsageError("This reward model has no named principles for --all.", "Name the preferences to try.")
    effect, pairs = None, []
    if len(parts) > 1:
        total = pad_cli.count_answers(len(parts), len(asked))
        with bar("Answering under each alone and each two", total=total) as progress:
            pairs = pad_cli.measure_trade_offs(engine, parts, asked, settings.decoding, progress.advance)
    if preferences:
        with bar("Answering without and with it", total=2 * len(asked)) as progress:
            effect = pad_cli.measure_effect(engine, wanted, asked, settings.decoding, progress.advance)
    if as_json:
        _print([{"effect": None if effect is None else _effect_row(effect), "pairs": [_pair_row(p) for p in pairs]}])
        return
    if effect is not None:
        _show_effect(effect, shown)
    if pairs:
        _show_pairs(pairs)


@app.command()
def library(
    name: Annotated[
        str | None, typer.Argument(help="Show all of one principle.", autocompletion=complete_library)
    ] = None,
    own: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Your own principles; by default ./principles.yaml if it exists."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List ready principles, yours among them, or show one: its instruction, its opposite and how users ask for it."""
    set_quiet(quiet)
    import pad_cli

    known = pad_cli.read_library(own)
    shown = known if name is None else dict([pad_cli.find_principle(name, known)])
    if as_json:
        _print({"name": each, **principle.model_dump()} for each, principle in shown.items())
    elif name is None:
        print_facts("library", ((each, principle.description) for each, principle in shown.items()))
    else:
        for each, principle in shown.items():
            print_facts(each, _described(principle))


def _described(principle: Principle) -> Iterator[tuple[str, str]]:
    for key, value in principle:
        texts = value if isinstance(value, tuple) else (value,) if value else ()
        yield from zip([key.replace("_", " "), *[""] * len(texts)], texts, strict=False)


def _location(recipe: str, reward_model: str | None) -> str:
    return reward_model or str(read_as("generate", recipe, None).reward_model)


def _reads_text(config: Mapping[str, Any]) -> bool:
    return config.get("conditioning") == "prompt" or config.get("encoder_width") is not None


def _row(profile: Profile) -> dict[str, Any]:
    return {
        "name": profile.name,
        "reward_model": profile.reward_model or None,
        "choices": profile.choices,
        "accuracy": profile.accuracy,
        "accuracy_interval": profile.accuracy_interval,
        "created": None if profile.created is None else profile.created.isoformat(),
        "weights": dict(profile.weights),
        "intervals": dict(profile.intervals),
    }


def _accuracy(profile: Profile) -> str:
    if profile.accuracy is None:
        return ""
    ends = profile.accuracy_interval
    return f"{profile.accuracy:.2f}" + ("" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})")


def _ranked(profile: Profile) -> list[tuple[str, float]]:
    return sorted(profile.weights.items(), key=lambda item: -abs(item[1]))


def _strongest(profile: Profile) -> str:
    wanted = [f"{name} {weight:+.2g}" for name, weight in _ranked(profile) if weight]
    more = [f"{len(wanted) - _STRONGEST} more"] if len(wanted) > _STRONGEST else []
    return ", ".join([*wanted[:_STRONGEST], *more]) or "none"


def _show_profile(profile: Profile, as_json: bool) -> None:
    if as_json:
        _print([{"kind": "profile", **_row(profile)}])
        return
    facts = [
        ("reward model", profile.reward_model or "any"),
        ("choices", profile.choices or ""),
        ("accuracy", _accuracy(profile)),
        ("created", profile.created or ""),
    ]
    print_text(f"@{profile.name}: " + ", ".join(f"{key} {value}" for key, value in facts if value))
    rows = []
    for name, weight in _ranked(profile):
        ends = profile.intervals.get(name)
        rows.append((name, f"{weight:+.2f}", "" if ends is None else f"{ends[0]:+.2f} to {ends[1]:+.2f}"))
    _table(("principle", "weight", "95 % interval"), rows)


def _effect_row(effect: Effect) -> dict[str, Any]:
    answers = zip(effect.prompts, effect.plain, effect.steered, strict=True)
    return {
        "preference": effect.preference,
        "guidance_weight": effect.guidance_weight,
        "answers": [
            {"prompt": [dict(message) for message in prompt], "plain": plain, "steered": steered}
            for prompt, plain, steered in answers
        ],
        "rewards": [
            {"principle": each.principle, "plain": each.plain, "steered": each.steered} for each in effect.rewards
        ],
    }


def _pair_row(pair: TradeOff) -> dict[str, Any]:
    sides = [
        {"preference": each.preference, "alone": each.alone, "both": each.both, "share": each.share, "lost": each.lost}
        for each in (pair.first, pair.second)
    ]
    return {"conflict": pair.conflict, "preferences": sides}


def _show_effect(effect: Effect, shown: int) -> None:
    title = f"{effect.preference} (weight {effect.guidance_weight:g})"
    answers = list(zip(effect.prompts, effect.plain, effect.steered, strict=True))[:shown]
    if answers:
        rows = [(prompt[-1]["content"], plain, steered) for prompt, plain, steered in answers]
        _table(("prompt", "policy alone", title), rows, lines=True)
    rewards = sorted(effect.rewards, key=lambda each: each.plain - each.steered)
    _table(
        (f"reward, mean of {len(effect.prompts)} (nats)", "policy alone", "steered", "change"),
        [(r.principle, f"{r.plain:.2f}", f"{r.steered:.2f}", f"{r.steered - r.plain:+.2f}") for r in rewards],
    )


def _show_pairs(pairs: list[TradeOff]) -> None:
    found = [pair for pair in pairs if pair.conflict]
    if not found:
        print_text(f"No conflicts: of {len(pairs)} pairs, each keeps at least half of what it gains alone, or may.")
        return
    rows = []
    for pair in found:
        for kept, other in ((pair.first, pair.second), (pair.second, pair.first)):
            if kept.lost:
                rows.append((kept.preference, other.preference, f"{kept.alone:+.2f}", f"{kept.both:+.2f}"))
    _table(("is lost", "beside", "gain alone (nats)", "gain beside it"), rows)


def _table(names: Iterable[str], rows: Iterable[Iterable[Any]], *, lines: bool = False) -> None:
    from rich.text import Text

    table = FittingTable(show_lines=lines, expand=lines)
    for name in names:
        table.add_column(Text(name), overflow="fold", ratio=1 if lines else None)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    say_table(table)


def _print(rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        say_json(row)
