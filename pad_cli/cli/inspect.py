"""`pad inspect`: what a reward model is, how it was trained, what it measured, and whether it fits a policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pad_cli.cli.options import Json, Quiet
from pad_cli.cli.tables import print_text
from pad_cli.system.progress import set_quiet
from pad_cli.system.terminal import FittingTable, console, say_json, say_table

_SIZES = ("pairs", "prompts", "answers", "mean_prompt", "mean_answer")
_FIGURES = ("pairs", "pair_accuracy", "margin", "policy_accuracy")
_NARROW = 76  # columns that a split with its figures needs

if TYPE_CHECKING:
    from pad_cli import CheckpointMetrics, Fit, Inspection


def inspect(
    reward_model: Annotated[str, typer.Argument(help="Directory of a reward model, or its id on the hub.")],
    policy: Annotated[
        str | None, typer.Option(help="Say how it would steer this language model: directory or hub id.")
    ] = None,
    pairs: Annotated[
        str | None, typer.Option(metavar="FILE", help="Load it and measure it again on these preference pairs (JSONL).")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a reward model is; weights are loaded only for --pairs, and for a --policy that may be its backbone."""
    set_quiet(quiet)
    import pad_cli

    found = pad_cli.inspect_reward_model(reward_model)
    steered = None if policy is None else pad_cli.ModelSettings(model=policy)
    fit = None if steered is None else pad_cli.fit_policy(reward_model, steered)
    again = None if pairs is None else pad_cli.evaluate_checkpoint(reward_model, pairs, steered)
    if as_json:
        row = {
            **dataclasses.asdict(found),
            "fit": None if fit is None else dataclasses.asdict(fit),
            "measured_again": None if again is None else dataclasses.asdict(again),
        }
        say_json(row)
        return
    _show(found)
    if fit is not None:
        _show_fit(fit)
    if again is not None:
        _show_again(again)


def _show(found: Inspection) -> None:
    config = found.config
    facts: list[tuple[str, Any]] = [
        (
            "form",
            "the authors' released one" if found.form == "released" else f"pad, version {config['format_version']}",
        ),
        ("conditioning", config.get("conditioning", "heads")),
        ("backbone", config["backbone"]),
        ("revision", config.get("backbone_revision")),
        ("quantization", config.get("backbone_quantization")),
        ("trained with dtype", config.get("backbone_dtype")),
        ("fingerprint", config.get("backbone_fingerprint")),
        ("hidden size", config.get("hidden_size")),
        ("vocabulary", config.get("vocabulary_size")),
        ("principles", ", ".join(config.get("principles") or ()) or None),
        ("rank", config.get("rank")),
        ("free text", "yes" if config.get("encoder_width") is not None else "no"),
        ("adapter", ", ".join(f"{name} {value}" for name, value in (found.adapter or {}).items()) or "no"),
        ("calibration", config.get("calibration")),
        ("trained numbers", f"{sum(found.parameters.values()):,}"),
        ("size", f"{found.bytes / 1e6:.2f} MB"),
    ]
    _table(found.location, facts)
    for number, stage in enumerate(config.get("stages") or (), start=1):
        settings = {"seconds": found.seconds.get(stage.get("stage")), **stage}
        _table(f"Stage {number}: {stage.get('stage')}", _lines({k: v for k, v in settings.items() if k != "stage"}))
    splits = {split["name"]: _numbers(split, _SIZES) for split in found.data.get("splits") or ()}
    if splits:
        _splits("Data", splits)
    if config.get("environment"):
        _table("Trained with", _lines(config["environment"]))
    if found.metrics:
        _splits("Measured on", {split: _main_figures(values) for split, values in found.metrics.items()})
        print_text("length, bag of words: what they alone get right. Each preference: report.html, or --json.")


def _splits(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each split; on a narrow terminal a few."""
    from rich.text import Text

    here = console()
    if here.is_terminal and here.width < _NARROW:
        for split, row in rows.items():
            _table(f"{title} {split}", row.items())
        return
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    table = FittingTable(title, box=None, header_style="bold")
    for name in names:
        table.add_column("\n".join(name.rsplit(" ", 1)), justify="right")
    for split, row in rows.items():
        table.add_row(Text(split), *(Text(_written(row[name]) if name in row else "") for name in names))
    here.print(table)


def _main_figures(values: Mapping[str, Any]) -> dict[str, Any]:
    baselines = values.get("baselines") or {}
    told = {name.replace("_", " "): each.get("pair_accuracy") for name, each in baselines.items()}
    return {**_numbers(values, _FIGURES), **told}


def _numbers(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name.replace("_", " "): values[name] for name in names if name in values}


def _show_fit(fit: Fit) -> None:

    path = fit.path or "cannot be steered"
    shared = "the backbone's vocabulary" if fit.same_vocabulary else "another vocabulary than the backbone"
    _table(f"With the policy {fit.policy}", [("path", path), ("it has", shared)])
    say_table(fit.reason)


def _show_again(again: CheckpointMetrics) -> None:
    aim = f"{again.strength:.3f} nats at guidance weight 1; calibration aims at {again.aimed_strength:g}"
    facts = [
        ("pairs", again.pairs),
        ("pair accuracy", round(again.pair_accuracy, 4)),
        ("margin", f"{again.margin:.3f} nats"),
        ("policy accuracy", round(again.policy_accuracy, 4)),
        ("strength", aim),
        *((f"strength of {name}", f"{value:.3f}") for name, value in again.strength_by_preference.items()),
    ]
    _table("Measured again", facts)


def _lines(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested facts as flat lines; lists are left to --json."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _lines(value, f"{above}{name}: ")
        elif not isinstance(value, list):
            yield f"{above}{name}", value


def _table(title: str, facts: Any) -> None:
    from rich.text import Text

    table = FittingTable(title=Text(title), box=None, show_header=False, title_justify="left", title_style="bold")
    for name, value in facts:
        if value is not None:
            table.add_row(Text(str(name), style="dim"), Text(_written(value)))
    say_table(table)


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
