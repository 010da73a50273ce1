"""What an evaluation's JSON files say to a reader: the page with tables, charts and answers, and its Markdown twin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from pad_cli.reports.document import MARKS, Cell, Column, Document, Row, Section, Table, grouped, number, page
from pad_cli.reports.evaluation_tables import (
    COST_NOTE,
    POOLED,
    cost_tables,
    estimate,
    estimated,
    figure,
    judge_table,
    mean_cell,
    method_of,
    scorer_name,
    verdicts_of,
    warnings_of,
)

Tokens = Sequence[tuple[str, float]]
"""Pieces of an answer with their rewards, nats; one without text is the end of the answer."""


class EvaluationFiles(NamedTuple):
    """What the report is made of: `report.json`, `outputs.json`, `costs.json`, and `judge.json` where there is one."""

    report: Row
    outputs: Row
    costs: Sequence[Row]
    judge: Row | None = None


def evaluation_document(files: EvaluationFiles) -> Document:
    """Everything but the answers."""
    report = files.report
    pooled = [row for row in report["rows"] if row["preference"] == POOLED]
    mean = partial(mean_cell, verdicts=verdicts_of(report))
    places: dict[str, Column] = {"policy": "policy", "method": method_of}
    counts = {"items": number("n"), "prompts": number("prompts")}
    sections = [
        Section(f"Means: {group}", tables=(Table.grid(rows, places, counts, scorer_name, mean),))
        for (group,), rows in grouped(pooled, "group").items()
    ]
    if report.get("pairs"):
        sections.append(_pairs(report["pairs"], {row["scorer"]: scorer_name(row) for row in pooled}))
    if files.judge is not None:
        sections.append(_judgements(files.judge))
    sections.append(Section("What it costs", (COST_NOTE,), cost_tables(files.costs)))
    if report["comparisons"]:
        sections.append(Section(f"Against {method_of(report['reference'])}", tables=list(_comparisons(report))))
    sections.append(Section("By preference", tables=list(_by_preference(report["rows"]))))
    return Document("Evaluation", _summary(files, pooled), list(warnings_of(report)), sections)


def evaluation_page(files: EvaluationFiles) -> str:
    """The page, with answers beside each other."""
    answers = [answer for item in files.outputs["items"] for answer in item["answers"]]
    return page(
        evaluation_document(files),
        "evaluation.html.j2",
        outputs=files.outputs,
        full=full_colour(answer.get("tokens") or () for answer in answers),
        method_of=method_of,
        figure=figure,
        environment=", ".join(f"{name} {version}" for name, version in files.report["environment"].items()),
        recipe=json.dumps(files.report["recipe"], indent=2, ensure_ascii=False),
    )


def _summary(files: EvaluationFiles, pooled: Sequence[Row]) -> list[str]:
    recipe, confidence = files.report["recipe"], files.report["recipe"]["confidence"]
    methods = ", ".join(dict.fromkeys(map(method_of, pooled)))
    temperature, seeds = recipe["decoding"]["temperature"], len(recipe["seeds"])
    sampled = f"sampled at temperature {temperature:g} with {seeds} seed{'s' * (seeds > 1)}"
    return [
        f"{methods}, on {', '.join(recipe['policies'])}: {files.outputs['answers']:,} answers, "
        f"{sampled if temperature else 'greedy'}.",
        f"A figure is a mean over items with its {100 * confidence:g} % interval, from {recipe['resamples']:,} "
        f"bootstrap resamples of the prompts. {MARKS['better']} is better and {MARKS['worse']} worse than "
        f"{method_of(files.report['reference'])} on the same items: p < {1 - confidence:.2g} of a paired permutation "
        "test over prompts, corrected (Holm) for all methods of that table and scorer. No mark: they cannot be told "
        "apart, which does not mean that they are equal. ↓: lower is better.",
    ]


def _comparisons(report: Row) -> Iterator[Table]:
    """A table for each group: every method against the reference."""
    for (group,), rows in grouped(report["comparisons"], "group").items():
        yield Table.of(
            rows,
            {"policy": "policy", "scorer": "scorer", "method": method_of},
            {
                "items": number("n"),
                "difference": estimated("difference", sign="+"),
                "p": number("p", ".2g"),
                "p (Holm)": number("p_holm", ".2g"),
                "effect size": number("effect_size", "+.2f"),
                "verdict": "verdict",
            },
            group,
            fold="closed",
        )


def _by_preference(rows: Sequence[Row]) -> Iterator[Table]:
    """Means of single preferences, by methods: a table for each scorer, policy and group, those of the first open."""
    single = [row for row in rows if row["preference"] != POOLED]
    for number_of_scorer, same_scorer in enumerate(grouped(single, "scorer").values()):
        for (group, policy), mine in grouped(same_scorer, "group", "policy").items():
            title = f"{scorer_name(mine[0])}: {group}, on {policy}"
            fold = "closed" if number_of_scorer else "open"
            cell = partial(mean_cell, verdicts={})
            yield Table.grid(mine, {"preference": "preference"}, {}, method_of, cell, title, fold)


def _pairs(rows: Sequence[Row], scorers: Mapping[str, str]) -> Section:
    figures: dict[str, Column] = {
        "guidance weight": number("guidance_weight", "g"),
        "pairs": number("n"),
        "pair accuracy": estimated("pair_accuracy", "pair_"),
        "policy accuracy": estimated("policy_accuracy", "policy_"),
        **{scorers[scorer]: partial(_fluency, scorer) for scorer in rows[0]["fluency"]},
    }
    line = (
        "Pair accuracy: the reward model's reward of the chosen answer is higher. Policy accuracy: the guided policy "
        "(at guidance weight 0 the policy alone) finds the chosen answer likelier, per token. Beside them how the "
        "policy's own answers at that weight read, since both can rise while texts fall apart."
    )
    return Section("Preference pairs", (line,), (Table.of(rows, {"split": "split", "policy": "policy"}, figures),))


def _fluency(scorer: str, row: Row) -> str | Cell:
    return estimate(row["fluency"][scorer], None, None)


def _judgements(judge: Row) -> Section:
    position = judge["position"]
    lines = [
        f"Judged by {judge['model']}, every pair in both orders; where the orders disagree it is a tie. A win rate "
        "counts ties half. Length-controlled: what it would be for answers of the same length.",
        f"The judge named the first answer {position['first']:,} times, the second {position['second']:,} times.",
    ]
    if not judge["complete"]:
        lines.append("Not everything was judged: run `pad judge` again to continue.")
    return Section("Win rates", lines, (judge_table(judge),))


def full_colour(answers: Iterable[Tokens]) -> float:
    """The reward at which token colours are full, to two digits; 0 if nothing is rewarded.

    Rewards from there on are half of all there is: most tokens have next to none, and a few outliers very much.
    """
    sizes = sorted((abs(reward) for tokens in answers for _, reward in tokens), reverse=True)
    rest, size = sum(sizes) / 2, 0.0
    for size in sizes:
        rest -= size
        if rest <= 0:
            break
    return float(f"{size:.1e}")
