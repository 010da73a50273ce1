"""The report: figures by hand, failures that show, comparisons that are fair, and the promised shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binom

from pad_cli.evaluation.outputs import REPORT
from pad_cli.evaluation.report import Reference, reference_of
from pad_cli.evaluation.statistics import by_prompt, intervals
from pad_cli.evaluation.untrained_methods import Base, Pad
from pad_cli.reports.evaluation_tables import report_table
from pad_cli.system.runs import fingerprint, write_json
from tests.evaluation.reports import make_recipe, only, report_of, score, scores

BASE: dict[str, Any] = {"method": "base", "guidance_weight": 0.0}
UP = [1.0, 2.0, 4.0, 3.0, 6.0, 5.0, 8.0, 7.0]


def test_mean_and_standard_error_are_those_worked_by_hand() -> None:
    """2, 4, 6, 8: mean 5, squared deviations 9 + 1 + 1 + 9 = 20, variance 20/3, error sqrt(20/3/4) = 1.2910."""
    row = only(report_of(*scores([2.0, 4.0, 6.0, 8.0]))["rows"], preference="formal")
    assert (row["n"], row["prompts"], row["mean"], row["stderr"]) == (4, 4, 5.0, 1.291)
    assert row["low"] < 5 < row["high"]


def test_an_interval_is_that_of_the_cells_prompts() -> None:
    row = only(report_of(*scores(UP), confidence=0.9, resamples=300)["rows"], preference="formal")
    sample = by_prompt((str(prompt), value) for prompt, value in enumerate(UP))
    seed = int(fingerprint(("home", "single", "formal")), 16)
    (expected,) = intervals([sample], confidence=0.9, resamples=300, seed=seed)
    assert (row["low"], row["high"]) == pytest.approx(expected, abs=1e-4)


def test_one_prompt_has_no_interval() -> None:
    row = only(report_of(score(3.0))["rows"], preference="formal")
    assert (row["n"], row["mean"], row["stderr"], row["low"], row["high"]) == (1, 3.0, None, None, None)


def test_preferences_of_one_prompt_are_one_observation() -> None:
    """Twice the items on the same prompts are as uncertain as once."""
    once = only(report_of(*scores(UP))["rows"], preference="*")
    twice = only(report_of(*scores(UP), *scores(UP, preference="funny"))["rows"], preference="*")
    assert (twice["n"], twice["prompts"]) == (16, 8)
    for figure in ("mean", "stderr", "low", "high"):
        assert twice[figure] == once[figure]


def test_seeds_of_an_item_are_averaged_first() -> None:
    """Item 0: 1 and 3, item 1: 5 and 5: mean of 2 and 5."""
    report = report_of(score(1.0), score(5.0, 1), score(3.0), score(5.0, 1))
    row = only(report["rows"], preference="formal")
    assert (row["n"], row["mean"]) == (2, 3.5)


def test_the_pooled_row_holds_every_preference_of_its_group_and_of_no_other() -> None:
    """formal 1, 3 and funny 8 in `single`: mean 4; the answer in `combination` stays apart."""
    rows = report_of(
        *scores([1.0, 3.0]), score(8.0, preference="funny"), score(100.0, preference="funny", group="combination")
    )["rows"]
    pooled = only(rows, group="single", preference="*")
    assert (pooled["n"], pooled["mean"]) == (3, 4.0)
    assert only(rows, group="single", preference="formal")["mean"] == 2.0
    assert only(rows, group="single", preference="funny")["mean"] == 8.0
    assert only(rows, group="combination", preference="*")["mean"] == 100.0


@pytest.mark.parametrize(
    "changed", [{"method": "base"}, {"policy": "away"}, {"guidance_weight": 2.0}, {"scorer": "repeated_4grams"}]
)
def test_methods_policies_weights_and_scorers_are_never_mixed(changed: dict[str, Any]) -> None:
    rows = report_of(score(1.0), score(5.0, **changed))["rows"]
    assert [row["mean"] for row in rows if row["preference"] == "*"] == [1.0, 5.0]
    assert all(row["n"] == 1 for row in rows)


def test_a_failed_answer_leaves_its_cells_without_figures_and_no_other() -> None:
    rows = report_of(*scores([1.0, None, 3.0]), *scores([4.0, 4.0, 4.0], preference="funny"), *scores(UP, **BASE))[
        "rows"
    ]
    for preference, n in (("formal", 3), ("*", 6)):
        row = only(rows, method="pad", preference=preference)
        assert (row["n"], row["failed"]) == (n, 1)
        assert [row[figure] for figure in ("mean", "stderr", "low", "high")] == [None] * 4
    assert only(rows, method="pad", preference="funny")["mean"] == 4.0
    assert only(rows, method="base", preference="*")["failed"] == 0


@pytest.mark.parametrize("failing", [{}, BASE], ids=["reference", "method"])
def test_a_failure_of_one_seed_fails_the_cell_and_its_comparison(failing: dict[str, Any]) -> None:
    report = report_of(*scores(UP), *scores(UP, **BASE), *scores([None, *UP[1:]], **failing))
    name = failing.get("method", "pad")
    assert only(report["rows"], method=name, preference="*")["mean"] is None
    assert report["comparisons"][0]["p"] is None


def test_a_comparison_with_a_failed_answer_has_no_figures_and_is_no_part_of_the_table() -> None:
    down = scores([value - 1 for value in UP], **BASE)
    alone = only(report_of(*scores(UP), *down)["comparisons"], method="base")
    report = report_of(*scores(UP), *down, *scores([None, *UP[1:]], guidance_weight=2.0))
    failed = only(report["comparisons"], guidance_weight=2.0)
    assert [failed[name] for name in ("difference", "low", "high", "p", "p_holm", "effect_size")] == [None] * 6
    assert (failed["n"], failed["verdict"]) == (8, "undecided")
    assert only(report["comparisons"], method="base") == alone


def test_truncated_answers_are_counted_and_keep_their_scores() -> None:
    row = only(report_of(score(1.0, truncated=True), score(3.0, 1))["rows"], preference="*")
    assert (row["truncated"], row["mean"], row["n"]) == (1, 2.0, 2)


def test_a_comparison_is_of_the_same_items_and_worked_by_hand() -> None:
    """All eight prompts are one to three words longer: 2 of 256 sign flips are as extreme; mean 2."""
    longer = [value + 1 + number % 3 for number, value in enumerate(UP)]
    (found,) = report_of(*scores(UP), *scores(longer, **BASE))["comparisons"]
    assert (found["method"], found["guidance_weight"], found["reference"], found["reference_weight"]) == (
        *("base", 0.0),
        *("pad", 1.0),
    )
    assert found["difference"] == pytest.approx(np.mean([1, 2, 3, 1, 2, 3, 1, 2]), abs=1e-4)
    assert found["low"] > 0
    assert found["p"] == found["p_holm"] == pytest.approx(2 / 256, abs=1e-4)
    assert found["effect_size"] == pytest.approx(1.875 / np.std([1, 2, 3, 1, 2, 3, 1, 2], ddof=1), abs=1e-4)


@pytest.mark.parametrize(
    ("scorer", "more", "verdict"),
    [
        ("hit", 0.1, "better"),
        ("hit", -0.1, "worse"),
        ("repeated_4grams", 0.1, "worse"),
        ("repeated_4grams", 0.0, "undecided"),
    ],
)
def test_a_verdict_is_in_the_scorers_direction(scorer: str, more: float, verdict: str) -> None:
    ours = [0.3 + 0.05 * number for number in range(8)]
    (found,) = report_of(
        *scores(ours, scorer=scorer), *scores([value + more for value in ours], scorer=scorer, **BASE)
    )["comparisons"]
    assert found["verdict"] == verdict


def test_p_values_are_corrected_within_a_table_and_not_across() -> None:
    rng = np.random.default_rng(0)
    others = [scores(list(UP + rng.normal(size=8)), method=f"m{number}") for number in range(3)]
    far = [score._replace(cell=score.cell._replace(group="combination")) for score in (*scores(UP), *others[0])]
    rows = report_of(*scores(UP), *(each for other in others for each in other), *far)["comparisons"]
    near = sorted((row["p"], row["p_holm"]) for row in rows if row["group"] == "single")
    assert near[0][1] == pytest.approx(min(1, 3 * near[0][0]), abs=2e-3)
    alone = only(rows, group="combination")
    assert alone["p"] == alone["p_holm"]


def test_each_scorer_has_a_table_of_its_own() -> None:
    longer = [value + 1 + number % 3 for number, value in enumerate(UP)]
    rows = report_of(
        *(each for name in ("words", "hit") for each in scores(UP, scorer=name)),
        *(each for name in ("words", "hit") for each in scores(longer, scorer=name, **BASE)),
    )["comparisons"]
    assert [row["p_holm"] for row in rows] == [row["p"] for row in rows] == [pytest.approx(2 / 256, abs=1e-4)] * 2


def test_weights_of_the_reference_method_itself_are_compared_too() -> None:
    rows = report_of(*scores(UP), *scores(UP, guidance_weight=2.0), *scores(UP, **BASE))["comparisons"]
    assert [(row["method"], row["guidance_weight"]) for row in rows] == [("pad", 2.0), ("base", 0.0)]
    assert all(row["p"] == 1.0 and row["verdict"] == "undecided" for row in rows)


def test_two_identical_methods_seldom_differ_in_a_report() -> None:
    """The null test, through the whole report: 200 tables of two methods that draw from the same distribution."""
    rng = np.random.default_rng(0)
    drawn = [
        each
        for number in range(200)
        for method in ({}, BASE)
        for each in scores(list(rng.normal(size=9)), group=f"g{number}", **method)
    ]
    rows = report_of(*drawn, resamples=100)["comparisons"]
    assert len(rows) == 200
    assert binom.sf(sum(row["p"] < 0.05 for row in rows) - 1, 200, 0.05) > 0.001  # at most 20
    assert binom.sf(sum(row["verdict"] != "undecided" for row in rows) - 1, 200, 0.05) > 0.001


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, Reference("pad", 2.0)),
        ({"methods": ["base", {"method": "pad", "guidance_weights": [3.0]}]}, Reference("pad", 3.0)),
        ({"compare_with": "base"}, Reference("base", 0.0)),
        ({"methods": ["base", {"method": "base", "name": "again"}]}, Reference("again", 0.0)),
    ],
)
def test_the_reference_is_the_one_named_or_the_first_weighted_or_the_last(
    changed: dict[str, Any], expected: Reference
) -> None:
    recipe = make_recipe(**{"methods": ["base", "pad"], "guidance_weights": [2.0, 1.0], **changed})
    methods = {method.label: Pad() if method.method == "pad" else Base() for method in recipe.methods}
    assert reference_of(recipe, methods) == expected


def test_the_report_has_the_promised_keys() -> None:
    report = report_of(*scores(UP), *scores(UP, **BASE))
    assert list(report) == ["version", "recipe", "environment", "reference", "rows", "comparisons", "pairs"]
    assert report["reference"] == {"method": "pad", "guidance_weight": 1.0}
    row = "method policy group preference guidance_weight scorer n prompts mean stderr low high truncated failed"
    assert {tuple(row) for row in report["rows"]} == {(*row.split(), "higher_is_better", "dimension", "unit")}
    compared = "policy group scorer method guidance_weight reference reference_weight n prompts difference low high p"
    assert {tuple(row) for row in report["comparisons"]} == {(*compared.split(), "p_holm", "effect_size", "verdict")}
    assert report["recipe"] == make_recipe().model_dump()
    assert {"python", "torch", "transformers"} <= set(report["environment"])


def test_every_row_says_whether_higher_is_better() -> None:
    rows = report_of(score(1.0), score(0.1, scorer="repeated_4grams"))["rows"]
    assert {row["scorer"]: row["higher_is_better"] for row in rows} == {"words": True, "repeated_4grams": False}


def test_the_written_report_reads_back_the_same(tmp_path: Path) -> None:
    report = report_of(*scores(UP), *scores(UP, **BASE))
    write_json(tmp_path / REPORT, report)
    assert json.loads((tmp_path / REPORT).read_text(encoding="utf-8")) == report


def shown(report: dict[str, Any], *, width: int = 100, every_preference: bool = False) -> list[str]:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(report_table(report, every_preference=every_preference))
    return captured.get().splitlines()


def test_the_table_shows_means_with_half_widths_and_marks_what_differs() -> None:
    shares = [0.1, 0.4, 0.5, 0.7, 0.2, 0.9, 0.3, 0.6]
    more = {"scorer": "repeated_4grams"}
    report = report_of(
        *scores(UP),
        *scores([value - 1 for value in UP], **BASE),
        *scores(shares, **more),
        *scores([value - 0.1 for value in shares], **more, **BASE),
    )
    lines = shown(report)
    header = next(line for line in lines if "group" in line)
    assert header.split() == ["group", "policy", "method", "weight", "n", "words", "repeated_4grams", "↓"]
    rows = [row for row in report["rows"] if row["method"] == "base" and row["preference"] == "*"]
    words, repeated = (f"±{(row['high'] - row['low']) / 2:.2f}" for row in rows)
    expected = ["8", "3.50", f"{words}▼", "0.36", f"{repeated}▲"]
    assert next(line for line in lines if "base" in line).split()[-5:] == expected
    assert next(line for line in lines if " pad " in line).split()[-4::2] == ["4.50", "0.46"]
    assert "worse than pad at 1: p < 0.05" in " ".join(lines)


def test_the_table_says_what_failed_and_what_was_cut() -> None:
    text = " ".join(shown(report_of(*scores([1.0, None, None]), *scores([2.0], truncated=True, **BASE))))
    assert "2 failed" in text
    assert "'words' failed on 2 answers" in text
    assert "'words' read only the beginning of 1 answers" in text


def test_the_table_shows_single_preferences_only_when_asked() -> None:
    report = report_of(score(1.0), score(2.0, preference="funny"))
    assert not any("funny" in line for line in shown(report))
    assert sum("formal" in line or "funny" in line for line in shown(report, every_preference=True)) == 2


@pytest.mark.parametrize("width", [60, 100])
def test_scorers_that_do_not_fit_stand_in_a_further_table(width: int) -> None:
    names = ("words", "hit", "repeated_4grams")
    report = report_of(*(each for name in names for each in scores([0.1, 0.5, 0.2, 0.4], scorer=name)))
    lines = shown(report, width=width)
    headers = [line.split()[3:] for line in lines if line.startswith("group")]
    assert [name for header in headers for name in header if name in names] == list(names)
    assert (len(headers) > 1) == (width == 60)
    assert max(map(len, lines)) <= width
    assert sum("±" in line for line in lines if "home" in line) == len(headers), "each row stands on one line"
