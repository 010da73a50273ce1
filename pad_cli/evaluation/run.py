"""`evaluate`: answer every benchmark item with every method, score the answers, write the report.

Answers and scores are written batch by batch, each under a key of everything that decides it. Running again does only
what is missing, so an interrupted evaluation ends in the same report.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import RecipeError
from pad_cli.evaluation.answered import write_answered
from pad_cli.evaluation.answering import Job, Logs, answer, answer_keys, prompt_key
from pad_cli.evaluation.cells import Scored
from pad_cli.evaluation.comparisons import reference_of
from pad_cli.evaluation.contract import Cost, Method, Sample, Score, Scorer, Subject
from pad_cli.evaluation.costs import Answered, reward_model_cost, write_costs
from pad_cli.evaluation.outputs import Answers, ShownTokens, write_outputs
from pad_cli.evaluation.pages import write_pages
from pad_cli.evaluation.pair_accuracy import PAIRS, MeasuredPairs, PairRow
from pad_cli.evaluation.report import REPORT, build_report, write_report
from pad_cli.evaluation.scoring import load_scorer, score
from pad_cli.models.checkpoint import CONFIG, load_reward_model
from pad_cli.models.language_model import load_language_model
from pad_cli.models.rendezvous import main_first, wait_for_all
from pad_cli.profiles import check_profiles
from pad_cli.prompts import load_benchmarks, own_group
from pad_cli.recipe import EvalRecipe, MethodSettings
from pad_cli.recipe.options import make_with
from pad_cli.records import BenchmarkItem
from pad_cli.registry import METHODS
from pad_cli.system.processes import ALONE, Processes, processes
from pad_cli.system.progress import bar, stage
from pad_cli.system.runs import RECIPE, ResultLog, check_output, merge_parts, only_here, recipe_kind, write_json

ANSWERS, TIMES, SCORES = "answers.jsonl", "times.jsonl", "scores.jsonl"
TOKENS = "token_rewards.jsonl"
DEMO_MODEL = "reward-model"
"""The directory of the reward model that a demo puts beside its evaluation."""

CROSS_POLICY = "cross-policy"
"""The group of items meant for every policy but the first, the home policy."""


def evaluate(recipe: EvalRecipe, *, overwrite: bool = False) -> dict[str, Any]:
    """Run (or continue) an evaluation.

    Args:
        recipe: what to do.
        overwrite: whether files in `recipe.output` may be replaced that no evaluation wrote.

    Returns:
        The report, as written to `report.json` in `recipe.output`.

    Raises:
        RecipeError, UsageError, DataError, CheckpointError, ModelLoadError, StorageError: see `pad_cli.errors`.
    """
    output = Path(recipe.output)
    with only_here(output):
        what = "evaluation of pad eval"
        if processes().main and check_output(output, what, is_evaluation, overwrite=overwrite):
            for name in (ANSWERS, TIMES, SCORES, TOKENS, PAIRS):  # logs, to which it would append
                (output / name).unlink(missing_ok=True)
        return _evaluate(recipe)


def is_evaluation(directory: Path) -> bool:
    """Was this directory written by an evaluation, finished or not, or by a demo, which leaves one?"""
    return recipe_kind(directory) == "eval" or (directory / DEMO_MODEL / CONFIG).is_file()


def _evaluate(recipe: EvalRecipe) -> dict[str, Any]:
    with stage("Loading benchmarks"):
        benchmarks = load_benchmarks(recipe.benchmarks)
    output = Path(recipe.output)
    everyone = processes()
    if everyone.count > 1:
        _share(recipe, benchmarks, everyone)
        if not everyone.main:
            wait_for_all()
            report: dict[str, Any] = json.loads((output / REPORT).read_text(encoding="utf-8"))
            return report
    report = _report(recipe, benchmarks, output)
    wait_for_all()
    return report


def _share(recipe: EvalRecipe, benchmarks: Sequence[list[BenchmarkItem]], everyone: Processes) -> None:
    """Answer and score this process's share, and bring all shares together."""
    logs = [Path(recipe.output) / name for name in (ANSWERS, TIMES, SCORES)]
    for work in (lambda: None, lambda: run_items(recipe, benchmarks, everyone=everyone)):
        work()
        wait_for_all()
        if everyone.main:
            for log in logs:
                merge_parts(log)
        wait_for_all()


