"""What a training report says, section by section, whatever it is written in: Markdown, HTML or a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from pad_cli.pairs import describe
from pad_cli.records import DataReport
from pad_cli.reports.content import Figure, Grid, Section
from pad_cli.training.baselines import Verdict
from pad_cli.training.charts import cosine_map, curve_chart, reliability_chart
from pad_cli.training.facts import SplitFacts, TrainingFacts
from pad_cli.training.metrics import QUANTILES, Share, curves, explain_length, loss_curve

Cell = str | Share | Verdict

_PREFERENCES = 24  # of which a table has a row each


def summary(facts: TrainingFacts) -> tuple[str, ...]:
    """What the model is and on what it was trained, a sentence or two each."""
    if facts.conditioning == "prompt":
        form = "one dense head that reads the preference in the prompt"
    else:
        form = f"{len(facts.principles)} preference heads of rank {facts.rank} ({', '.join(facts.principles)})"
    parts = [form, *["LoRA weights"] * facts.has_adapter, *["an encoder for free text"] * facts.has_encoder]
    stages = ", ".join(f"{stage.name} ({stage.steps:,} steps, {_time(stage.seconds)})" for stage in facts.stages)
    return (
        f"A personalised reward model on the language model {facts.backbone}: {_and(parts)}.",
        f"Trained on {facts.pairs:,} preference pairs of {len(facts.preferences)} "
        f"{'preference' if len(facts.preferences) == 1 else 'preferences'}, in {_time(_seconds(facts))}: {stages}. "
        f"Seed {facts.seed}.",
    )


class Judgement(NamedTuple):
    """A sentence, cut around its verdict."""

    before: str
    words: str
    after: str


def judgement(split: SplitFacts) -> Judgement:
    """Whether the reward model beats the best baseline on a split."""
    best = split.best_baseline
    before = f"{split.name} ({split.pair_accuracy.n:,} pairs): the reward model "
    after = (
        f" the best baseline. It is right on {split.pair_accuracy.value:.1%} of the pairs, {named(best.name)} on "
        f"{best.pair_accuracy.value:.1%} (difference {100 * best.verdict.difference:+.1f} points, "
        f"{chance(best.verdict)})."
    )
    return Judgement(before, best.verdict.words, after)


def comparison(facts: TrainingFacts) -> Grid[Cell]:
    """Every split: the reward model beside every baseline."""
    baselines = [baseline.name for baseline in facts.splits[0].baselines]
    rows: list[tuple[Cell, ...]] = []
    for split in facts.splits:
        ours = (split.name, f"{split.pair_accuracy.n:,}", split.pair_accuracy, split.policy_accuracy)
        theirs = (cell for baseline in split.baselines for cell in (baseline.pair_accuracy, baseline.verdict))
        rows.append((*ours, f"{split.metrics['margin']:.2f}", *theirs))
    header = ("split", "pairs", "pair accuracy", "policy accuracy", "margin (nats)")
    judged = (word for name in baselines for word in (named(name), f"against {named(name)}"))
    return Grid((*header, *judged), tuple(rows), "<>>>>" + "><" * len(baselines))


def by_preference(split: SplitFacts) -> Grid[Cell]:
    """Every preference of a split: the reward model beside every baseline."""
    baselines = [baseline.name for baseline in split.baselines]
    shown = split.preferences[:_PREFERENCES]
    rows: list[tuple[Cell, ...]] = [
        (
            preference.label,
            f"{preference.pair_accuracy.n:,}",
            preference.pair_accuracy,
            preference.policy_accuracy,
            *(f"{preference.baselines[name]:.2f}" for name in baselines),
            _correlation(preference.length.correlation),
        )
        for preference in shown
    ]
    header = ("preference", "pairs", "pair accuracy", "policy accuracy", *map(named, baselines), "with length")
    if more := len(split.preferences) - len(shown) + split.more_preferences:
        rows.append((f"({more:,} rarer ones)", *[""] * (len(header) - 1)))
    return Grid(header, tuple(rows), "<" + ">" * (len(header) - 1))


def sections(facts: TrainingFacts) -> Iterator[Section[Cell]]:
    """Everything below the summary."""
    if facts.splits:
        yield Section(
            "Against the baselines",
            (
                "Length knows only which answer is longer, bag of words only which words occur; both learned from the "
                "same training pairs, cut alike. Verdicts are McNemar's exact test on the same pairs, intervals are "
                "95 % (Wilson). Both take pairs as independent; pairs that share answers are not, so with those the "
                "truth is less certain than it looks. A baseline judges finished answers and steers nothing: a reward "
                "model that no baseline can be told apart from may still steer, but these pairs do not show it.",
                "Pair accuracy: the chosen answer has the higher summed reward. Policy accuracy: the guided "
                "distribution finds it likelier, per token, at guidance weight 1; this one predicts steering.",
            ),
            (comparison(facts),),
        )
    for split in facts.splits:
        yield Section(f"By preference: {split.name}", (explain_length(split.length),), (by_preference(split),))
    if facts.splits:
        yield _confidence(facts)
    if any(stage.history for stage in facts.stages):
        yield _overfitting(facts)
    if facts.heads is not None:
        yield _heads(facts)
    yield _data(facts)


def chance(verdict: Verdict) -> str:
    """How likely such a difference is between two that are equally good."""
    return "p < 0.001" if verdict.p < 0.001 else f"p = {verdict.p:.2g}"


def named(baseline: str) -> str:
    """A baseline's name in words."""
    return baseline.replace("_", " ")


