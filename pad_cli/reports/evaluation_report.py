"""What an evaluation's JSON files say to a reader: the page with tables, charts and answers, and its Markdown twin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from typing import Any, NamedTuple

from pad_cli.reports.charts import Point, Series, plot, rounded_range
from pad_cli.reports.document import MARKS, Cell, Column, Document, Figure, Row, Section, Table, grouped, number, page
from pad_cli.reports.evaluation_tables import (
    COST_NOTE,
    POOLED,
    cost_tables,
    estimate,
    estimated,
    figure,
    judge_table,
    mean_cell,
    method_name,
    method_of,
    pivot,
    verdicts_of,
)

_DEPTHS = 4  # of the colour of a token

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
    scorers = {row["scorer"]: _directed(row) for row in report["rows"]}
    mean = partial(mean_cell, verdicts=verdicts_of(report))
    sections = [
        Section(f"Means: {group}", tables=(_means(rows, scorers, mean),))
        for (group,), rows in grouped(pooled, "group").items()
    ]
    if report.get("pairs"):
        sections.append(_pairs(report["pairs"], scorers))
    if files.judge is not None:
        sections.append(_judgements(files.judge))
    first, *_ = scorers.items()  # a ValueError where a damaged report has none
    figures = list(_cost_figures(pooled, files.costs, *first))
    sections.append(Section("What it costs", (COST_NOTE,), cost_tables(files.costs), figures))
    if report["comparisons"]:
        sections.append(Section(f"Against {method_of(report['reference'])}", tables=list(_comparisons(report))))
    heat_maps = [table for scorer in scorers for table in _by_preference(report["rows"], scorer, scorers)]
    sections.append(Section("By preference", ("The deeper the colour, the higher the mean.",), heat_maps))
    return Document("Evaluation", _summary(files, pooled), (), list(_warnings(pooled)), sections)


def evaluation_page(files: EvaluationFiles) -> str:
    """The page, with answers beside each other."""
    items = files.outputs["items"]
    full = full_colour(answer.get("tokens") or () for item in items for answer in item["answers"])
    rendered = [
        {**item, "answers": [{**answer, **_answer(answer, full)} for answer in item["answers"]]} for item in items
    ]
    return page(
        evaluation_document(files),
        "evaluation.html.j2",
        script=filter_script() if items else "",
        outputs=files.outputs,
        items=rendered,
        choices={name: list(dict.fromkeys(item[name] for item in items)) for name in ("policy", "group", "preference")},
        full=full,
        depths=_DEPTHS,
        environment=", ".join(f"{name} {version}" for name, version in files.report["environment"].items()),
        recipe=json.dumps(files.report["recipe"], indent=2, ensure_ascii=False),
    )


def filter_script() -> str:
    """The page's only script: it hides answers that the reader does not choose."""
    return (resources.files("pad_cli.reports") / "templates" / "filter.js").read_text(encoding="utf-8")


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


def _warnings(pooled: Sequence[Row]) -> Iterator[str]:
    for (scorer,), rows in grouped(pooled, "scorer").items():
        if failed := sum(row["failed"] for row in rows):
            cells = sum(row["failed"] > 0 for row in rows)
            yield f"'{scorer}' failed on {failed:,} answers: {cells} pooled cells have no mean. Run again to try again."
        if cut := sum(row["truncated"] for row in rows):
            yield f"'{scorer}' read only the beginning of {cut:,} answers."
    if alone := dict.fromkeys(row["group"] for row in pooled if row["prompts"] == 1):
        yield f"With a single prompt there is no estimate of uncertainty: {', '.join(alone)}."


def _means(rows: Sequence[Row], scorers: Mapping[str, str], mean: Any) -> Table:
    """One group: methods down, scorers across."""
    keys = ("policy", "method", "guidance_weight")
    columns, lines = pivot(rows, keys, ("scorer",), mean)
    header = ("policy", "method", "items", "prompts", *(scorers[scorer] for (scorer,) in columns))
    first = {place: some[0] for place, some in grouped(rows, *keys).items()}
    table = [
        (place[0], method_name(*place[1:]), number("n")(first[place]), number("prompts")(first[place]), *cells)
        for place, cells in lines.items()
    ]
    return Table(header, table, "<<" + ">" * (len(header) - 2))


