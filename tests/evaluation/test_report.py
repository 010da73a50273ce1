"""The report: means and standard errors by hand, and the promised shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from pad_cli.evaluation.report import REPORT, Scored, build_report, report_table, write_report
from pad_cli.recipe import EvalRecipe

RECIPE = EvalRecipe.model_validate(
    {
        "kind": "eval",
        "output": "runs/x",
        "policies": {"home": {"model": "m"}},
        "reward_model": "r",
        "benchmarks": [{"benchmark": "jsonl"}],
        "scorers": ["words"],
    }
)


def score(value: float, **changed: Any) -> Scored:
    fields = {"method": "pad", "policy": "home", "group": "single", "preference": "formal", "guidance_weight": 1.0}
    return Scored(**{**fields, "scorer": "words", "value": value, **changed})


def rows_of(*scores: Scored, higher: bool = True) -> list[dict[str, Any]]:
    names = {each.scorer for each in scores}
    rows: list[dict[str, Any]] = build_report(RECIPE, scores, dict.fromkeys(names, higher))["rows"]
    return rows


def cell(rows: list[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found


def test_mean_and_standard_error_are_those_worked_by_hand() -> None:
    """2, 4, 6, 8: mean 5, squared deviations 9 + 1 + 1 + 9 = 20, variance 20/3, error sqrt(20/3/4) = 1.2910."""
    row = cell(rows_of(*map(score, (2.0, 4.0, 6.0, 8.0))), preference="formal")
    assert (row["n"], row["mean"], row["stderr"]) == (4, 5.0, 1.291)


def test_one_value_has_a_standard_error_of_0() -> None:
    row = cell(rows_of(score(3.0)), preference="formal")
    assert (row["n"], row["mean"], row["stderr"]) == (1, 3.0, 0.0)


def test_the_pooled_row_holds_every_preference_of_its_group_and_of_no_other() -> None:
    """formal 1, 3 and funny 8 in `single`: mean 4; the answer in `combination` stays apart."""
    rows = rows_of(
        score(1.0), score(3.0), score(8.0, preference="funny"), score(100.0, preference="funny", group="combination")
    )
    pooled = cell(rows, group="single", preference="*")
    assert (pooled["n"], pooled["mean"]) == (3, 4.0)
    assert cell(rows, group="single", preference="formal")["mean"] == 2.0
    assert cell(rows, group="single", preference="funny")["mean"] == 8.0
    assert cell(rows, group="combination", preference="*")["mean"] == 100.0


@pytest.mark.parametrize(
    "changed", [{"method": "base"}, {"policy": "away"}, {"guidance_weight": 2.0}, {"scorer": "distinct_2"}]
)
def test_methods_policies_weights_and_scorers_are_never_mixed(changed: dict[str, Any]) -> None:
    rows = rows_of(score(1.0), score(5.0, **changed))
    assert [row["mean"] for row in rows if row["preference"] == "*"] == [1.0, 5.0]
    assert all(row["n"] == 1 for row in rows)


def test_the_report_has_the_promised_keys() -> None:
    report = build_report(RECIPE, [score(1.0)], {"words": True})
    assert list(report) == ["version", "recipe", "environment", "rows"]
    promised = ["method", "policy", "group", "preference", "guidance_weight", "scorer", "n", "mean", "stderr"]
    assert [list(row) for row in report["rows"]] == [[*promised, "higher_is_better"]] * 2
    assert report["recipe"] == RECIPE.model_dump()
    assert {"python", "torch", "transformers"} <= set(report["environment"])


def test_every_row_says_whether_higher_is_better() -> None:
    report = build_report(
        RECIPE, [score(1.0), score(0.1, scorer="repeated_4grams")], {"words": True, "repeated_4grams": False}
    )
    assert {row["scorer"]: row["higher_is_better"] for row in report["rows"]} == {
        "words": True,
        "repeated_4grams": False,
    }


def test_the_written_report_reads_back_the_same(tmp_path: Path) -> None:
    report = build_report(RECIPE, [score(1.0), score(2.5)], {"words": True})
    write_report(report, tmp_path)
    assert json.loads((tmp_path / REPORT).read_text(encoding="utf-8")) == report


def shown(*scores: Scored, every_preference: bool = False) -> list[str]:
    report = build_report(RECIPE, scores, {"words": True, "repeated_4grams": False})
    console = Console(width=160)
    with console.capture() as captured:
        console.print(report_table(report, every_preference=every_preference))
    return captured.get().splitlines()


def test_the_table_has_a_line_for_each_method_and_weight_and_marks_scorers_where_lower_is_better() -> None:
    lines = shown(
        score(4.0, method="base", guidance_weight=0.0),
        score(6.0),
        score(0.25, scorer="repeated_4grams"),
        score(0.5, scorer="repeated_4grams", method="base", guidance_weight=0.0),
    )
    header = next(line for line in lines if "group" in line)
    assert "repeated_4grams ↓" in header
    assert "words ↓" not in header
    assert next(line for line in lines if "base" in line).split()[-4:] == ["0", "1", "4.00", "0.50"]
    assert next(line for line in lines if "pad" in line).split()[-4:] == ["1", "1", "6.00", "0.25"]


def test_the_table_shows_single_preferences_only_when_asked() -> None:
    scores = (score(1.0), score(2.0, preference="funny"))
    assert not any("funny" in line for line in shown(*scores))
    assert sum("formal" in line or "funny" in line for line in shown(*scores, every_preference=True)) == 2
