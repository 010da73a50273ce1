"""`pad judge`: a language model judges the answers of a finished evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pad_cli.cli.options import Full, Json, Overrides, Quiet, Yes, confirm, importing
from pad_cli.errors import JudgeError
from pad_cli.system.progress import note
from pad_cli.system.terminal import say, say_json, say_table

if TYPE_CHECKING:
    from pad_cli.evaluation.judge.judging import JudgePlan


def judge(
    run_directory: Annotated[Path, typer.Argument(help="Directory of a finished `pad eval`.")],
    overrides: Overrides = None,
    max_cost: Annotated[
        float | None,
        typer.Option(metavar="USD", help="Stop before judging this run costs more, all in all; needs prices."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be asked and its cost; ask nothing.")
    ] = False,
    yes: Yes = False,
    full: Full = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Have a language model judge the answers, method against method. Run again to continue.

    The recipe's `judge` says which model (--set judge.model=NAME); the key is $OPENAI_API_KEY.
    """
    with importing():
        from pad_cli.evaluation.judge.judging import judge, plan_judging
        from pad_cli.reports.evaluation_tables import judge_tables

    limit = [] if max_cost is None else [f"judge.max_cost={max_cost!r}"]
    plan = plan_judging(run_directory, [*(overrides or []), *limit])
    if dry_run:
        say_json(_forecast(plan)) if as_json else say(_sentence(plan))
        return
    if plan.waiting and not yes:
        confirm(_sentence(plan), "Say --yes to go on, or --dry-run to see only this.")
    before = plan.spent
    report = judge(plan)
    if as_json:
        for mode in ("pairwise", "rubric"):
            for row in report[mode]:
                say_json({"mode": mode, **row})
    else:
        say_table(*judge_tables(report, every_preference=full))
        say(f"Judged: {run_directory / 'judge.json'}")
    if before is not None and plan.spent is not None:
        note(f"This cost ${plan.spent - before:.4f} (forecast ${plan.volume.usd or 0:.4f}); ${plan.spent:.4f} in all.")
    if report["over_budget"]:
        raise JudgeError(
            f"Stopped before ${plan.settings.max_cost:g} was exceeded, with {plan.waiting} questions not asked.",
            "The figures are of what was judged; run again with a higher --max-cost to continue.",
        )
    if not report["complete"]:
        raise JudgeError(f"{plan.waiting} questions got no reply.", "Run the same command again to ask them again.")


def _sentence(plan: JudgePlan) -> str:
    forecast = _forecast(plan)
    cost = "price not known" if forecast["usd"] is None else f"about ${forecast['usd']:.4f}"
    limit = "" if plan.settings.max_cost is None else f", never more than ${plan.settings.max_cost:g} in all"
    return (
        f"{forecast['waiting']:,} questions to {forecast['model']} at {forecast['endpoint']} "
        f"({forecast['known']:,} more are answered): about {forecast['tokens_in']:,} tokens to read and "
        f"{forecast['tokens_out']:,} to write, {cost}{limit}."
    )


def _forecast(plan: JudgePlan) -> dict[str, Any]:
    return {
        "model": plan.settings.model,
        "endpoint": plan.endpoint.shown,
        "waiting": plan.waiting,
        "known": len(plan.questions) - plan.waiting,
        **dataclasses.asdict(plan.volume),
        "spent_usd": plan.spent,
    }
