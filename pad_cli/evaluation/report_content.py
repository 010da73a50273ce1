"""What an evaluation's report says, section by section, whatever it is written in: Markdown or HTML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pad_cli.evaluation.cells import POOLED
from pad_cli.evaluation.report_cells import Cell, Estimate, Heat, Number, Rate, chance
from pad_cli.evaluation.report_table import MARKS, method_name, reference_name, verdicts_of
from pad_cli.reports.charts import Point, scatter_chart
from pad_cli.reports.content import Figure, Grid, Section

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Facts:
    """All that a report is made of.

    Attributes:
        report: of `report.json`.
        outputs: of `outputs.json`.
        costs: of `costs.json`.
        judge: of `judge.json`; None when nothing was judged.
    """

    report: Row
    outputs: Row
    costs: Sequence[Row]
    judge: Row | None = None
    scorers: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = dict.fromkeys(row["scorer"] for row in self.report["rows"])
        object.__setattr__(self, "scorers", tuple(names))

    @property
    def pooled(self) -> list[Row]:
        return [row for row in self.report["rows"] if row["preference"] == POOLED]


def summary(facts: Facts) -> Iterator[str]:
    """What was compared, and how figures are to be read."""
    recipe, report = facts.report["recipe"], facts.report
    methods = list(dict.fromkeys((row["method"], row["guidance_weight"]) for row in facts.pooled))
    temperature, seeds = recipe["decoding"]["temperature"], len(recipe["seeds"])
    decoding = (
        f"sampled at temperature {temperature:g} with {seeds} seed{'s' * (seeds > 1)}" if temperature else "greedy"
    )
    yield (
        f"{', '.join(method_name(*method) for method in methods)}, on {', '.join(recipe['policies'])}: "
        f"{facts.outputs['answers']:,} answers, {decoding}."
    )
    confidence = recipe["confidence"]
    yield (
        f"A figure is a mean over items with its {100 * confidence:g} % interval, from {recipe['resamples']:,} "
        f"bootstrap resamples of the prompts. {MARKS['better']} is better and {MARKS['worse']} worse than "
        f"{reference_name(report)} on the same items: p < {1 - confidence:.2g} of a paired permutation test over "
        "prompts, corrected (Holm) for all methods of that table and scorer. No mark: they cannot be told apart, which "
        "does not mean that they are equal. ↓: lower is better."
    )


def warnings(facts: Facts) -> Iterator[str]:
    """What is to be read with care."""
    for scorer in facts.scorers:
        rows = [row for row in facts.pooled if row["scorer"] == scorer]
        if failed := sum(row["failed"] for row in rows):
            cells = sum(row["failed"] > 0 for row in rows)
            yield f"'{scorer}' failed on {failed:,} answers: {cells} pooled cells have no mean. Run again to try again."
        if cut := sum(row["truncated"] for row in rows):
            yield f"'{scorer}' read only the beginning of {cut:,} answers."
    alone = dict.fromkeys(row["group"] for row in facts.pooled if row["prompts"] == 1)
    if alone:
        yield f"One prompt says nothing of its uncertainty: {', '.join(alone)}."


def sections(facts: Facts) -> Iterator[Section[Cell]]:
    """What both forms have, but for comparisons and preferences."""
    if facts.report["comparisons"]:
        yield _glance(facts)
    for group in dict.fromkeys(row["group"] for row in facts.pooled):
        yield Section(f"Means: {group}", grids=(_means(facts, group),))
    if facts.report.get("pairs"):
        yield _pairs(facts)
    if facts.judge is not None:
        yield _judged(facts.judge)
    yield _costs(facts)


def comparisons(facts: Facts) -> Iterator[Grid[Cell]]:
    """A table for each group: every method against the reference."""
    rows = facts.report["comparisons"]
    header = ("policy", "scorer", "method", "items", "difference", "p", "p (Holm)", "effect size", "verdict")
    for group in dict.fromkeys(row["group"] for row in rows):
        yield Grid(
            header,
            tuple(
                (
                    row["policy"],
                    row["scorer"],
                    method_name(row["method"], row["guidance_weight"]),
                    Number(row["n"], f"{row['n']:,}"),
                    Estimate(row["difference"], row["low"], row["high"], signed=True),
                    Number(row["p"], chance(row["p"])),
                    Number(row["p_holm"], chance(row["p_holm"])),
                    Number(row["effect_size"], "" if row["effect_size"] is None else f"{row['effect_size']:+.2f}"),
                    row["verdict"],
                )
                for row in rows
                if row["group"] == group
            ),
            "<<<>>>>><",
            group,
        )


def by_preference(facts: Facts, scorer: str) -> Iterator[Grid[Cell]]:
    """A heat map for each policy and group: preferences by methods."""
    rows = [row for row in facts.report["rows"] if row["scorer"] == scorer]
    values = [row["mean"] for row in rows if row["mean"] is not None]
    low, high = (0.0, 1.0) if all(0 <= value <= 1 for value in values) else (min(values), max(values))
    width = max(high - low, 1e-9)
    for group, policy in dict.fromkeys((row["group"], row["policy"]) for row in rows):
        mine = {
            (row["preference"], row["method"], row["guidance_weight"]): row
            for row in rows
            if (row["group"], row["policy"]) == (group, policy) and row["preference"] != POOLED
        }
        methods = list(dict.fromkeys(key[1:] for key in mine))
        table: list[tuple[Cell, ...]] = []
        for preference in dict.fromkeys(key[0] for key in mine):
            cells = (mine.get((preference, *method)) for method in methods)
            heats = ("" if row is None else Heat(_estimate(row), ((row["mean"] or low) - low) / width) for row in cells)
            table.append((preference, *heats))
        header = ("preference", *(method_name(*method) for method in methods))
        yield Grid(header, tuple(table), "<" + ">" * len(methods), f"{group}, on {policy}")


def directed(facts: Facts, scorer: str) -> str:
    """A scorer's name with its unit, and an arrow where lower is better."""
    row = next(row for row in facts.report["rows"] if row["scorer"] == scorer)
    unit = f" ({row['unit']})" if row["unit"] else ""
    return f"{scorer}{unit}{'' if row['higher_is_better'] else ' ↓'}"


