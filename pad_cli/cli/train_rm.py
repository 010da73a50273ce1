"""`pad train-rm`, `inspect` and `push`: a recipe to a reward model, what it is, and the model to the hub."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from pad_cli.cli.options import (
    DryRun,
    Json,
    Out,
    Overrides,
    Overwrite,
    Policy,
    Quiet,
    read_as,
    recipe_argument,
)
from pad_cli.cli.tables import metrics_table, print_facts, print_text
from pad_cli.system.progress import seconds as duration
from pad_cli.system.progress import size, stage
from pad_cli.system.terminal import say, say_json, say_table, text_table

if TYPE_CHECKING:
    from pad_cli.models.inspection import Inspection
    from pad_cli.training.estimate import Estimate


def train_rm(
    recipe: Annotated[str, recipe_argument("train-rm")],
    overrides: Overrides = None,
    out: Out = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a personalised reward model. Run again to continue an interrupted run."""
    settings = read_as("train-rm", recipe, overrides, out)
    if dry_run:
        from pad_cli.training.estimate import estimate

        show_estimate(estimate(settings), as_json)
        return
    from pad_cli.reports.document import terminal_table
    from pad_cli.reports.training_report import console_tables
    from pad_cli.training.train import train_reward_model

    trained = train_reward_model(settings, overwrite=overwrite)
    compared = None
    if settings.compare is not None:
        from pad_cli.contrast.comparison import compare

        compared = compare(settings, trained)
    if as_json:
        say_json({"reward_model": str(trained), "metrics": trained.metrics})
        return
    for table in console_tables(trained.record):
        say_table(table)
    if compared is not None:
        say_table(terminal_table(compared.table()))
        say(f"Comparison: {compared.page}")
    say(f"Reward model: {trained}  (report: {trained.path / 'report.html'})")


def push(
    directory: Annotated[str, typer.Argument(help="Directory of a trained reward model.")],
    repository: Annotated[str, typer.Argument(help="Where to on the hub: owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, when it is made.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; created if missing.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the commit.")] = None,
    quiet: Quiet = False,
) -> None:
    """Push a reward model and its model card to the hub; anyone with access can then load it by its id."""
    from pad_cli.models.publishing import push_reward_model

    with stage(f"Pushing to {repository}"):
        say(push_reward_model(directory, repository, private=private, revision=revision, message=message))


def show_estimate(estimate: Estimate, as_json: bool = False) -> None:
    """Print what a recipe will cost, piece by piece."""
    if as_json:
        say_json(dataclasses.asdict(estimate))
        return
    print_text(
        f"{estimate.backbone}: {_si(estimate.parameters)} parameters in {estimate.dtype}, {size(estimate.weights)}; "
        f"{estimate.pairs:,} training pairs, {estimate.answers:,} distinct answers"
    )
    say_table(estimate_table(estimate))
    print_text(f"Cached states on the disk: {size(estimate.disk)}. Validation and calibration are not counted.")


def estimate_table(estimate: Estimate) -> Table:
    """The work, and what each piece of it takes."""
    rows = [
        (
            work.name,
            f"{work.steps:,}" if work.steps else "",
            _si(work.tokens),
            "" if work.memory is None else size(work.memory),
            duration(work.seconds),
        )
        for work in estimate.work
    ]
    rows.append(("in all", "", "", "", duration(sum(work.seconds for work in estimate.work))))
    return text_table(("work", "steps", "tokens", "GPU memory", "time"), rows, texts=1)


def _si(number: float) -> str:
    for factor, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.3g}" if number else ""


def inspect(
    reward_model: Annotated[str, typer.Argument(help="Directory of a reward model, or its id on the hub.")],
    policy: Policy = None,
    pairs: Annotated[str | None, typer.Option(metavar="FILE", help="Measure it again on these pairs (JSONL).")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a reward model is, and whether it fits a policy.

    Weights are loaded only for --pairs, and for a --policy that may be its backbone.
    """
    from pad_cli.models.inspection import inspect_reward_model
    from pad_cli.recipe import ModelSettings

    inspection = inspect_reward_model(reward_model)
    settings = None if policy is None else ModelSettings(model=policy)
    fit = measured = None
    if settings is not None:
        from pad_cli.decoding.compatibility import fit_policy

        fit = fit_policy(reward_model, settings)
    if pairs is not None:
        from pad_cli.training.evaluate_checkpoint import evaluate_checkpoint

        measured = evaluate_checkpoint(reward_model, pairs, settings)
    if as_json:
        added = {"fit": fit, "measured_again": measured}
        rows = {name: None if each is None else dataclasses.asdict(each) for name, each in added.items()}
        say_json({**dataclasses.asdict(inspection), **rows})
        return
    _show(inspection)
    if fit is not None:
        facts = [("path", fit.path or "cannot be steered"), ("reason", fit.reason)]
        print_facts(f"With the policy {fit.policy}", facts)
    if measured is not None:
        again = [
            ("pairs", measured.pairs),
            ("pair accuracy", measured.pair_accuracy),
            ("margin", f"{measured.margin:.3f} nats"),
            ("policy accuracy", measured.policy_accuracy),
        ]
        print_facts("Measured again", again)


def _show(inspection: Inspection) -> None:
    config = inspection.config
    adapter = ", ".join(f"{name} {value}" for name, value in (inspection.adapter or {}).items())
    facts = {
        "form": "the authors' released one" if inspection.form == "released" else "pad",
        "conditioning": "heads",
        **{name.replace("_", " "): value for name, value in config.items() if not isinstance(value, Mapping | list)},
        "principles": ", ".join(config.get("principles") or ()) or None,
        "free text": config.get("encoder_width") is not None,
        "adapter": adapter or "no",
        "stages": ", ".join(stage["stage"] for stage in config.get("stages") or ()) or None,
        "trainable parameters": sum(inspection.parameters.values()),
        "size": f"{inspection.bytes / 1e6:.2f} MB",
    }
    print_facts(inspection.location, facts.items())
    if inspection.metrics:
        say_table(metrics_table(inspection.metrics))
        print_text("For each preference, each stage and the bag-of-words baseline: --json.")