def _comparisons(report: Row) -> Iterator[Table]:
    """A table for each group: every method against the reference."""
    for (group,), rows in grouped(report["comparisons"], "group").items():
        yield Table.of(
            rows,
            {"policy": "policy", "scorer": "scorer", "method": method_of},
            {
                "items": number("n"),
                "difference": _difference,
                "p": partial(_p, "p"),
                "p (Holm)": partial(_p, "p_holm"),
                "effect size": number("effect_size", "+.2f"),
                "verdict": "verdict",
            },
            group,
            fold="closed",
        )


def _difference(row: Row) -> str | Cell:
    return estimate(row["difference"], row["low"], row["high"], "+") or Cell("failed", tone="bad")


def _p(key: str, row: Row) -> str | Cell:
    p = row[key]
    return "" if p is None else Cell("< 0.001" if p < 0.001 else f"{p:.3f}", value=p)


def _by_preference(rows: Sequence[Row], scorer: str, scorers: Mapping[str, str]) -> Iterator[Table]:
    """A heat map for each policy and group: preferences by methods."""
    rows = [row for row in rows if row["scorer"] == scorer]
    values = [row["mean"] for row in rows if row["mean"] is not None]
    low, high = (0.0, 1.0) if all(0 <= value <= 1 for value in values) else (min(values), max(values))

    def heat(row: Row) -> Cell:
        share = ((row["mean"] or low) - low) / max(high - low, 1e-9)
        return mean_cell(row, {}, shade=f"rgba(60, 120, 220, {0.5 * share:.2f})")

    for (group, policy), mine in grouped(rows, "group", "policy").items():
        mine = [row for row in mine if row["preference"] != POOLED]
        methods, lines = pivot(mine, ("preference",), ("method", "guidance_weight"), heat)
        header = ("preference", *(method_name(*method) for method in methods))
        table = [(*preference, *cells) for preference, cells in lines.items()]
        fold = "open" if scorer == next(iter(scorers)) else "closed"
        yield Table(header, table, "<" + ">" * len(methods), f"{scorers[scorer]}: {group}, on {policy}", fold)


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


def _cost_figures(pooled: Sequence[Row], costs: Sequence[Row], scorer: str, directed: str) -> Iterator[Figure]:
    """A scorer's means over the time of answering."""
    seconds = {(row["policy"], method_of(row)): row["seconds_per_100_tokens"] for row in costs}
    rows = [row for row in pooled if row["scorer"] == scorer and row["mean"] is not None]
    for (group, policy), mine in grouped(rows, "group", "policy").items():
        series = [
            Series(method_of(row), [Point(taken, row["mean"], row["low"], row["high"], radius=4.5)])
            for row in mine
            if (taken := seconds.get((policy, method_of(row))))
        ]
        if series:
            axis = rounded_range([0.0, *(point.x for each in series for point in each.points)], least=1e-6)
            chart = plot(series, "seconds per 100 tokens", scorer, x=axis)
            yield Figure(f"{group}, on {policy}: {directed} over seconds per 100 tokens", chart)


def _directed(row: Row) -> str:
    """A scorer's name with its unit, and an arrow where lower is better."""
    unit = f" ({row['unit']})" if row["unit"] else ""
    return f"{row['scorer']}{unit}{'' if row['higher_is_better'] else ' ↓'}"


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


def _answer(answer: Row, full: float) -> dict[str, Any]:
    """What the template prints of an answer: its method, its text in coloured pieces, its scores."""
    tokens = answer.get("tokens")
    scores = {name: "failed" if value is None else figure(value) for name, value in answer["scores"].items()}
    pieces = coloured([(answer["text"], 0.0)], 0.0) if tokens is None else coloured(tokens, full)
    return {"method": method_of(answer), "pieces": pieces, "scores": scores}


def coloured(tokens: Tokens, full: float) -> list[dict[str, str]]:
    """Pieces of an answer with the class of their colour, `p1` to `p4` or `n1` to `n4`; none near 0."""
    pieces = []
    for text, reward in tokens:
        depth = min(_DEPTHS, round(_DEPTHS * abs(reward) / full)) if full else 0
        word = text.lstrip() or text  # the space before a word is not coloured
        pieces.append(
            {
                "space": text[: len(text) - len(word)],
                "text": word,
                "class": f"{'p' if reward > 0 else 'n'}{depth}" if depth else "",
                "title": f"{reward:+.2f}",
            }
        )
    return pieces