def _confidence(facts: TrainingFacts) -> Section[Cell]:
    rows = tuple(
        (
            split.name,
            f"{split.reliability.beta:g}",
            f"{split.reliability.error:.3f}",
            *(f"{quantile:.2f}" for quantile in split.quantiles),
            _correlation(split.length.correlation),
        )
        for split in facts.splits
    )
    quantiles = tuple(f"{quantile:.0%}" for quantile in QUANTILES)
    header = ("split", "beta", "calibration error", *quantiles, "with length")
    factors = ", ".join(f"{factor:.3g}" for factor in facts.calibration)
    exact = ""
    if facts.normaliser_error is not None:
        exact = (
            f" Rewards here are normalised over the likeliest tokens; over the whole vocabulary they differ by "
            f"{facts.normaliser_error:.3f} nats a token (mean)."
        )
    return Section(
        "Margins and confidence",
        (
            "The percentages are quantiles of the margin, nats. The calibration error is how far "
            "sigmoid(beta * margin) is from the share of pairs that are right, on average. With length: Spearman's "
            "correlation of the difference in reward with the difference in tokens.",
            f"Guidance weight 1 multiplies rewards by {factors}.{exact}",
        ),
        (Grid(header, rows, "<" + ">" * (len(header) - 1)),),
        tuple(
            Figure(
                f"{split.name}: how often it is right, over how sure it is; the dashed line is honest",
                reliability_chart(split.reliability, f"Reliability on {split.name}"),
            )
            for split in facts.splits
        ),
    )


def _overfitting(facts: TrainingFacts) -> Section[Cell]:
    rows: list[tuple[Cell, ...]] = []
    figures: list[Figure] = []
    for stage in facts.stages:
        measured = curves(stage.history, "policy_accuracy")
        for curve in measured:
            step, value = curve.best
            rows.append((stage.name, curve.name, f"{step:,}", f"{value:.3f}", f"{curve.values[-1]:.3f}"))
        shown = (
            (curves(stage.history, "pair_accuracy"), "pair accuracy"),
            (measured, "policy accuracy"),
            (loss_curve(stage.history), "training loss"),
        )
        figures += [Figure(f"{stage.name}: {what}", curve_chart(lines, what)) for lines, what in shown if lines]
    header = ("stage", "split", "best step", "policy accuracy there", "at the end")
    line = "Where accuracy on validation falls and the loss still does too, training pairs are learned by heart."
    grids = (Grid(header, tuple(rows), "<<>>>"),) if rows else ()
    return Section("While training", (line,), grids, tuple(figures))


def _heads(facts: TrainingFacts) -> Section[Cell]:
    assert facts.heads is not None
    rows = tuple(zip(facts.heads.names, (f"{norm:.3g}" for norm in facts.heads.norms), strict=True))
    line = (
        "The norm (Frobenius) says how much a head moves hidden states; the cosine of two heads is near 1 where they "
        "do the same and below 0 where they work against each other."
    )
    figure = Figure("Cosines of the heads", cosine_map(facts.heads))
    return Section("Heads", (line,), (Grid(("head", "norm"), rows, "<>"),), (figure,))


def _data(facts: TrainingFacts) -> Section[Cell]:
    cut = f"{facts.cut_answers - facts.cut_to_context:,} lost their end at {facts.max_answer_tokens:,} tokens"
    if facts.cut_to_context:
        cut += f", {facts.cut_to_context:,} where the backbone's {facts.context_length:,} tokens end"
    lines = [f"{facts.answers:,} distinct answers; {cut}."]
    if lengths := facts.data.get("lengths"):
        lines.append(
            f"The median answer has {lengths['answer_median']:,.0f} tokens, the longest {lengths['answer_longest']:,}. "
            f"{lengths['prompts_cut']:,} answers follow a prompt that lost its beginning at "
            f"{lengths['prompt_limit']:,} tokens."
        )
    labels = sorted(facts.preferences, key=lambda label: (-facts.preferences[label], label))
    counts = [(label, f"{facts.preferences[label]:,}") for label in labels[:_PREFERENCES]]
    if more := len(labels) - len(counts):
        counts.append(
            (f"({more:,} rarer ones)", f"{sum(facts.preferences[label] for label in labels[len(counts) :]):,}")
        )
    grids = (Grid(("preference", "training pairs"), tuple(counts), "<>"), *_origins(facts.data))
    return Section("Data", tuple(lines), grids)


def _origins(data: Mapping[str, Any]) -> Iterator[Grid[Cell]]:
    """The data report's tables."""
    for table in describe(TypeAdapter(DataReport).validate_python(data)):
        sides = "".join(">" if all(map(_is_number, column)) else "<" for column in zip(*table.rows, strict=True))
        yield Grid(table.header, table.rows, sides, table.title)


def _is_number(text: str) -> bool:
    return text.replace(",", "").replace(".", "").isdigit() or not text


def _correlation(value: float | None) -> str:
    return "none" if value is None else f"{value:+.2f}".replace("-0.00", "+0.00")


def _seconds(facts: TrainingFacts) -> float:
    return sum(stage.seconds for stage in facts.stages)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
