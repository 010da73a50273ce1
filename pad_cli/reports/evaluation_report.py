"""What an evaluation's JSON files say to a reader: the page with tables, charts and answers, and its Markdown twin."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
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
    mean_cell,
    method_name,
    method_of,
    reference_name,
    verdicts_of,
)
from pad_cli.reports.judge_tables import tables_of

_DEPTHS = 4  # of the colour of a token

Tokens = Sequence[tuple[str, float]]
"""Pieces of an answer with their rewards, nats; one without text is the end of the answer."""


class EvaluationFiles(NamedTuple):
    """What the report is made of: `report.json`, `outputs.json`, `costs.json`, and `judge.json` where there is one."""

    report: Row
    outputs: Row
    costs: Sequence[Row]
    judge: Row | None = None

    @property
    def scorers(self) -> list[str]:
        return list(dict.fromkeys(row["scorer"] for row in self.report["rows"]))

    @property
    def pooled(self) -> list[Row]:
        return [row for row in self.report["rows"] if row["preference"] == POOLED]


def evaluation_document(files: EvaluationFiles) -> Document:
    """Everything but the answers."""
    return Document(
        "Evaluation", list(_summary(files)), warnings=list(_warnings(files)), sections=list(_sections(files))
    )


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


def _summary(files: EvaluationFiles) -> Iterator[str]:
    recipe = files.report["recipe"]
    methods = [method_name(*each) for each in grouped(files.pooled, "method", "guidance_weight")]
    temperature, seeds = recipe["decoding"]["temperature"], len(recipe["seeds"])
    sampled = f"sampled at temperature {temperature:g} with {seeds} seed{'s' * (seeds > 1)}"
    yield (
        f"{', '.join(methods)}, on {', '.join(recipe['policies'])}: {files.outputs['answers']:,} answers, "
        f"{sampled if temperature else 'greedy'}."
    )
    confidence = recipe["confidence"]
    yield (
        f"A figure is a mean over items with its {100 * confidence:g} % interval, from {recipe['resamples']:,} "
        f"bootstrap resamples of the prompts. {MARKS['better']} is better and {MARKS['worse']} worse than "
        f"{reference_name(files.report)} on the same items: p < {1 - confidence:.2g} of a paired permutation test over "
        "prompts, corrected (Holm) for all methods of that table and scorer. No mark: they cannot be told apart, which "
        "does not mean that they are equal. ↓: lower is better."
    )


def _warnings(files: EvaluationFiles) -> Iterator[str]:
    for scorer in files.scorers:
        rows = [row for row in files.pooled if row["scorer"] == scorer]
        if failed := sum(row["failed"] for row in rows):
            cells = sum(row["failed"] > 0 for row in rows)
            yield f"'{scorer}' failed on {failed:,} answers: {cells} pooled cells have no mean. Run again to try again."
        if cut := sum(row["truncated"] for row in rows):
            yield f"'{scorer}' read only the beginning of {cut:,} answers."
    if alone := dict.fromkeys(row["group"] for row in files.pooled if row["prompts"] == 1):
        yield f"With a single prompt there is no estimate of uncertainty: {', '.join(alone)}."


def _sections(files: EvaluationFiles) -> Iterator[Section]:
    report = files.report
    for (group,), rows in grouped(files.pooled, "group").items():
        yield Section(f"Means: {group}", tables=(_means(files, rows),))
    if report.get("pairs"):
        yield _pairs(files)
    if files.judge is not None:
        yield _judgements(files.judge)
    yield Section("What it costs", (COST_NOTE,), cost_tables(files.costs), list(_cost_figures(files)))
    if report["comparisons"]:
        yield Section(f"Against {reference_name(report)}", tables=list(_comparisons(report)))
    heat_maps = [table for scorer in files.scorers for table in _by_preference(files, scorer)]
    yield Section("By preference", ("The deeper the colour, the higher the mean.",), heat_maps)


def _means(files: EvaluationFiles, rows: Sequence[Row]) -> Table:
    verdicts = verdicts_of(files.report)
    table: list[Sequence[str | Cell]] = []
    for (policy, method, weight), mine in grouped(rows, "policy", "method", "guidance_weight").items():
        cells = {row["scorer"]: mean_cell(row, verdicts) for row in mine}
        counts = (number("n")(mine[0]), number("prompts")(mine[0]))
        table.append(
            (policy, method_name(method, weight), *counts, *(cells.get(scorer, "") for scorer in files.scorers))
        )
    header = ("policy", "method", "items", "prompts", *(_directed(files, scorer) for scorer in files.scorers))
    return Table(header, table, "<<>>" + ">" * len(files.scorers))


def _comparisons(report: Row) -> Iterator[Table]:
    """A table for each group: every method against the reference."""
    for (group,), rows in grouped(report["comparisons"], "group").items():
        yield Table.of(
            rows,
            {"policy": "policy", "scorer": "scorer", "method": method_of},
            {
                "items": number("n"),
                "difference": lambda row: estimated("difference", signed=True)(row) or Cell("failed", tone="bad"),
                "p": lambda row: _p(row["p"]),
                "p (Holm)": lambda row: _p(row["p_holm"]),
                "effect size": number("effect_size", "+.2f"),
                "verdict": "verdict",
            },
            group,
            fold="closed",
        )


def _by_preference(files: EvaluationFiles, scorer: str) -> Iterator[Table]:
    """A heat map for each policy and group: preferences by methods."""
    rows = [row for row in files.report["rows"] if row["scorer"] == scorer]
    values = [row["mean"] for row in rows if row["mean"] is not None]
    low, high = (0.0, 1.0) if all(0 <= value <= 1 for value in values) else (min(values), max(values))

    def heat(row: Row) -> Cell:
        share = ((row["mean"] or low) - low) / max(high - low, 1e-9)
        return mean_cell(row, {}, shade=f"rgba(60, 120, 220, {0.5 * share:.2f})")

    for (group, policy), mine in grouped(rows, "group", "policy").items():
        mine = [row for row in mine if row["preference"] != POOLED]
        methods = list(grouped(mine, "method", "guidance_weight"))
        table: list[Sequence[str | Cell]] = []
        for (preference,), some in grouped(mine, "preference").items():
            cells = {(row["method"], row["guidance_weight"]): heat(row) for row in some}
            table.append((preference, *(cells.get(method, "") for method in methods)))
        header = ("preference", *(method_name(*method) for method in methods))
        title = f"{_directed(files, scorer)}: {group}, on {policy}"
        fold = "open" if scorer == files.scorers[0] else "closed"
        yield Table(header, table, "<" + ">" * len(methods), title, fold)


def _pairs(files: EvaluationFiles) -> Section:
    rows = files.report["pairs"]
    figures: dict[str, Column] = {
        "guidance weight": number("guidance_weight", "g"),
        "pairs": number("n"),
        "pair accuracy": estimated("pair_accuracy", "pair_"),
        "policy accuracy": estimated("policy_accuracy", "policy_"),
    }
    for scorer in rows[0]["fluency"]:
        figures[_directed(files, scorer)] = partial(_fluency, scorer)
    line = (
        "Pair accuracy: the reward model's reward of the chosen answer is higher. Policy accuracy: the guided policy "
        "(at guidance weight 0 the policy alone) finds the chosen answer likelier, per token. Beside them how the "
        "policy's own answers at that weight read, since both can rise while texts fall apart."
    )
    table = Table.of(rows, {"split": "split", "policy": "policy"}, figures)
    return Section("Preference pairs", (line,), (table,))


def _fluency(scorer: str, row: Row) -> str | Cell:
    value = row["fluency"][scorer]
    return "" if value is None else estimate(value, None, None)


def _judgements(judge: Row) -> Section:
    lines = [
        f"Judged by {judge['model']}, every pair in both orders; where the orders disagree it is a tie. A win rate "
        "counts ties half. Length-controlled: what it would be for answers of the same length."
    ]
    if not judge["complete"]:
        lines.append("Not everything was judged: run `pad judge` again to continue.")
    position = judge["position"]
    lines.append(
        f"The judge named the first answer {position['first']:,} times, the second {position['second']:,} times."
    )
    return Section("Win rates", lines, tables_of(judge))


def _cost_figures(files: EvaluationFiles) -> Iterator[Figure]:
    """The first scorer's means over the time of answering."""
    scorer = files.scorers[0]
    seconds = {(row["policy"], method_of(row)): row["seconds_per_100_tokens"] for row in files.costs}
    rows = [row for row in files.pooled if row["scorer"] == scorer and row["mean"] is not None]
    for (group, policy), mine in grouped(rows, "group", "policy").items():
        series = [
            Series(method_of(row), [Point(taken, row["mean"], row["low"], row["high"], radius=4.5)])
            for row in mine
            if (taken := seconds.get((policy, method_of(row))))
        ]
        if series:
            axis = rounded_range(0.0, max(point.x for each in series for point in each.points), least=1e-6)
            chart = plot(series, "seconds per 100 tokens", scorer, x=axis)
            yield Figure(f"{group}, on {policy}: {_directed(files, scorer)} over seconds per 100 tokens", chart)


def _directed(files: EvaluationFiles, scorer: str) -> str:
    """A scorer's name with its unit, and an arrow where lower is better."""
    row = next(row for row in files.report["rows"] if row["scorer"] == scorer)
    unit = f" ({row['unit']})" if row["unit"] else ""
    return f"{scorer}{unit}{'' if row['higher_is_better'] else ' ↓'}"


def _p(p: float | None) -> str | Cell:
    return "" if p is None else Cell("< 0.001" if p < 0.001 else f"{p:.3f}", value=p)


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
