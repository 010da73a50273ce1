"""From scores to the report: means with intervals, and every method against one; and its pages from the run's files.

The shape of `report.json` is a promise:

    {"version": 2, "recipe", "environment",
     "reference": {"method", "guidance_weight"},
     "rows": [{"method", "policy", "group", "preference", "guidance_weight", "scorer", "n", "prompts", "mean", "stderr",
               "low", "high", "truncated", "failed", "higher_is_better", "dimension", "unit"}],
     "comparisons": [{"policy", "group", "scorer", "method", "guidance_weight", "reference", "reference_weight", "n",
                      "prompts", "difference", "low", "high", "p", "p_holm", "effect_size", "verdict"}],
     "pairs": [{"policy", "split", "guidance_weight", "n", "prompts", "pair_accuracy", "pair_low", "pair_high",
                "policy_accuracy", "policy_low", "policy_high", "fluency": {scorer: mean}}]}

A row whose preference is `*` pools all preferences of its group. `n` counts items, `truncated` and `failed` answers: an
item has one a seed, and its score is their mean. `low` and `high` bound the mean with the recipe's confidence, over
prompts. Where a scorer failed on an answer, `mean` and what follows from it are null; running again tries it again.

A comparison is one on the n items that both methods answered, on one policy and group, by one scorer: `difference` is
the mean of the method's scores minus the reference's, on its interval (null for one prompt); `p` is that of the paired
test, `effect_size` Cohen's d_z over prompts. All are null if a score is missing. `verdict` is in the scorer's
direction, and `undecided` if p_holm is above 1 - confidence.

What pairs hold is said in `pair_accuracy.py` (none where the recipe has no `pairs`), how figures are computed in
`statistics.py`. Nothing in it depends on when, or in how many attempts, the run was made.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError

from pad_cli.errors import DataError
from pad_cli.evaluation.comparisons import (
    CellKey,
    Cells,
    Reference,
    Scored,
    compare,
    into_cells,
    item_means,
    limits,
    rounded,
)
from pad_cli.evaluation.contract import Scorer
from pad_cli.evaluation.outputs import COSTS, OUTPUTS
from pad_cli.evaluation.statistics import Interval, by_prompt, intervals
from pad_cli.recipe import EvalRecipe
from pad_cli.records import Cell
from pad_cli.reports.document import markdown
from pad_cli.reports.evaluation_report import EvaluationFiles, evaluation_document, evaluation_page
from pad_cli.system.runs import environment, fingerprint, write_whole

REPORT, MARKDOWN, PAGE = "report.json", "report.md", "report.html"
JUDGED = "judge.json"
"""What a judge says, where there was one."""

_VERSION = 2
_AGAIN = "Run `pad eval` to its end, which writes it; what was answered is not asked again."


def build_report(
    recipe: EvalRecipe,
    scored: Iterable[Scored],
    scorers: Mapping[str, Scorer],
    reference: Reference,
    pairs: Iterable[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The report; rows stand in the order in which their cells were first scored, pooled ones first."""
    cells = into_cells(scored)
    return {
        "version": _VERSION,
        "recipe": recipe.model_dump(),
        "environment": environment(),
        "reference": reference._asdict(),
        "rows": list(_rows(cells, scorers, recipe)),
        "comparisons": compare(cells, reference, scorers, recipe),
        "pairs": [dict(row) for row in pairs],
    }


def has_report(directory: Path) -> bool:
    """Is there a finished evaluation whose pages can be written?"""
    return all((directory / name).exists() for name in (REPORT, OUTPUTS, COSTS))


def write_pages(directory: Path) -> None:
    """Write `report.md` and `report.html` from the files of a finished evaluation, and of its judge if there was one.

    Raises:
        DataError: a file is missing or damaged.
        StorageError: they cannot be written.
    """
    judged = read_content(directory / JUDGED) if (directory / JUDGED).exists() else None
    files = EvaluationFiles(
        read_content(directory / REPORT),
        read_content(directory / OUTPUTS),
        read_content(directory / COSTS, list),
        judged,
    )
    try:
        text, content = markdown(evaluation_document(files)), evaluation_page(files)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, UndefinedError) as error:
        raise DataError(
            f"no report can be made of it: {REPORT}, {OUTPUTS} or {COSTS} is damaged", path=directory, hint=_AGAIN
        ) from error
    write_whole(directory / MARKDOWN, text)
    write_whole(directory / PAGE, content)


def read_content(path: Path, kind: type = dict) -> Any:
    """The JSON object, or array, of a finished evaluation's file; raises DataError if it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("cannot be read", path=path, hint=_AGAIN) from error
    if not isinstance(content, kind):
        raise DataError("holds something else than an evaluation's figures", path=path, hint=_AGAIN)
    return content


def _rows(cells: Cells, scorers: Mapping[str, Scorer], recipe: EvalRecipe) -> Iterator[dict[str, Any]]:
    """One row a cell; the intervals of one policy, group and preference share their resamples."""
    samples = {
        place: by_prompt((item.prompt, mean) for item, mean in means.items())
        for place, scores in cells.items()
        if (means := item_means(scores)) is not None
    }
    strata: dict[tuple[str, str, str], list[CellKey]] = {}
    for place in samples:
        strata.setdefault((place.policy, place.group, place.preference), []).append(place)
    interval_of: dict[CellKey, Interval | None] = {}
    for stratum, places in strata.items():
        ends = intervals(
            [samples[place] for place in places],
            confidence=recipe.confidence,
            resamples=recipe.resamples,
            seed=int(fingerprint(stratum), 16),
            bounds=[limits(scorers[place.scorer], cells[place]) for place in places],
        )
        interval_of.update(zip(places, ends, strict=True))
    for place, scores in cells.items():
        scorer, sample, interval = scorers[place.scorer], samples.get(place), interval_of.get(place)
        items = {score.item for score in scores}
        cell = Cell(
            **place._asdict(),
            n=len(items),
            prompts=len({item.prompt for item in items}),
            mean=rounded(sample.mean) if sample else None,
            stderr=rounded(sample.stderr) if sample else None,
            low=rounded(interval.low) if interval else None,
            high=rounded(interval.high) if interval else None,
            truncated=sum(score.truncated for score in scores),
            failed=sum(score.value is None for score in scores),
            higher_is_better=scorer.higher_is_better,
            dimension=scorer.dimension,
            unit=scorer.unit,
        )
        yield asdict(cell)
