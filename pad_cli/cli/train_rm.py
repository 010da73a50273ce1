"""`pad train-rm` and `pad push`: a recipe to a reward model, and the model to the Hugging Face hub."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pad_cli.cli.options import DryRun, Json, Out, Overrides, Overwrite, Quiet, importing, read_as, recipe_argument
from pad_cli.cli.tables import print_text, text_table
from pad_cli.system.progress import seconds as duration
from pad_cli.system.progress import size, stage
from pad_cli.system.terminal import FittingTable, console, say, say_json, say_table

if TYPE_CHECKING:
    from pad_cli.training.estimate import Estimate

_CARDS = (24, 80)  # gigabytes of memory


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
        with importing():
            from pad_cli.training.estimate import estimate

        with stage("Estimating"):
            costs = estimate(settings)
        show_estimate(costs, as_json)
        return
    with importing():
        from pad_cli.reports.training_report import console_tables
        from pad_cli.training.train import train_reward_model

    trained = train_reward_model(settings, overwrite=overwrite)
    if as_json:
        say_json({"reward_model": str(trained), "metrics": trained.metrics})
        return
    for table in console_tables(trained.record, console().width):
        say_table(table)
    say(f"Reward model: {trained}  (report: {trained.path / 'report.html'})")


def push(
    directory: Annotated[str, typer.Argument(help="Directory of a trained reward model.")],
    repository: Annotated[str, typer.Argument(help="Where to on the hub: owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private, when it is made.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; made when it is not there.")] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the commit.")] = None,
    quiet: Quiet = False,
) -> None:
    """Push a reward model with its card; whoever may read it can then name it by its id."""
    from pad_cli.models.publishing import push_reward_model

    with stage(f"Pushing to {repository}"):
        say(push_reward_model(directory, repository, private=private, revision=revision, message=message))


def show_estimate(estimate: Estimate, as_json: bool = False) -> None:
    """Print what a recipe will cost, piece by piece."""
    if as_json:
        choice = {"dtype": estimate.choice.name, "reason": estimate.choice.reason}
        say_json({**dataclasses.asdict(estimate), "choice": choice})
        return
    volume = estimate.volume
    reason = f" ({estimate.choice.reason})" if estimate.choice.reason else ""
    print_text(f"{estimate.backbone}: {_si(estimate.parameters)} parameters, loaded as {estimate.choice.name}{reason}")
    print_text(
        f"{volume.pairs:,} training pairs, {volume.answers:,} distinct answers to read; tokens after cutting: prompt "
        f"{volume.prompt_tokens:.0f}, answer {volume.answer_tokens:.0f} (mean of {volume.sampled:,})"
    )
    say_table(*estimate_tables(estimate))
    most = max(estimate.costs, key=lambda cost: sum(cost.memory.values()))
    parts = ", ".join(f"{name} {size(count)}" for name, count in most.memory.items())
    print_text(f"Device memory {size(estimate.memory)} in '{most.name}': {parts}.")
    for card in _CARDS:
        say(f"  On a GPU, {card} GB are {'enough' if estimate.fits(card) else 'not enough'}, with a tenth left free.")
    print_text(f"Cached states on the disk: {size(estimate.disk)}. Validation during training is not counted.")


def estimate_tables(estimate: Estimate) -> Iterator[FittingTable]:
    """The work, and how long it takes on each device."""
    rows = [
        (
            cost.name,
            f"{cost.steps:,}" if cost.steps else "",
            *(_si(number) for number in (cost.tokens, cost.operations, cost.cpu_operations)),
            size(sum(cost.memory.values())),
        )
        for cost in estimate.costs
    ]
    names = ("work", "steps", "tokens read", "operations", "on the CPU", "device memory")
    yield text_table(names, rows, figures=True)
    times = [
        (device, *map(duration, (*each.values(), sum(each.values())))) for device, each in estimate.seconds.items()
    ]
    yield text_table(("device", *(cost.name for cost in estimate.costs), "in all"), times, figures=True)


def _si(number: float) -> str:
    for factor, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number:.3g}" if number else ""
