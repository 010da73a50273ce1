"""What the `report.json` of a training says to a reader: the page, its Markdown twin, and the tables on a terminal.

`training.record.evaluate_run` says what the keys hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

from pad_cli.preference import parse_preference
from pad_cli.reports.charts import Point, Series, plot
from pad_cli.reports.document import Cell, Column, Document, Figure, Section, Table, number, terminal_table

if TYPE_CHECKING:
    from rich.console import RenderableType

Record = Mapping[str, Any]
"""A part of `report.json`."""

_TERMINAL_PREFERENCES = 12  # of a split, so that a terminal shows them

# When a warning is due
_FEW_PAIRS = 100
_MANY_CUT = 0.2
_OVERFIT = 0.1  # accuracy on training pairs less that on validation pairs
_OPPOSED, _ALIKE = -0.5, 0.9  # cosines of heads
_UNBALANCED = 10  # times as many pairs of one preference as of another
_LENGTH = 0.5  # correlation of the reward with length
_NAMED = 3  # items that a warning names

_BASELINES = (
    "Length knows only which answer is longer, bag of words only which words occur; both learned from the same "
    "training pairs, cut alike. Verdicts are McNemar's exact test, intervals are 95 % (Wilson); both take pairs as "
    "independent, so where pairs share answers the uncertainty is larger than it looks. A baseline steers nothing: a "
    "reward model that none can be told apart from may still steer, but these pairs do not show it.",
    "Pair accuracy: the chosen answer has the higher summed reward. Policy accuracy: the guided distribution finds it "
    "likelier, per token, at guidance weight 1; this one predicts steering.",
)
_MARGINS = (
    "The margin is the mean, the percentages are quantiles, nats. With length: Spearman's correlation of the "
    "difference in reward with the difference in tokens."
)
_CURVES = "Where accuracy on validation falls while the loss still does, the model memorises its training pairs."
_GEOMETRY = (
    "The norm (Frobenius) says how much a head moves hidden states; the cosine of two heads is near 1 where they do "
    "the same and below 0 where they work against each other."
)


def training_document(record: Record, data_tables: Sequence[Table] = ()) -> Document:
    """The whole report, with tables of what is known about the training data."""
    sections = []
    if record["splits"]:
        sections.append(Section("Against the baselines", _BASELINES, (_against_baselines(record),)))
    for split in record["splits"]:
        lines = [explain_length(split["length"])]
        if more := split["more_preferences"]:
            lines.append(f"{more:,} rarer preferences are not listed.")
        sections.append(Section(f"By preference: {split['name']}", lines, (_by_preference(split),)))
    if record["splits"]:
        sections.append(_margins(record))
    if any(stage["history"] for stage in record["stages"]):
        sections.append(Section("While training", (_CURVES,), figures=list(_training_curves(record))))
    if record["heads"] is not None:
        sections.append(_heads(record["heads"]))
    sections.append(_data(record, data_tables))
    summary = [*map(_verdict, record["splits"]), *_summary(record)]
    return Document(record["name"], summary, warnings_of(record), sections)


def console_tables(record: Record) -> list[RenderableType]:
    """The report for a terminal: the tables that matter most, verdicts, warnings."""
    from rich.text import Text

    parts: list[RenderableType] = []
    if record["splits"]:
        parts.append(terminal_table(replace(_against_baselines(record), title="Reward model against baselines")))
    for split in record["splits"]:
        if 1 < len(split["preferences"]) <= _TERMINAL_PREFERENCES:
            parts.append(terminal_table(replace(_by_preference(split), title=f"By preference: {split['name']}")))
    parts += map(Text, map(_verdict, record["splits"]))
    return parts + [Text.assemble(("Warning: ", "bold yellow"), warning) for warning in warnings_of(record)]


def _summary(record: Record) -> list[str]:
    form = "one dense head that reads the preference in the prompt"
    if record["conditioning"] != "prompt":
        names = record["principles"]
        form = f"{len(names)} preference heads of rank {record['rank']} ({', '.join(names)})"
    parts = [form, *["LoRA weights"] * record["has_adapter"], *["an encoder for free text"] * record["has_encoder"]]
    stages = [f"{stage['name']} ({stage['steps']:,} steps, {_time(stage['seconds'])})" for stage in record["stages"]]
    preferences = len(record["preferences"])
    return [
        f"A personalised reward model on the language model {record['backbone']}: {', '.join(parts)}.",
        f"Trained on {record['pairs']:,} preference pairs of {preferences} preference{'s' * (preferences != 1)}, in "
        f"{_time(sum(stage['seconds'] for stage in record['stages']))}: {', '.join(stages)}. Seed {record['seed']}.",
    ]


def _verdict(split: Record) -> str:
    """Whether the reward model beats the best baseline on a split."""
    best = max(split["baselines"], key=lambda baseline: baseline["pair_accuracy"]["value"])
    result, ours = best["verdict"], split["pair_accuracy"]
    return (
        f"{split['name']} ({ours['n']:,} pairs): the reward model {result['words']} the best baseline. It is right on "
        f"{ours['value']:.1%} of the pairs, {_spaced(best['name'])} on {best['pair_accuracy']['value']:.1%} "
        f"(difference {100 * result['difference']:+.1f} points, {_p(result)})."
    )


# Tables and charts


def _against_baselines(record: Record) -> Table:
    header = ("split", "model", "pair accuracy", "policy accuracy", "the reward model")
    rows: list[list[str | Cell]] = []
    for split in record["splits"]:
        shares = [_share("pair_accuracy", split), _share("policy_accuracy", split)]
        rows.append([split["name"], "reward model", *shares, ""])
        for baseline in split["baselines"]:
            verdict = baseline["verdict"]
            words = f"{verdict['words']} it ({verdict['difference']:+.3f}, {_p(verdict)})"
            rows.append([split["name"], _spaced(baseline["name"]), _share("pair_accuracy", baseline), "", words])
    return Table(header, rows, "<<>><")


def _by_preference(split: Record) -> Table:
    baselines = {_spaced(each["name"]): number(f"baselines.{each['name']}", ".2f") for each in split["baselines"]}
    columns: dict[str, Column] = {
        "pairs": number("pair_accuracy.n"),
        "pair accuracy": partial(_share, "pair_accuracy"),
        "policy accuracy": partial(_share, "policy_accuracy"),
        **baselines,
        "with length": correlation,
    }
    return Table.of(split["preferences"], {"preference": "label"}, columns)


def _margins(record: Record) -> Section:
    quantiles = {f"{share}%": number(f"quantiles.{place}", ".2f") for place, share in enumerate((5, 25, 50, 75, 95))}
    columns: dict[str, Column] = {"margin": number("metrics.margin", ".2f"), **quantiles, "with length": correlation}
    scaled = f"Guidance weight 1 multiplies rewards by {', '.join(f'{each:.3g}' for each in record['calibration'])}."
    return Section("Margins", (_MARGINS, scaled), (Table.of(record["splits"], {"split": "name"}, columns),))


def _training_curves(record: Record) -> Iterator[Figure]:
    """Accuracies and loss over the steps of each stage."""
    for stage in record["stages"]:
        loss = [Point(point["step"], point["loss"]) for point in stage["history"]]
        charts = {
            "pair accuracy": _curves(stage["history"], "pair_accuracy"),
            "policy accuracy": _curves(stage["history"], "policy_accuracy"),
            "training loss": [Series("", loss, loss)] if loss else [],
        }
        for label, curves in charts.items():
            if curves:
                yield Figure(f"{stage['name']}: {label}", plot(curves, "step", label))


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
    rows = [
        (name, f"{norm:.3g}", *(f"{cosine:.2f}".replace("-0.00", "0.00") for cosine in cosines))
        for name, norm, cosines in zip(heads["names"], heads["norms"], heads["cosines"], strict=True)
    ]
    table = Table(("head", "norm", *heads["names"]), rows, "<" + ">" * (len(rows) + 1))
    return Section("Heads", (_GEOMETRY,), (table,))


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
    return Section("Data", lines, tables)


# Warnings


def warnings_of(record: Record) -> list[str]:
    """What a reader must know before trusting the figures, a sentence or two each; the gravest first."""
    return [*_validation_warnings(record), *_data_warnings(record), *_head_warnings(record)]


def _validation_warnings(record: Record) -> Iterator[str]:
    if record["shuffled_labels"]:
        yield "The training labels were swapped at random: this is a control, which should not beat anything."
    if not record["splits"]:
        yield "There is no validation split, so nothing here says whether it learned. Set data.validation_share."
    for split in record["splits"]:
        name, held_out, train = split["name"], split["pair_accuracy"], record["train"]
        if held_out["n"] < _FEW_PAIRS:
            yield (
                f"{name} has {held_out['n']} pairs: its pair accuracy may be anything from {held_out['low']:.2f} to "
                f"{held_out['high']:.2f}. Validate on at least {_FEW_PAIRS}."
            )
        if train and train["value"] - held_out["value"] > _OVERFIT and train["low"] > held_out["high"]:
            yield (
                f"Pair accuracy is {train['value']:.2f} on training pairs and {held_out['value']:.2f} on {name}: the "
                f"model has memorised its training pairs, or {name} differs from them. Train for fewer steps, with "
                "patience, dropout or weight decay, or on more prompts."
            )
        if abs(split["length"]["correlation"] or 0) > _LENGTH:
            yield (
                f"On {name} the reward goes with length (correlation {correlation(split)}). "
                f"{explain_length(split['length'])} A length-normalised loss weakens this."
            )


def _data_warnings(record: Record) -> Iterator[str]:
    if record["cut_answers"] > _MANY_CUT * record["answers"]:
        yield (
            f"{record['cut_answers'] / record['answers']:.0%} of the answers were cut at the limits that stand under "
            "Data; what comes later was neither learned nor judged."
        )
    counts = dict(record["preferences"])
    if names := record["principles"]:  # count the pairs that ask for each
        asked = {label: parse_preference([label], names, accepts_text=True).weights for label in counts}
        counts = {name: sum(n for label, n in counts.items() if name in asked[label]) for name in names}
    if counts and max(counts.values()) > _UNBALANCED * min(counts.values()):
        most, least = (pick(counts, key=counts.__getitem__) for pick in (max, min))
        yield (
            f"'{most}' has {counts[most]:,} training pairs, '{least}' {counts[least]:,}: look at the accuracy of each "
            "preference, not at the mean. Give the rarer one's source a higher weight."
        )


def _head_warnings(record: Record) -> Iterator[str]:
    if (heads := record["heads"]) is None:
        return
    numbered = combinations(enumerate(heads["names"]), 2)
    pairs = sorted((heads["cosines"][i][j], f"'{one}' and '{other}'") for (i, one), (j, other) in numbered)
    named = [(cosine, f"{names} (cosine {cosine:+.2f})") for cosine, names in pairs]
    if opposed := [words for cosine, words in named if cosine < _OPPOSED]:
        yield f"Heads that oppose each other: {_listed(opposed)}. Requested together, they cancel out."
    if alike := [words for cosine, words in reversed(named) if cosine > _ALIKE]:
        yield f"Heads that do the same: {_listed(alike)}. The data hardly tell these preferences apart."


# Words


def explain_length(effect: Record) -> str:
    """How far labels and rewards go with length, in a sentence."""
    if effect["labels"] is None or effect["rewards"] is None:
        return "The answers of each pair are equally long, so length explains nothing."
    return (
        f"The longer answer is the chosen one in {effect['labels']:.0%} of the pairs and has the higher reward in "
        f"{effect['rewards']:.0%}."
    )


def correlation(row: Record) -> str:
    """The length correlation of a split or preference."""
    value = row["length"]["correlation"]
    return "none" if value is None else f"{value:+.2f}".replace("-0.00", "+0.00")


def _share(key: str, row: Record) -> Cell:
    share = row[key]
    return Cell(f"{share['value']:.3f}", f"{share['low']:.2f} to {share['high']:.2f}", value=share["value"])


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _NAMED
    return ", ".join(items[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _p(verdict: Record) -> str:
    """How likely such a difference is between two that are equally good."""
    return "p < 0.001" if verdict["p"] < 0.001 else f"p = {verdict['p']:.2g}"


def _spaced(name: str) -> str:
    return name.replace("_", " ")


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
