"""`pad judge`: judges the answers of a finished evaluation. First a plan with its estimated cost, then the requests.

Files in the run's directory: `judge.json`, what it all says (`judge_report.py` says its shape), and `judge.jsonl`,
every reply under a key of what was asked:

    {"key", "mode": "pairwise", "verdict": {"reason", "winner"} or null, "problem", "reply", "tokens_in", "tokens_out"}

`verdict` is null when the reply could not be read; `reply` is then what was written, and `problem` why it is no
verdict. Earlier versions wrote rows of mode `rubric`, too, which count for the costs. Judging again asks only what is
not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pad_cli.endpoint.asking import LOST, Volume, ask_all, cost_of, forecast, run
from pad_cli.endpoint.client import Endpoint, Reply, find_endpoint
from pad_cli.errors import DataError, RecipeError, UsageError, did_you_mean
from pad_cli.evaluation.answering import prompt_key, question_key
from pad_cli.evaluation.contract import Answer, Method, System, load_method
from pad_cli.evaluation.evaluate import ANSWERS, items_by_policy
from pad_cli.evaluation.judge.judge_report import VERSION, Match, decide, outcome_row, pairwise_rows, positions
from pad_cli.evaluation.judge.questions import VERDICT, UnparsedVerdictError, compare, read_verdict
from pad_cli.evaluation.outputs import JUDGED, REPORT, has_report, read_answered, read_content, write_pages
from pad_cli.evaluation.report import reference_of
from pad_cli.prompts import load_benchmarks
from pad_cli.recipe import EvalRecipe, JudgeSettings, read_recipe
from pad_cli.records import BenchmarkItem, Messages
from pad_cli.system.progress import bar, note
from pad_cli.system.runs import RECIPE, ResultLog, fingerprint, write_json

REPLIES = "judge.jsonl"
_REPLY_TOKENS = 80  # of a verdict, about
_SWEPT = ("guidance_weight", "seed")  # of decoding: an evaluation has lists of them in their place
_AGAIN = "Run `pad eval` again; it answers only what is missing."


@dataclass(frozen=True)
class JudgePlan:
    """What is to be asked about a run."""

    directory: Path
    recipe: EvalRecipe
    settings: JudgeSettings
    endpoint: Endpoint
    answers: list[Answer]
    matches: list[Match]
    questions: dict[str, Messages]  # by key, each once
    log: ResultLog  # replies so far
    volume: Volume  # what the questions that wait will probably take

    @property
    def waiting(self) -> int:
        """Questions that nothing in the log answers."""
        return sum(key not in self.log.done for key in self.questions)

    @property
    def spent(self) -> float | None:
        """USD that judging this run has cost so far, at today's prices; None when they are not known."""
        return cost_of(self.log.done.values(), self.settings)


def plan_judging(directory: str | Path, overrides: Iterable[str] = (), max_cost: float | None = None) -> JudgePlan:
    """Find what is to be asked about a finished evaluation, and what that will cost. Asks nothing.

    Args:
        directory: of a finished `pad eval`.
        overrides: `key=value` texts for its recipe, for example `judge.model=...`.
        max_cost: USD, in place of the recipe's `judge.max_cost`.

    Raises:
        UsageError: there is no finished evaluation.
        RecipeError: the recipe is wrong, or has no `judge`.
        DataError: the run's files are damaged.
    """
    directory = Path(directory)
    recipe = _read_run(directory, overrides, max_cost)
    if (settings := recipe.judge) is None:
        raise RecipeError("judge: is missing", "Name one, for example: --set judge.model=NAME")
    endpoint, answers = find_endpoint(settings), _read_answers(directory, recipe, settings.limit)
    matches: list[Match] = []
    questions: dict[str, Messages] = {}
    for answer, opponent in _pairs(answers, recipe, settings):
        ours, theirs = answer.text, opponent.text
        orders = [] if ours == theirs else [(ours, theirs), (theirs, ours)]
        both = [compare(answer.item, first, second) for first, second in orders]
        keys = tuple(key_of(messages, settings, endpoint) for messages in both)
        questions.update(zip(keys, both, strict=True))
        matches.append(Match(answer, opponent, keys))

    def check(row: Mapping[str, Any]) -> None:
        if any(type(row[name]) is not int or row[name] < 0 for name in ("tokens_in", "tokens_out")):
            raise ValueError("no number of tokens")
        if row["key"] in questions and row["verdict"] is not None:
            read_verdict(json.dumps(row["verdict"]))

    log = ResultLog(directory / REPLIES, needs=("mode",), check=check)
    volume = forecast([asked for key, asked in questions.items() if key not in log.done], settings, _REPLY_TOKENS)
    return JudgePlan(directory, recipe, settings, endpoint, answers, matches, questions, log, volume)


