"""`pad eval`, `judge`, `sweep`, `reproduce` and `bench`: a recipe to a report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pad_cli.cli.options import (
    DryRun,
    Full,
    Json,
    Out,
    Overrides,
    Overwrite,
    Quiet,
    Yes,
    read_as,
    recipe_argument,
)
from pad_cli.cli.tables import print_text
from pad_cli.errors import EndpointError, UsageError
from pad_cli.system.progress import note
from pad_cli.system.terminal import neutralised, say, say_json, say_table

if TYPE_CHECKING:
    from pad_cli.evaluation.judge.judging import JudgePlan


def evaluate(
    recipe: Annotated[str, recipe_argument("eval")],
    overrides: Overrides = None,
    out: Out = None,
    overwrite: Overwrite = False,
    full: Full = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer benchmarks with several methods and score the answers. Run again to continue."""
    settings = read_as("eval", recipe, overrides, out)
    from pad_cli.evaluation.evaluate import evaluate
    from pad_cli.reports.evaluation_tables import report_table

    report = evaluate(settings, overwrite=overwrite)
    if as_json:
        for row in report["rows"]:
            say_json(row)
        return
    say_table(report_table(report, every_preference=full))
    say(f"Report: {Path(settings.output) / 'report.html'} (also report.md and report.json)")


def sweep(
    recipe: Annotated[str, recipe_argument("sweep")],
    overrides: Overrides = None,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Trade preferences off against each other: grids of weights, and Pareto fronts. Run again to continue."""
    settings = read_as("sweep", recipe, overrides, out)
    from pad_cli.evaluation.sweep import run_sweep
    from pad_cli.reports.document import terminal_table
    from pad_cli.reports.evaluation_tables import fronts_table

    result = run_sweep(settings, overwrite=overwrite)
    if as_json:
        for point in result["points"]:
            say_json(point)
        return
    say_table(terminal_table(fronts_table(result)))
    say(f"Sweep: {Path(settings.output) / 'sweep.html'}, sweep.json")


def reproduce(
    recipe: Annotated[str, recipe_argument("reproduce")] = "embedded-reproduce",
    overrides: Overrides = None,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the paper's tables, at the scale of a recipe's models. Run again to continue."""
    settings = read_as("reproduce", recipe, overrides, out)
    from pad_cli.evaluation.evaluate import reproduce

    result = reproduce(settings, overwrite=overwrite)
    if as_json:
        for name, table in result["tables"].items():
            for label, run in table["runs"].items():
                for row in run["rows"]:
                    say_json({"table": name, "run": label, **row})
        return
    say((Path(settings.output) / "reproduce.md").read_text(encoding="utf-8"), end="")
    print_text(
        f"\nWritten to {settings.output}: reproduce.md, reproduce.html, reproduce.json, and a report.html for each run."
    )


def bench(
    recipe: Annotated[str, recipe_argument("bench")],
    overrides: Overrides = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time steered decoding against plain decoding, after checking that all paths agree."""
    settings = read_as("bench", recipe, overrides)
    from pad_cli.bench.timing import bench_table, run_bench

    if as_json:
        run_bench(settings, on_row=say_json)
        return
    report = run_bench(settings)
    say(report["machine"])
    say_table(bench_table(report))


def judge(
    run_directory: Annotated[Path, typer.Argument(help="Directory of a finished `pad eval`.")],
    overrides: Overrides = None,
    max_cost: Annotated[
        float | None, typer.Option(metavar="USD", help="Limit on the total cost of judging this run; needs prices.")
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    full: Full = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Have a language model judge the answers, method against method. Run again to continue.

    The recipe's `judge.model` names the model (--set judge.model=NAME); the key is read from $OPENAI_API_KEY.
    """
    from pad_cli.evaluation.judge.judging import judge, plan_judging
    from pad_cli.reports.document import terminal_table
    from pad_cli.reports.evaluation_tables import judge_table

    plan = plan_judging(run_directory, overrides or [], max_cost)
    if dry_run:
        say_json(_forecast(plan)) if as_json else say(_sentence(plan))
        return
    if plan.waiting and not yes:
        if not sys.stdin.isatty():
            raise UsageError(_sentence(plan), "Pass --yes to continue, or --dry-run to see only this estimate.")
        typer.confirm(neutralised(f"{_sentence(plan)}\nGo on?"), abort=True, err=True)
    before = plan.spent
    report = judge(plan)
    if as_json:
        for row in report["pairwise"]:
            say_json({"mode": "pairwise", **row})
    else:
        say_table(terminal_table(judge_table(report, every_preference=full)))
        say(f"Judged: {run_directory / 'judge.json'}")
    if before is not None and plan.spent is not None:
        note(f"This cost ${plan.spent - before:.4f} (forecast ${plan.volume.usd or 0:.4f}); ${plan.spent:.4f} in all.")
    if report["over_budget"]:
        raise EndpointError(
            f"Stopped before ${plan.settings.max_cost:g} was exceeded, with {plan.waiting} questions not asked.",
            "The figures are of what was judged; run again with a higher --max-cost to continue.",
        )
    if not report["complete"]:
        raise EndpointError(f"{plan.waiting} questions got no reply.", "Run the same command again to ask them again.")


def _forecast(plan: JudgePlan) -> dict[str, Any]:
    names = {"model": plan.settings.model, "endpoint": plan.endpoint.shown}
    counts = {"waiting": plan.waiting, "known": len(plan.questions) - plan.waiting}
    return {**names, **counts, **plan.volume._asdict(), "spent_usd": plan.spent}


def _sentence(plan: JudgePlan) -> str:
    volume = plan.volume
    cost = "price not known" if volume.usd is None else f"about ${volume.usd:.4f}"
    limit = "" if plan.settings.max_cost is None else f", never more than ${plan.settings.max_cost:g} in all"
    return (
        f"{plan.waiting:,} questions to {plan.settings.model} at {plan.endpoint.shown} "
        f"({len(plan.questions) - plan.waiting:,} more already answered): about {volume.tokens_in:,} input and "
        f"{volume.tokens_out:,} output tokens, {cost}{limit}."
    )
