"""`evaluate` and `reproduce`: the whole of `pad eval`, from benchmarks to the report, and the tables of a paper.

    load benchmarks       items of each policy                                  `items_by_policy`
    for each policy       load it with the reward model, prepare methods        `answer_and_score`
      for each job        answer what is missing (method, weight, seed)         answering.answer
      for each scorer     score what is missing                                 answering.score
      preference pairs    measure them, if the recipe has any                   pair_accuracy.measure_pairs
    report                intervals and comparisons, pages and files beside it  `_write_report`

Answers and scores are written batch by batch, each under a key of everything that decides it. Running again does only
what is missing, so an interrupted evaluation ends in the same report.

The shape of `reproduce.json` (the costs of methods differ from run to run, so they are in its pages only):

    {"version", "recipe", "environment",
     "tables": {name: {"question", "scorers", "runs": {label: {"reference", "rows", "comparisons", "pairs"}}}}}
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pad_cli.decoding.engine import PadEngine
from pad_cli.errors import RecipeError
from pad_cli.evaluation.answering import Job, answer, score
from pad_cli.evaluation.contract import (
    Answer,
    Cost,
    EvalContext,
    Method,
    Scorer,
    System,
    load_method,
    load_scorer,
    reward_model_cost,
)
from pad_cli.evaluation.outputs import COSTS, REPORT, write_answered, write_costs, write_outputs, write_pages
from pad_cli.evaluation.pair_accuracy import PAIRS, load_splits, measure_pairs
from pad_cli.evaluation.report import Scored, build_report, reference_of
from pad_cli.models.checkpoint import load_reward_model
from pad_cli.models.checkpoint_files import CONFIG
from pad_cli.models.distributed import main_first, wait_for_all
from pad_cli.models.language_model import load_language_model
from pad_cli.profiles import profile_weights
from pad_cli.prompts import load_benchmarks, own_group
from pad_cli.recipe import EvalRecipe, ReproduceRecipe
from pad_cli.records import BenchmarkItem
from pad_cli.reports.document import markdown, page
from pad_cli.reports.evaluation_tables import reproduction_document
from pad_cli.system.processes import ALONE, Processes, processes
from pad_cli.system.progress import bar, note, stage
from pad_cli.system.runs import (
    RECIPE,
    ResultLog,
    check_output,
    environment,
    merge_parts,
    only_here,
    recipe_kind,
    write_json,
    write_whole,
)

ANSWERS, TIMES, SCORES = "answers.jsonl", "times.jsonl", "scores.jsonl"
REPRODUCE, SUMMARY, PAGE = "reproduce.json", "reproduce.md", "reproduce.html"
DEMO_MODEL = "reward-model"
"""The directory of the reward model that a demo puts beside its evaluation."""
CROSS_POLICY = "cross-policy"
"""The group of items meant for every policy but the first, the home policy."""
_FIGURES = ("reference", "rows", "comparisons", "pairs")  # of each run's report, in `reproduce.json`

Items = Mapping[str, tuple[BenchmarkItem, ...]]
"""Policy to the items that it answers."""


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
    output, everyone = Path(recipe.output), processes()
    with only_here(output):
        what = "evaluation of pad eval"
        if everyone.main and check_output(output, what, is_evaluation, overwrite=overwrite):
            for name in (ANSWERS, TIMES, SCORES, PAIRS):  # another program's files, to which logs would append
                (output / name).unlink(missing_ok=True)
        with stage("Loading benchmarks"):
            items = items_by_policy(recipe, load_benchmarks(recipe.benchmarks))
        if everyone.count > 1:
            _merge_logs(output, everyone)  # of an interrupted run
            answer_and_score(recipe, items, everyone)
            _merge_logs(output, everyone)
        if everyone.main:  # everything that several processes share is answered and scored by now
            _write_report(recipe, items, output)
        wait_for_all()
        report: dict[str, Any] = json.loads((output / REPORT).read_text(encoding="utf-8"))
        return report


def reproduce(recipe: ReproduceRecipe, *, overwrite: bool = False) -> dict[str, Any]:
    """Run (or continue) all evaluations of a recipe, one or more for each of a paper's tables.

    Args:
        recipe: what to do.
        overwrite: whether files in `recipe.output` may be replaced that no reproduction wrote.

    Returns:
        The result, as written to `reproduce.json` in `recipe.output`; `reproduce.md` and `reproduce.html`
        show its main figures and the cost of each method.

    Raises:
        DataError, RecipeError, UsageError, CheckpointError, ModelLoadError, StorageError: see `pad_cli.errors`.
    """
    output = Path(recipe.output)
    with only_here(output):
        if processes().main:
            check_output(output, "reproduction of pad reproduce", _is_reproduction, overwrite=overwrite)
            write_json(output / RECIPE, recipe.model_dump())  # first of all: a run that is killed is known again
        tables: dict[str, Any] = {}
        costs = {}
        for name, table in recipe.tables.items():
            runs = {}
            for label, settings in table.runs.items():
                note(f"Table {name}: {label}")
                directory = output / name / label
                report = evaluate(settings.model_copy(update={"output": str(directory)}), overwrite=overwrite)
                runs[label] = {key: report[key] for key in _FIGURES}
                costs[name, label] = json.loads((directory / COSTS).read_text(encoding="utf-8"))
            scorers = table.scorers or [scorer.label for run in table.runs.values() for scorer in run.scorers]
            tables[name] = {"question": table.question, "scorers": list(dict.fromkeys(scorers)), "runs": runs}
        result = {"version": 1, "recipe": recipe.model_dump(), "environment": environment(), "tables": tables}
        write_json(output / REPRODUCE, result)
        document = reproduction_document(result, costs)
        links = {f"{name}: {label}": f"{name}/{label}/report.html" for name, label in costs}
        write_whole(output / SUMMARY, markdown(document))
        write_whole(output / PAGE, page(document, "reproduction.html.j2", links=links))
        return result


def _is_reproduction(directory: Path) -> bool:
    earlier = (directory / REPRODUCE).is_file() or any(map(is_evaluation, directory.glob("*/*")))  # without a recipe
    return earlier or recipe_kind(directory) == "reproduce"


def is_evaluation(directory: Path) -> bool:
    """Was this directory written by an evaluation, finished or not, or by a demo, which contains one?"""
    return recipe_kind(directory) == "eval" or (directory / DEMO_MODEL / CONFIG).is_file()


def items_by_policy(recipe: EvalRecipe, benchmarks: Sequence[Sequence[BenchmarkItem]]) -> Items:
    """Items by policy: the first gets all but `cross-policy`; others get only those, or all if there are none."""
    items: dict[str, list[BenchmarkItem]] = {name: [] for name in recipe.policies}
    for benchmark in benchmarks:
        cross = [item for item in benchmark if own_group(item) == CROSS_POLICY]
        own = [item for item in benchmark if own_group(item) != CROSS_POLICY]
        for position, name in enumerate(items):
            items[name] += cross if cross and position else own
    return {name: tuple(each) for name, each in items.items()}


def _merge_logs(output: Path, everyone: Processes) -> None:
    wait_for_all()
    if everyone.main:
        for name in (ANSWERS, TIMES, SCORES):
            merge_parts(output / name)
    wait_for_all()


@dataclass(frozen=True)
class Results:
    """What all policies answered, and its scores.

    Attributes:
        methods, scorers: those of the recipe, by their names in the report.
        answers: of each job, in the order of the policy's items.
        keys: of these answers in the log.
        costs: (method, policy) to its cost before it answered.
        pairs: rows of what was measured on preference pairs; none for a share of the items.
    """

    methods: Mapping[str, Method]
    scorers: Mapping[str, Scorer]
    answers: list[Answer] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
    keys: dict[System, list[str]] = field(default_factory=dict)
    costs: dict[tuple[str, str], Cost] = field(default_factory=dict)
    pairs: list[dict[str, Any]] = field(default_factory=list)


def answer_and_score(recipe: EvalRecipe, items: Items, everyone: Processes = ALONE) -> Results:
    """Answer and score `items`, or a share of them, with one policy after the other; raises as `evaluate`."""
    output = Path(recipe.output)
    scorers = {settings.label: load_scorer(settings) for settings in recipe.scorers}
    methods = {settings.label: load_method(settings) for settings in recipe.methods}
    _check_facts(scorers, items)
    if everyone.main:
        write_json(output / RECIPE, recipe.model_dump())
    answer_log = ResultLog(output / ANSWERS, everyone.part, needs=("text",))
    times_log = ResultLog(output / TIMES, everyone.part, needs=("tokens", "seconds"))
    score_log = ResultLog(output / SCORES, everyone.part, needs=("value", "truncated"))
    cost = reward_model_cost(recipe.reward_model)
    splits, results = None, Results(methods, scorers)
    for name in recipe.policies:
        context = _load_policy(recipe, name, items[name], cost)
        splits = load_splits(recipe, scorers, context.reward_model.principles) if splits is None else splits
        for method_name, method in methods.items():
            with main_first() if everyone.count > 1 else contextlib.nullcontext():
                results.costs[method_name, name] = method.prepare(context)

        jobs = [
            Job(context, System(method_name, name, weight), method, recipe.decoding.model_copy(update={"seed": seed}))
            for method_name, method in methods.items()
            for weight in (recipe.weights_of(method_name) if method.weighted else [0.0])
            for seed in recipe.seeds
        ]
        for job in jobs:
            results.keys.setdefault(job.system, []).extend(job.keys.values())
        with bar(f"Answering with {name}", total=sum(len(job.questions) for job in jobs)) as progress:
            answers = [each for job in jobs for each in answer(job, answer_log, times_log, progress, everyone)]

        scored: list[Scored] = []
        for scorer_name, scorer in scorers.items():
            with bar(f"Scoring: {scorer_name}", total=len(answers)) as progress:
                scored += score(scorer_name, scorer, answers, context, score_log, progress)
        results.answers.extend(answers)
        results.scored.extend(scored)

        if everyone.count == 1:
            pair_log = ResultLog(output / PAIRS, needs=("rewards", "likelihoods"))
            results.pairs.extend(measure_pairs(recipe, splits, context, scorers, scored, pair_log))
    return results


def _load_policy(recipe: EvalRecipe, name: str, items: tuple[BenchmarkItem, ...], cost: Cost) -> EvalContext:
    """A policy with the reward model; what they cannot read is refused before anything is answered."""
    policy = load_language_model(recipe.policies[name])
    reward_model = load_reward_model(recipe.reward_model, backbone=policy)
    for profile in sorted({profile for item in items for profile in item.profiles}):
        profile_weights(profile, reward_model)  # refuses one of another reward model
    engine = PadEngine(policy, reward_model, always=recipe.always)
    engine.check_prompts([(item.place or item.id, item.prompt) for item in items])
    for item in items:
        engine.check_room(item.place or item.id, item.prompt)
    return EvalContext(name, engine, items, cost)


def _check_facts(scorers: Mapping[str, Scorer], items: Items) -> None:
    """Refuse a scorer that needs a fact which a group of items lacks."""
    first = {item.group: item for policy_items in items.values() for item in reversed(policy_items)}
    for item, (name, scorer) in itertools.product(first.values(), scorers.items()):
        if lacking := [fact for fact in scorer.facts if fact not in item.facts]:
            raise RecipeError(
                f"scorers: '{name}' needs {', '.join(lacking)}, which items such as '{item.id}' do not give.",
                "Leave that scorer out, or evaluate it on the benchmark it was made for.",
            )


def _write_report(recipe: EvalRecipe, items: Items, output: Path) -> None:
    """Answer and score what is missing, and write the report and the files beside it."""
    results = answer_and_score(recipe, items)
    with stage("Computing intervals and comparisons"):
        reference = reference_of(recipe, results.methods)
        report = build_report(recipe, results.scored, results.scorers, reference, results.pairs)
    with stage("Writing the report"):
        times = ResultLog(output / TIMES, needs=("tokens", "seconds"))
        write_costs(output, results.costs, results.keys, times)
        write_outputs(results.answers, results.scored, output)
        write_answered(output, recipe.model_dump(), results.keys)
        write_json(output / REPORT, report)
        write_pages(output)