def _report(recipe: EvalRecipe, benchmarks: Sequence[list[BenchmarkItem]], output: Path) -> dict[str, Any]:
    shown = ShownTokens(items_by_policy(recipe, benchmarks), ResultLog(output / TOKENS, needs=("tokens",)))
    outcome = run_items(recipe, benchmarks, shown.take)
    reference = reference_of(recipe, outcome.methods)
    with stage("Computing intervals and comparisons"):
        report = build_report(recipe, outcome.scored, outcome.scorers, reference, outcome.pairs)
    with stage("Writing the report"):
        write_outputs(outcome.answers, outcome.scored, shown.found, output)
        write_answered(output, recipe.model_dump(), outcome.keys)
        write_report(report, output)
        write_pages(output)
    return report


@dataclass(frozen=True)
class Outcome:
    """What answering and scoring gave.

    Attributes:
        answers: every answer.
        keys: who answered, to the keys of these answers in the log.
        scored: every score.
        scorers: name in the report to scorer.
        methods: name in the report to method.
        pairs: what was measured on preference pairs.
    """

    answers: list[Answers]
    keys: dict[Answered, list[str]]
    scored: list[Scored]
    scorers: dict[str, Scorer]
    methods: dict[str, Method]
    pairs: list[PairRow]


def run_items(
    recipe: EvalRecipe,
    benchmarks: Sequence[list[BenchmarkItem]],
    look: Callable[[Subject, list[Answers]], None] = lambda *_: None,
    everyone: Processes = ALONE,
) -> Outcome:
    """Answer and score items.

    Args:
        recipe: what to do; its `benchmarks` are not looked at.
        benchmarks: what is asked.
        look: is shown the answers on each policy while that is loaded.
        everyone: whose share is answered and scored; a share is measured on no pairs.

    Raises:
        RecipeError, UsageError, CheckpointError, ModelLoadError, StorageError: see `pad_cli.errors`.
    """
    output = Path(recipe.output)
    scorers = {settings.shown: load_scorer(settings) for settings in recipe.scorers}
    methods = {settings.shown: load_method(settings) for settings in recipe.methods}
    _check_facts(scorers, benchmarks)
    if everyone.main:
        write_json(output / RECIPE, recipe.model_dump())
    logs = Logs(
        ResultLog(output / ANSWERS, everyone.part, needs=("text",)),
        ResultLog(output / TIMES, everyone.part, needs=("tokens", "seconds")),
    )
    scores = ResultLog(output / SCORES, everyone.part, needs=Score._fields)
    answers: list[Answers] = []
    scored: list[Scored] = []
    costs: dict[tuple[str, str], Cost] = {}
    keys: dict[Answered, list[str]] = {}
    trained = reward_model_cost(recipe.reward_model)
    measured: MeasuredPairs | None = None
    pairs: list[PairRow] = []
    items = items_by_policy(recipe, benchmarks)
    for name, settings in recipe.policies.items():
        mine = items[name]
        policy = load_language_model(settings)
        reward_model = load_reward_model(recipe.reward_model, backbone=policy)
        check_profiles((profile for item in mine for profile in item.profiles), reward_model)
        measured = measured or MeasuredPairs(recipe, scorers, reward_model.principles)
        subject = Subject(name, settings, PadEngine(policy, reward_model, always=recipe.always), mine, trained)
        subject.engine.check_prompts([(item.place or item.id, item.prompt) for item in mine])
        for item in mine:
            subject.engine.check_room(item.place or item.id, item.prompt)
        for method_name, method in methods.items():
            with main_first() if everyone.count > 1 else contextlib.nullcontext():
                costs[method_name, name] = method.prepare(subject)
        jobs = list(_jobs(recipe, methods, mine))
        with bar(f"Answering with {name}", total=sum(len(job.distinct()) for job in jobs)) as progress:
            answered = [(job, answer(job, subject, logs, progress, everyone)) for job in jobs]
        for job, samples in answered:
            keys.setdefault(Answered(job.name, name, job.guidance_weight), []).extend(answer_keys(job, subject))
            answers.append(Answers(job.name, name, job.guidance_weight, job.settings.seed, samples))
        for scorer_name, scorer in scorers.items():
            with bar(f"Scoring: {scorer_name}", total=sum(len(samples) for _, samples in answered)) as progress:
                for job, samples in answered:
                    found = score(scorer_name, scorer, samples, subject, scores, progress)
                    scored += _scored(job, samples, scorer_name, subject.name, found)
        if everyone.count == 1:
            pairs += measured.measure(subject, ResultLog(output / PAIRS, needs=("rewards", "likelihoods")), scored)
            look(subject, [each for each in answers if each.policy == name])
    if everyone.count == 1:
        write_costs(output, costs, keys, logs.times)
    return Outcome(answers, keys, scored, scorers, methods, pairs)