def _glance(facts: Facts) -> Section[Cell]:
    rows = facts.report["comparisons"]
    table: list[tuple[Cell, ...]] = []
    for group, policy in dict.fromkeys((row["group"], row["policy"]) for row in rows):
        cells = []
        for scorer in facts.scorers:
            mine = [row for row in rows if (row["group"], row["policy"], row["scorer"]) == (group, policy, scorer)]
            ahead = sum(row["verdict"] == "worse" for row in mine)
            behind = sum(row["verdict"] == "better" for row in mine)
            cells.append(f"{ahead} / {behind} / {len(mine) - ahead - behind}" if mine else "")
        table.append((group, policy, *cells))
    line = (
        f"How many of the other methods {reference_name(facts.report)} is better than / worse than / cannot be told "
        "apart from."
    )
    header = ("group", "policy", *(directed(facts, scorer) for scorer in facts.scorers))
    return Section("At a glance", (line,), (Grid(header, tuple(table), "<<" + ">" * len(facts.scorers)),))


def _means(facts: Facts, group: str) -> Grid[Cell]:
    verdicts = verdicts_of(facts.report)
    table: list[tuple[Cell, ...]] = []
    rows = [row for row in facts.pooled if row["group"] == group]
    for policy, method, weight in dict.fromkeys((row["policy"], row["method"], row["guidance_weight"]) for row in rows):
        mine = {
            row["scorer"]: row
            for row in rows
            if (row["policy"], row["method"], row["guidance_weight"]) == (policy, method, weight)
        }
        place = (group, policy, POOLED, method, weight)
        first = next(iter(mine.values()))
        cells = (
            _estimate(mine[scorer], verdicts.get((place, scorer), "undecided")) if scorer in mine else ""
            for scorer in facts.scorers
        )
        counts = (Number(first[name], f"{first[name]:,}") for name in ("n", "prompts"))
        table.append((policy, method_name(method, weight), *counts, *cells))
    header = ("policy", "method", "items", "prompts", *(directed(facts, scorer) for scorer in facts.scorers))
    return Grid(header, tuple(table), "<<>>" + ">" * len(facts.scorers))


def _estimate(row: Row, verdict: str = "undecided") -> Estimate:
    return Estimate(row["mean"], row["low"], row["high"], verdict, row["failed"])


def _judged(judge: Row) -> Section[Cell]:
    lines = [
        f"Judged by {judge['model']}, every pair in both orders; where the orders disagree it is a tie. A win rate "
        "counts ties half. Length-controlled: what it would be for answers of the same length."
    ]
    if not judge["complete"]:
        lines.append("Not everything was judged: run `pad judge` again to go on.")
    position = judge["position"]
    lines.append(
        f"The judge named the first answer {position['first']:,} times, the second {position['second']:,} times."
    )
    grids = []
    if pairs := [row for row in judge["pairwise"] if row["preference"] == POOLED]:
        grids.append(_win_rates(pairs))
    if ratings := [row for row in judge["rubric"] if row["preference"] == POOLED]:
        grids.append(_ratings(ratings))
    return Section("Win rates", tuple(lines), tuple(grids))