def judge(plan: JudgePlan) -> dict[str, Any]:
    """Ask what is not yet known, write `judge.json`, and the run's report with it.

    Returns:
        Its content; `complete` is false when the budget ended before the questions did, or some got no reply.

    Raises:
        EndpointError: the judge refuses, or cannot be reached; replies so far are kept.
        DataError: a file of the evaluation is damaged; `judge.json` is written, the report is not.
        StorageError: a file cannot be written.
    """
    failed: dict[str, str] = {}
    if plan.waiting:
        with bar(f"Asking {plan.settings.model}", total=plan.waiting) as progress:
            asking = ask_all(
                plan.questions, plan.settings, plan.endpoint, plan.log, progress.advance, _read, schema=VERDICT
            )
            failed = run(asking)
    report = _report(plan, failed)
    write_json(plan.directory / JUDGED, report)
    if has_report(plan.directory):
        write_pages(plan.directory)
    return report


def key_of(messages: Messages, settings: JudgeSettings, endpoint: Endpoint) -> str:
    """The key of a question: of everything that decides the reply."""
    decisive = [endpoint.shown, settings.model, settings.temperature, settings.max_tokens]
    return fingerprint([*decisive, "pairwise", VERDICT, messages])


def _read(reply: Reply) -> dict[str, Any]:
    try:
        return {"mode": "pairwise", "verdict": read_verdict(reply.text), "problem": "", "reply": ""}
    except UnparsedVerdictError as error:
        return {"mode": "pairwise", "verdict": None, "problem": str(error), "reply": reply.text}


def _report(plan: JudgePlan, failed: Mapping[str, str]) -> dict[str, Any]:
    rows, settings = plan.log.done, plan.settings
    judged = [decide(match, rows, failed) for match in plan.matches]
    used = [rows[key] for key in plan.questions if key in rows]
    lost = [row for row in rows.values() if row["mode"] == LOST]
    return {
        "version": VERSION,
        "model": settings.model,
        "endpoint": plan.endpoint.shown,
        "complete": not plan.waiting,
        "over_budget": plan.waiting > len(failed),
        "pairwise": pairwise_rows(judged, plan.recipe),
        "position": positions(plan.questions, rows),
        "cost": {
            "questions": len(used),
            **{name: sum(row[name] for row in used) for name in ("tokens_in", "tokens_out")},
            "usd": cost_of(used, settings),
            "lost_usd": cost_of(lost, settings),
        },
        "outcomes": [outcome_row(one) for one in judged],
    }


def _read_run(directory: Path, overrides: Iterable[str] = (), max_cost: float | None = None) -> EvalRecipe:
    """The recipe of a finished evaluation, with `key=value` overrides, for example `judge.model=...`."""
    path = directory / RECIPE
    if not path.is_file() or not (directory / REPORT).is_file():
        raise UsageError(f"{directory}: no finished evaluation.", "Run `pad eval` first, and give its directory.")
    decoding = read_content(path).get("decoding", {})
    if not isinstance(decoding, dict):
        raise DataError("cannot be read", path=path, hint=_AGAIN)
    decoding = {key: value for key, value in decoding.items() if key not in _SWEPT}
    overrides = [f"decoding={json.dumps(decoding)}", *overrides]
    recipe = read_recipe(str(path), overrides, {"judge.max_cost": max_cost})
    if recipe.kind != "eval":
        raise UsageError(f"{directory}: a run of kind '{recipe.kind}'.", "Give the directory of a `pad eval`.")
    return recipe


