"""`pad judge`: the answers of a finished evaluation before a judge. First a plan that says its cost, then the asking.

Files in the run's directory: `judge.jsonl`, every reply under a key of what was asked (`asking.py` says its shape), and
`judge.json`, what it all says (`judge_report.py` says its shape). Judging again asks only what is not there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pad_cli.errors import RecipeError
from pad_cli.evaluation.judge.answers import Answer, Answers, Match, read_answers, read_run
from pad_cli.evaluation.judge.asking import LOST, Outcome, Question, ask_all, check_rows
from pad_cli.evaluation.judge.budget import Volume, cost_of, forecast, prices_of
from pad_cli.evaluation.judge.client import Endpoint, find_endpoint
from pad_cli.evaluation.judge.judge_report import (
    JUDGE_REPORT,
    VERSION,
    decide,
    outcome_row,
    pairwise_rows,
    positions,
    rated,
    rubric_rows,
)
from pad_cli.evaluation.judge.questions import compare, rate
from pad_cli.evaluation.report import has_report, write_pages
from pad_cli.recipe import EvalRecipe, JudgeSettings
from pad_cli.system.progress import bar
from pad_cli.system.runs import ResultLog, write_json

REPLIES = "judge.jsonl"


@dataclass(frozen=True)
class JudgePlan:
    """What is to be asked about a run."""

    directory: Path
    recipe: EvalRecipe
    settings: JudgeSettings
    endpoint: Endpoint
    answers: Answers
    matches: tuple[tuple[Match, tuple[str, ...]], ...]  # with the keys of its questions; none if the answers are equal
    ratings: tuple[tuple[Answer, str], ...]  # each answer to be rated with the key of its question
    questions: dict[str, Question]  # by key, each once
    log: ResultLog  # replies so far
    volume: Volume  # what the questions that wait will probably take

    @property
    def waiting(self) -> int:
        """Questions that nothing in the log answers."""
        return sum(key not in self.log.done for key in self.questions)

    @property
    def spent(self) -> float | None:
        """USD that judging this run has cost so far, at today's prices; None when they are not known."""
        prices = prices_of(self.settings)
        return None if prices is None else cost_of(self.log.done.values(), prices)


def plan_judging(directory: str | Path, overrides: Iterable[str] = ()) -> JudgePlan:
    """Find what is to be asked about a finished evaluation, and what that will cost. Asks nothing.

    Args:
        directory: of a finished `pad eval`.
        overrides: `key=value` texts for its recipe, for example `judge.model=...`.

    Raises:
        UsageError: there is no finished evaluation.
        RecipeError: the recipe is wrong, or has no `judge`.
        DataError: the run's files are damaged.
    """
    directory = Path(directory)
    recipe = read_run(directory, overrides)
    if (settings := recipe.judge) is None:
        raise RecipeError("judge: is missing", "Name one, for example: --set judge.model=NAME")
    endpoint, answers = find_endpoint(settings), read_answers(directory, recipe, settings)
    questions: dict[str, Question] = {}

    def key_of(question: Question) -> str:
        key = question.key(settings, endpoint)
        questions.setdefault(key, question)
        return key

    matches, ratings = [], []
    for match in answers.matches() if "pairwise" in settings.modes else ():
        item, ours, theirs = match.answer.item, match.answer.text, match.opponent.text
        orders = [] if ours == theirs else [(ours, theirs), (theirs, ours)]
        matches.append((match, tuple(key_of(Question("pairwise", compare(item, *order))) for order in orders)))
    for answer in answers.answers if "rubric" in settings.modes else ():
        question = Question("rubric", rate(answer.item, answer.text, settings.dimensions))
        ratings.append((answer, key_of(question)))
    log = ResultLog(directory / REPLIES)
    check_rows(log)
    waiting = [question.messages for key, question in questions.items() if key not in log.done]
    done = [row for key, row in log.done.items() if key in questions]
    volume = forecast(waiting, done, prices_of(settings))
    return JudgePlan(
        directory, recipe, settings, endpoint, answers, tuple(matches), tuple(ratings), questions, log, volume
    )


def judge(plan: JudgePlan) -> dict[str, Any]:
    """Ask what is not yet known, write `judge.json`, and the run's report with it.

    Returns:
        Its content; `complete` is false when the budget ended before the questions did, or some got no reply.

    Raises:
        JudgeError: the judge refuses, or cannot be reached; replies so far are kept.
        DataError: a file of the evaluation is damaged; `judge.json` is written, the report is not.
        StorageError: a file cannot be written.
    """
    outcome = Outcome()
    if plan.waiting:
        with bar(f"Asking {plan.settings.model}", total=plan.waiting) as progress:
            outcome = _run(ask_all(plan.questions, plan.settings, plan.endpoint, plan.log, progress.advance))
    report = _report(plan, outcome)
    write_json(plan.directory / JUDGE_REPORT, report)
    if has_report(plan.directory):
        write_pages(plan.directory)
    return report


def _run(asking: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run to the end; in a thread of its own where this one runs a loop already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(asking)
    with ThreadPoolExecutor(1) as outside:
        return outside.submit(asyncio.run, asking).result()


def _report(plan: JudgePlan, outcome: Outcome) -> dict[str, Any]:
    rows, recipe = plan.log.done, plan.recipe
    decided = [decide(match, keys, rows, outcome.failed) for match, keys in plan.matches]
    ratings = [rated(answer, key, rows, outcome.failed) for answer, key in plan.ratings]
    return {
        "version": VERSION,
        "model": plan.settings.model,
        "endpoint": plan.endpoint.shown,
        "modes": list(plan.settings.modes),
        "complete": plan.waiting == 0,
        "over_budget": outcome.over_budget,
        "pairwise": pairwise_rows(decided, recipe),
        "rubric": rubric_rows(ratings, recipe, list(plan.settings.dimensions)),
        "position": positions(plan.questions, rows),
        "cost": _cost(plan),
        "outcomes": [outcome_row(one) for one in decided],
    }


def _cost(plan: JudgePlan) -> dict[str, Any]:
    prices = prices_of(plan.settings)
    used = [plan.log.done[key] for key in plan.questions if key in plan.log.done]
    lost = [row for row in plan.log.done.values() if row["mode"] == LOST]
    sums = {name: sum(row[name] for row in used) for name in ("requests", "tokens_in", "tokens_out")}
    usd = {} if prices is None else {"usd": cost_of(used, prices), "lost_usd": cost_of(lost, prices)}
    return {"questions": len(used), **sums, **({"usd": None, "lost_usd": None} | usd)}
