"""What the `report.json` of a training says to a reader: the page, its Markdown twin, and the tables on a terminal.

The keys are those of `training.record.TrainingRecord`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import sqrt
from typing import TYPE_CHECKING

from pad_cli.reports.charts import Point, Series, interval_bar, plot
from pad_cli.reports.document import Cell, Column, Document, Figure, Section, Table, Verdict, terminal_table
from pad_cli.reports.training_warnings import Record, correlation, explain_length, warnings_of

if TYPE_CHECKING:
    from rich.console import RenderableType

_TONES = {"beats": "good", "does not beat": "fair", "is worse than": "bad"}
_STYLES = {"good": "bold green", "fair": "bold yellow", "bad": "bold red"}
_PREFERENCES = 24  # of which a table has a row each
_TERMINAL_PREFERENCES = 12  # of a split, so that a terminal shows them
_WIDE = 96  # columns of a terminal that has room for intervals


def training_document(record: Record, data_tables: Sequence[Table] = ()) -> Document:
    """The whole report.

    Args:
        record: of the run.
        data_tables: what is known of the training data.
    """
    return Document(
        record["name"], _summary(record), [_verdict(split) for split in record["splits"]], warnings_of(record),
        [*_sections(record), _data(record, data_tables)],
    )  # fmt: skip


def console_tables(record: Record, width: int = 100) -> list[RenderableType]:
    """The report for a terminal of so many columns: the tables that matter most, verdicts, warnings."""
    from rich.text import Text

    parts: list[RenderableType] = []
    if record["splits"]:
        compared = replace(_against_baselines(record), title="Reward model against baselines")
        parts.append(terminal_table(compared, intervals=False))  # the verdicts below say how sure the comparison is
    for split in record["splits"]:
        if 1 < len(split["preferences"]) <= _TERMINAL_PREFERENCES:
            table = replace(_by_preference(split), title=f"By preference: {split['name']}")
            parts.append(terminal_table(table, intervals=width >= _WIDE))
    for verdict in map(_verdict, record["splits"]):
        parts.append(Text.assemble(verdict.before, (verdict.words, _STYLES[verdict.tone]), verdict.after))
    parts += [Text.assemble(("Warning: ", "bold yellow"), warning) for warning in warnings_of(record)]
    return parts


def _summary(record: Record) -> list[str]:
    form = "one dense head that reads the preference in the prompt"
    if record["conditioning"] != "prompt":
        names = record["principles"]
        form = f"{len(names)} preference heads of rank {record['rank']} ({', '.join(names)})"
    parts = [form, *["LoRA weights"] * record["has_adapter"], *["an encoder for free text"] * record["has_encoder"]]
    stages = [f"{stage['name']} ({stage['steps']:,} steps, {_time(stage['seconds'])})" for stage in record["stages"]]
    preferences = len(record["preferences"])
    return [
        f"A personalised reward model on the language model {record['backbone']}: "
        f"{' and '.join(filter(None, [', '.join(parts[:-1]), parts[-1]]))}.",
        f"Trained on {record['pairs']:,} preference pairs of {preferences} preference{'s' * (preferences != 1)}, in "
        f"{_time(sum(stage['seconds'] for stage in record['stages']))}: {', '.join(stages)}. Seed {record['seed']}.",
    ]


def _verdict(split: Record) -> Verdict:
    """Whether the reward model beats the best baseline on a split."""
    best = max(split["baselines"], key=lambda baseline: baseline["pair_accuracy"]["value"])
    result, ours = best["verdict"], split["pair_accuracy"]
    return Verdict(
        f"{split['name']} ({ours['n']:,} pairs): the reward model ",
        result["words"],
        f" the best baseline. It is right on {ours['value']:.1%} of the pairs, {_spaced(best['name'])} on "
        f"{best['pair_accuracy']['value']:.1%} (difference {100 * result['difference']:+.1f} points, {_p(result)}).",
        _TONES[result["words"]],
    )


def _sections(record: Record) -> Iterator[Section]:
    if record["splits"]:
        yield Section(
            "Against the baselines",
            (
                "Length knows only which answer is longer, bag of words only which words occur; both learned from the "
                "same training pairs, cut alike. Verdicts are McNemar's exact test on the same pairs, intervals are "
                "95 % (Wilson). Both take pairs as independent; pairs that share answers are not, so with those the "
                "uncertainty is larger than it looks. A baseline judges finished answers and steers nothing: a reward "
                "model that no baseline can be told apart from may still steer, but these pairs do not show it.",
                "Pair accuracy: the chosen answer has the higher summed reward. Policy accuracy: the guided "
                "distribution finds it likelier, per token, at guidance weight 1; this one predicts steering.",
            ),
            (_against_baselines(record),),
        )
    for split in record["splits"]:
        yield Section(f"By preference: {split['name']}", (explain_length(split["length"]),), (_by_preference(split),))
    if record["splits"]:
        yield _confidence(record)
    if any(stage["history"] for stage in record["stages"]):
        yield _overfitting(record)
    if record["heads"] is not None:
        yield _heads(record["heads"])


def _against_baselines(record: Record) -> Table:
    columns: dict[str, Column] = {
        "pairs": lambda split: f"{split['pair_accuracy']['n']:,}",
        "pair accuracy": lambda split: _share(split["pair_accuracy"]),
        "policy accuracy": lambda split: _share(split["policy_accuracy"]),
        "margin (nats)": lambda split: f"{split['metrics']['margin']:.2f}",
    }
    for number, baseline in enumerate(record["splits"][0]["baselines"]):
        name = _spaced(baseline["name"])
        columns[name] = partial(_baseline_share, number)
        columns[f"against {name}"] = partial(_baseline_verdict, number)
    return Table.of(record["splits"], {"split": "name"}, columns)


def _baseline_share(number: int, split: Record) -> Cell:
    return _share(split["baselines"][number]["pair_accuracy"])


def _baseline_verdict(number: int, split: Record) -> Cell:
    verdict = split["baselines"][number]["verdict"]
    detail = f"{verdict['difference']:+.3f}, {_p(verdict)}"
    return Cell(f"{verdict['words']} it", detail=detail, tone=_TONES[verdict["words"]])


def _by_preference(split: Record) -> Table:
    columns: dict[str, Column] = {
        "pairs": lambda one: f"{one['pair_accuracy']['n']:,}",
        "pair accuracy": lambda one: _share(one["pair_accuracy"]),
        "policy accuracy": lambda one: _share(one["policy_accuracy"]),
    }
    for baseline in split["baselines"]:
        name = baseline["name"]
        columns[_spaced(name)] = partial(_baseline_of_preference, name)
    columns["with length"] = lambda one: correlation(one["length"])
    table = Table.of(split["preferences"][:_PREFERENCES], {"preference": "label"}, columns)
    if more := len(split["preferences"]) - len(table.rows) + split["more_preferences"]:
        rarer = (f"({more:,} rarer ones)", *[""] * len(columns))
        return replace(table, rows=[*table.rows, rarer])
    return table


def _baseline_of_preference(name: str, preference: Record) -> str:
    return f"{preference['baselines'][name]:.2f}"


def _confidence(record: Record) -> Section:
    columns: dict[str, Column] = {
        "beta": lambda split: f"{split['reliability']['beta']:g}",
        "calibration error": lambda split: f"{split['reliability']['error']:.3f}",
    }
    for number, name in enumerate(("5%", "25%", "50%", "75%", "95%")):
        columns[name] = partial(_quantile, number)
    columns["with length"] = lambda split: correlation(split["length"])
    table = Table.of(record["splits"], {"split": "name"}, columns)
    factors = ", ".join(f"{factor:.3g}" for factor in record["calibration"])
    exact = ""
    if record["normaliser_error"] is not None:
        exact = (
            " Rewards here are normalised over the likeliest tokens; over the whole vocabulary they differ by "
            f"{record['normaliser_error']:.3f} nats a token (mean)."
        )
    lines = (
        "The percentages are quantiles of the margin, nats. The calibration error is how far sigmoid(beta * margin) is "
        "from the share of pairs that are right, on average. With length: Spearman's correlation of the difference in "
        "reward with the difference in tokens.",
        f"Guidance weight 1 multiplies rewards by {factors}.{exact}",
    )
    return Section("Margins and confidence", lines, (table,), [_reliability(split) for split in record["splits"]])


def _quantile(number: int, split: Record) -> str:
    return f"{split['quantiles'][number]:.2f}"


def _reliability(split: Record) -> Figure:
    """Accuracy over confidence: on the diagonal a model is as often right as it is sure."""
    bins = split["reliability"]["bins"]
    most = max(part["accuracy"]["n"] for part in bins)
    points = [
        Point(
            part["confidence"], accuracy["value"], accuracy["low"], accuracy["high"], f"{accuracy['n']} pairs",
            2 + 4 * sqrt(accuracy["n"] / most),
        )
        for part in bins
        for accuracy in [part["accuracy"]]
    ]  # fmt: skip
    chart = plot([Series("", points)], "confidence", "accuracy", x=(0.5, 1.0), y=(0.0, 1.0), diagonal=True)
    return Figure(f"{split['name']}: how often it is right, over how sure it is; the dashed line is ideal", chart)


def _overfitting(record: Record) -> Section:
    rows: list[tuple[str, ...]] = []
    figures: list[Figure] = []
    for stage in record["stages"]:
        history = stage["history"]
        policy = _curves(history, "policy_accuracy")
        for curve in policy:
            best = max(curve.points, key=lambda point: point.y)  # the first of them
            values = (f"{best.x:,}", f"{best.y:.3f}", f"{curve.points[-1].y:.3f}")
            rows.append((stage["name"], curve.name, *values))
        loss = [Point(point["step"], point["loss"]) for point in history]
        charts = {
            "pair accuracy": _curves(history, "pair_accuracy"),
            "policy accuracy": policy,
            "training loss": [Series("", loss, loss)] if loss else [],
        }
        for label, curves in charts.items():
            if curves:
                figures.append(Figure(f"{stage['name']}: {label}", plot(curves, "step", label)))
    line = "Where accuracy on validation falls while the loss still does, the model memorises its training pairs."
    header = ("stage", "split", "best step", "policy accuracy there", "at the end")
    return Section("While training", (line,), [Table(header, rows, "<<>>>")] if rows else [], figures)


def _curves(history: Sequence[Record], metric: str) -> list[Series]:
    """A metric over a stage: on the training batches, where known, and on every split."""
    points: dict[str, list[Point]] = {}
    for point in history:
        if metric == "pair_accuracy" and point["pair_accuracy"] is not None:
            points.setdefault("training batches", []).append(Point(point["step"], point["pair_accuracy"]))
        for split, metrics in point["splits"].items():
            points.setdefault(split, []).append(Point(point["step"], metrics[metric]))
    return [Series(name, line, line) for name, line in points.items()]


def _heads(heads: Record) -> Section:
    """Norms, and cosines as a heat map: green alike, red opposed."""
    rows = [
        (name, f"{norm:.3g}", *(Cell(f"{cosine:.2f}".replace("-0.00", "0.00"), shade=_shade(cosine)) for cosine in row))
        for name, norm, row in zip(heads["names"], heads["norms"], heads["cosines"], strict=True)
    ]
    line = (
        "The norm (Frobenius) says how much a head moves hidden states; the cosine of two heads is near 1 where they "
        "do the same and below 0 where they work against each other."
    )
    return Section("Heads", (line,), (Table(("head", "norm", *heads["names"]), rows, "<" + ">" * (len(rows) + 1)),))


def _shade(cosine: float) -> str:
    return f"rgba({'30, 160, 85' if cosine > 0 else '214, 60, 50'}, {0.08 + 0.75 * abs(cosine):.2f})"


def _data(record: Record, tables: Sequence[Table]) -> Section:
    cut = f"{record['cut_answers'] - record['cut_to_context']:,} were cut at {record['max_answer_tokens']:,} tokens"
    if record["cut_to_context"]:
        cut += f", {record['cut_to_context']:,} at the backbone's limit of {record['context_length']:,} tokens"
    lines = [f"{record['answers']:,} distinct answers; {cut}."]
    if lengths := record["data"].get("lengths"):
        lines.append(
            f"The median answer has {lengths['answer_median']:,.0f} tokens, the longest {lengths['answer_longest']:,}. "
            f"{lengths['prompts_cut']:,} answers follow a prompt that lost its beginning at "
            f"{lengths['prompt_limit']:,} tokens."
        )
    counts = sorted(record["preferences"].items(), key=lambda item: (-item[1], item[0]))
    rows = [(label, f"{count:,}") for label, count in counts[:_PREFERENCES]]
    if rarer := counts[_PREFERENCES:]:
        rows.append((f"({len(rarer):,} rarer ones)", f"{sum(count for _, count in rarer):,}"))
    return Section("Data", lines, (Table(("preference", "training pairs"), rows, "<>"), *tables))


def _share(share: Record) -> Cell:
    value, low, high = share["value"], share["low"], share["high"]
    words = f"{value:.3f}, 95 % interval {low:.3f} to {high:.3f}, {share['n']} pairs"
    return Cell(f"{value:.3f}", f"{low:.2f} to {high:.2f}", value=value, bar=interval_bar(value, low, high, words))


def _p(verdict: Record) -> str:
    """How likely such a difference is between two that are equally good."""
    return "p < 0.001" if verdict["p"] < 0.001 else f"p = {verdict['p']:.2g}"


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