def _read_answers(directory: Path, recipe: EvalRecipe, limit: int | None) -> list[Answer]:
    """The answers that the run's report is about, item by item, to at most `limit` items of a group."""
    methods = {method.label: load_method(method) for method in recipe.methods}
    benchmarks = load_benchmarks(recipe.benchmarks)
    requested = {policy: set(map(id, items)) for policy, items in items_by_policy(recipe, benchmarks).items()}
    items = _sampled([item for benchmark in benchmarks for item in benchmark], limit)
    systems = [
        System(name, policy, weight)
        for policy in recipe.policies
        for name, method in methods.items()
        for weight in (recipe.weights_of(name) if method.weighted else [0.0])
    ]
    texts = _texts(directory, methods)
    answers = [
        Answer(item, text, system, seed)
        for item in items
        for system in systems
        if id(item) in requested[system.policy]
        for seed in recipe.seeds
        if (text := texts.get((system, seed, question_key(methods[system.method], item)))) is not None
    ]
    if not answers:
        raise DataError("no answer to any item of the recipe", path=directory / ANSWERS, hint=_AGAIN)
    if lacking := len(items) - len({id(answer.item) for answer in answers}):
        note(f"{lacking} of {len(items)} items have no answer in this run; they are not judged.")
    return answers


def _pairs(answers: Sequence[Answer], recipe: EvalRecipe, settings: JudgeSettings) -> Iterator[tuple[Answer, Answer]]:
    """Every answer with those of the opponent to the same item, at each of its guidance weights; item by item."""
    methods = {method.label: load_method(method) for method in recipe.methods}
    opponent = settings.opponent or reference_of(recipe, methods).method
    if opponent not in methods:
        raise UsageError(f"judge.opponent: no method is called '{opponent}'.", did_you_mean(opponent, methods))
    for _, group in groupby(answers, key=lambda answer: id(answer.item)):
        of_item = list(group)
        opponents = [answer for answer in of_item if answer.system.method == opponent]
        for answer in of_item:
            for other in opponents if answer.system.method != opponent else ():
                if (other.system.policy, other.seed) == (answer.system.policy, answer.seed):
                    yield answer, other


def _sampled(items: Sequence[BenchmarkItem], limit: int | None) -> list[BenchmarkItem]:
    """Items in an order that does not depend on what they ask, at most `limit` of a group.

    A part of them, cut off by a budget or a limit, is then a fair sample, and a larger limit contains a smaller one's.
    """
    counts: dict[str, int] = {}
    sample = []
    for item in sorted(items, key=lambda item: fingerprint([item.id, prompt_key(item), item.preference])):
        counts[item.group] = counts.get(item.group, 0) + 1
        if limit is None or counts[item.group] <= limit:
            sample.append(item)
    return sample


def _texts(directory: Path, methods: Mapping[str, Method]) -> dict[tuple[System, int, tuple[str, ...]], str]:
    """The texts of the finished evaluation, by system, seed and `question_key`."""
    rows = ResultLog(directory / ANSWERS).done
    texts: dict[tuple[System, int, tuple[str, ...]], str] = {}
    for system, keys in read_answered(directory, read_content(directory / RECIPE)).items():
        if (method := methods.get(system.method)) is None:
            continue
        for row in (rows[key] for key in keys if key in rows):
            try:
                prompt = fingerprint(row["prompt"])
                question = (row["item"], prompt, *row["preference"]) if method.reads_preference else (prompt,)
                texts[system, row["seed"], question] = str(row["text"])
            except (KeyError, TypeError) as error:
                raise DataError("cannot be read", path=directory / ANSWERS, hint=_AGAIN) from error
    return texts