def _pairs(facts: Facts) -> Section[Cell]:
    rows = facts.report["pairs"]
    fluency = list(rows[0]["fluency"])
    header = ("split", "policy", "guidance weight", "pairs", "pair accuracy", "policy accuracy")
    grid: Grid[Cell] = Grid(
        (*header, *(directed(facts, scorer) for scorer in fluency)),
        tuple(
            (
                row["split"],
                row["policy"],
                f"{row['guidance_weight']:g}",
                Number(row["n"], f"{row['n']:,}"),
                Estimate(row["pair_accuracy"], row["pair_low"], row["pair_high"]),
                _known(row["policy_accuracy"], row["policy_low"], row["policy_high"]),
                *(_known(row["fluency"][scorer], None, None) for scorer in fluency),
            )
            for row in rows
        ),
        "<<" + ">" * (4 + len(fluency)),
    )
    line = (
        "Pair accuracy: the reward model's reward of the chosen answer is higher. Policy accuracy: the guided policy "
        "(at guidance weight 0 the policy alone) finds the chosen answer likelier, per token. Beside them how the "
        "policy's own answers at that weight read, since both can rise while texts fall apart."
    )
    return Section("Preference pairs", (line,), (grid,))


def _known(value: float | None, low: float | None, high: float | None) -> Cell:
    """A figure; nothing where there is none, for another reason than a scorer's failing."""
    return "" if value is None else Estimate(value, low, high)


def _win_rates(rows: Sequence[Row]) -> Grid[Cell]:
    header = ("group", "policy", "method", "against", "pairs", "win rate", "length-controlled", "won / tied / lost")
    return Grid(
        (*header, "no verdict"),
        tuple(
            (
                row["group"],
                row["policy"],
                method_name(row["method"], row["guidance_weight"]),
                method_name(row["opponent"], row["opponent_weight"]),
                Number(row["n"], f"{row['n']:,}"),
                _rate(row["win_rate"], row["low"], row["high"]),
                _rate(row["length_controlled"], row["length_controlled_low"], row["length_controlled_high"]),
                f"{row['wins']} / {row['ties']} / {row['losses']}",
                f"{row['unparsed'] + row['failed'] + row['missing']}",
            )
            for row in rows
        ),
        "<<<<>>>>>",
    )


def _rate(value: float | None, low: float | None, high: float | None) -> Cell:
    """A win rate to be drawn; nothing where no pair has a verdict."""
    return "" if value is None else Rate(Estimate(value, low, high))


def _ratings(rows: Sequence[Row]) -> Grid[Cell]:
    header = ("group", "policy", "method", "dimension", "answers", "rating, 1 to 10", "no verdict")
    return Grid(
        header,
        tuple(
            (
                row["group"],
                row["policy"],
                method_name(row["method"], row["guidance_weight"]),
                row["dimension"],
                Number(row["n"], f"{row['n']:,}"),
                Estimate(row["mean"], row["low"], row["high"]),
                f"{row['unparsed'] + row['failed'] + row['missing']}",
            )
            for row in rows
        ),
        "<<<<>>>",
    )


def _costs(facts: Facts) -> Section[Cell]:
    header = ("policy", "method", "models", "parameters", "training (s)", "answers", "tokens", "s per 100 tokens")
    rows = tuple(
        (
            row["policy"],
            method_name(row["method"], row["guidance_weight"]),
            *(
                Number(row[name], "" if row[name] is None else f"{row[name]:,}")
                for name in ("models", "parameters", "training_seconds", "answers", "tokens")
            ),
            Number(row["seconds_per_100_tokens"], _seconds(row["seconds_per_100_tokens"])),
        )
        for row in facts.costs
    )
    line = (
        "What had to be trained before, and how long answering took on this machine, all that was decoded for an "
        "answer included. The reward model stands at every method that uses it: it is trained once for "
        "all preferences and policies."
    )
    return Section("What it costs", (line,), (Grid(header, rows, "<<" + ">" * 6),), tuple(_cost_figures(facts)))


def _cost_figures(facts: Facts) -> Iterator[Figure]:
    """The first scorer's means over the time of answering."""
    scorer = facts.scorers[0]
    seconds = {
        (row["policy"], row["method"], row["guidance_weight"]): row["seconds_per_100_tokens"] for row in facts.costs
    }
    rows = [row for row in facts.pooled if row["scorer"] == scorer and row["mean"] is not None]
    for group, policy in dict.fromkeys((row["group"], row["policy"]) for row in rows):
        points = [
            Point(method_name(row["method"], row["guidance_weight"]), taken, row["mean"], row["low"], row["high"])
            for row in rows
            if (row["group"], row["policy"]) == (group, policy)
            and (taken := seconds.get((policy, row["method"], row["guidance_weight"])))
        ]
        if points:
            caption = f"{group}, on {policy}: {directed(facts, scorer)} over seconds per 100 tokens"
            yield Figure(caption, scatter_chart(points, "seconds per 100 tokens", scorer))


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
