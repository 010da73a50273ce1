"""`pad eval`, `pad sweep`, `pad reproduce` and `pad bench`: a recipe to a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pad_cli.cli.options import Full, Json, Out, Overrides, Overwrite, Quiet, importing, read_as, recipe_argument
from pad_cli.cli.tables import print_report, print_text
from pad_cli.system.terminal import say, say_json, say_table


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
    with importing():
        from pad_cli.evaluation.evaluate import evaluate

    report = evaluate(settings, overwrite=overwrite)
    if as_json:
        for row in report["rows"]:
            say_json(row)
        return
    print_report(report, every_preference=full)
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
    with importing():
        from pad_cli.evaluation.sweep import run_sweep
        from pad_cli.reports.sweep_report import sweep_table

    result = run_sweep(settings, overwrite=overwrite)
    if as_json:
        for point in result["points"]:
            say_json(point)
        return
    say_table(sweep_table(result))
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
    with importing():
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
    with importing():
        from pad_cli.bench.rows import bench_table
        from pad_cli.bench.timing import run_bench

    if as_json:
        run_bench(settings, on_row=say_json)
        return
    report = run_bench(settings)
    say(report["machine"])
    say_table(bench_table(report))
