"""`pad inspect`: what a reward model is, how it was trained, what it measured, and whether it fits a policy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pad_cli.cli.options import Json, Policy, Quiet, importing
from pad_cli.cli.tables import print_facts, print_text, text_table
from pad_cli.system.terminal import say_json, say_table

if TYPE_CHECKING:
    from pad_cli.models.inspection import Inspection

_SIZES = ("pairs", "prompts", "answers", "mean_prompt", "mean_answer")
_FIGURES = ("pairs", "pair_accuracy", "margin", "policy_accuracy")


def inspect(
    reward_model: Annotated[str, typer.Argument(help="Directory of a reward model, or its id on the hub.")],
    policy: Policy = None,
    pairs: Annotated[str | None, typer.Option(metavar="FILE", help="Measure it again on these pairs (JSONL).")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a reward model is; weights are loaded only for --pairs, and for a --policy that may be its backbone."""
    from pad_cli.models.inspection import inspect_reward_model
    from pad_cli.recipe import ModelSettings

    inspection = inspect_reward_model(reward_model)
    settings = None if policy is None else ModelSettings(model=policy)
    fit = measured = None
    if settings is not None:
        with importing():
            from pad_cli.decoding.compatibility import fit_policy
        fit = fit_policy(reward_model, settings)
    if pairs is not None:
        with importing():
            from pad_cli.training.evaluate_checkpoint import evaluate_checkpoint
        measured = evaluate_checkpoint(reward_model, pairs, settings)
    if as_json:
        added = {"fit": fit, "measured_again": measured}
        rows = {name: None if each is None else dataclasses.asdict(each) for name, each in added.items()}
        say_json({**dataclasses.asdict(inspection), **rows})
        return
    _show(inspection)
    if fit is not None:
        shared = "the backbone's vocabulary" if fit.same_vocabulary else "another vocabulary than the backbone"
        print_facts(f"With the policy {fit.policy}", [("path", fit.path or "cannot be steered"), ("it has", shared)])
        say_table(fit.reason)
    if measured is not None:
        aim = f"{measured.strength:.3f} nats at guidance weight 1; calibration aims at {measured.aimed_strength:g}"
        facts = [
            ("pairs", measured.pairs),
            ("pair accuracy", round(measured.pair_accuracy, 4)),
            ("margin", f"{measured.margin:.3f} nats"),
            ("policy accuracy", round(measured.policy_accuracy, 4)),
            ("strength", aim),
            *((f"strength of {name}", f"{value:.3f}") for name, value in measured.strength_by_preference.items()),
        ]
        print_facts("Measured again", facts)


def _show(inspection: Inspection) -> None:
    config = inspection.config
    adapter = ", ".join(f"{name} {value}" for name, value in (inspection.adapter or {}).items())
    facts = {
        "form": "the authors' released one" if inspection.form == "released" else "pad",
        "conditioning": "heads",
        **{name.replace("_", " "): value for name, value in config.items() if not isinstance(value, Mapping | list)},
        "principles": ", ".join(config.get("principles") or ()) or None,
        "free text": "no" if config.get("encoder_width") is None else "yes",
        "adapter": adapter or "no",
        "trainable parameters": sum(inspection.parameters.values()),
        "size": f"{inspection.bytes / 1e6:.2f} MB",
    }
    print_facts(inspection.location, facts.items())
    for number, stage in enumerate(config.get("stages") or (), start=1):
        settings = {"seconds": inspection.seconds.get(stage.get("stage")), **stage}
        print_facts(f"Stage {number}: {settings.pop('stage', None)}", _flat(settings))
    splits = {split["name"]: _numbers(split, _SIZES) for split in inspection.data.get("splits") or ()}
    if splits:
        _splits("Data", splits)
    if config.get("environment"):
        print_facts("Trained with", _flat(config["environment"]))
    if inspection.metrics:
        _splits("Measured on", {split: _main_figures(values) for split, values in inspection.metrics.items()})
        print_text("length, bag of words: what they alone get right. Each preference: report.html, or --json.")


def _splits(title: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A line for each split."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [(split, *(row.get(name, "") for name in names)) for split, row in rows.items()]
    say_table(text_table((title, *names), lines, boxed=False, figures=True))


def _main_figures(values: Mapping[str, Any]) -> dict[str, Any]:
    baselines = values.get("baselines") or {}
    accuracies = {name.replace("_", " "): each.get("pair_accuracy") for name, each in baselines.items()}
    return {**_numbers(values, _FIGURES), **accuracies}


def _numbers(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name.replace("_", " "): values[name] for name in names if name in values}


def _flat(content: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested facts as flat lines; lists are left to --json."""
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}: ")
        elif not isinstance(value, list):
            yield f"{above}{name}", value