def load_method(settings: MethodSettings) -> Method:
    """A method of a recipe.

    Raises:
        UsageError: nothing has that name.
        RecipeError: it does not take these options.
    """
    where, hint = f"methods: options of '{settings.method}'", "See docs/evaluation.md for what it takes."
    method: Method = make_with(METHODS.get(settings.method), settings.options, where, hint)
    return method


def _check_facts(scorers: dict[str, Scorer], benchmarks: Sequence[list[BenchmarkItem]]) -> None:
    """A scorer that needs a fact the items lack is refused before anything is answered."""
    for items in benchmarks:
        for name, scorer in scorers.items():
            lacking = [fact for fact in scorer.facts if fact not in items[0].facts]
            if lacking:
                raise RecipeError(
                    f"scorers: '{name}' needs {', '.join(lacking)}, which items such as '{items[0].id}' do not give.",
                    "Leave that scorer out, or evaluate it on the benchmark it was made for.",
                )


def items_by_policy(
    recipe: EvalRecipe, benchmarks: Sequence[list[BenchmarkItem]]
) -> dict[str, tuple[BenchmarkItem, ...]]:
    """What each policy is asked."""
    return {
        name: tuple(item for benchmark in benchmarks for item in _for_policy(benchmark, home=position == 0))
        for position, name in enumerate(recipe.policies)
    }


def _for_policy(items: list[BenchmarkItem], *, home: bool) -> list[BenchmarkItem]:
    """What a policy answers: the home policy all but `cross-policy` items, others those, or all if there are none."""
    cross = [item for item in items if own_group(item) == CROSS_POLICY]
    return cross if cross and not home else [item for item in items if own_group(item) != CROSS_POLICY]


def _jobs(recipe: EvalRecipe, methods: dict[str, Method], items: tuple[BenchmarkItem, ...]) -> Iterator[Job]:
    for name, method in methods.items():
        for weight in recipe.guidance_weights if method.weighted else [0.0]:
            for seed in recipe.seeds:
                yield Job(name, method, weight, recipe.decoding.model_copy(update={"seed": seed}), items)


def _scored(
    job: Job, samples: Sequence[Sample], scorer: str, policy: str, found: Sequence[Score | None]
) -> Iterator[Scored]:
    for (item, _), value in zip(samples, found, strict=True):
        yield Scored(
            method=job.name,
            policy=policy,
            group=item.group,
            preference=item.label,
            guidance_weight=job.guidance_weight,
            scorer=scorer,
            item=item.id,
            prompt=prompt_key(item),
            value=None if value is None else value.value,
            truncated=value is not None and value.truncated,
        )
