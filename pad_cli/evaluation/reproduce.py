"""`reproduce`: the tables of a paper from one recipe. Each table is one or more evaluations, and each of those can be
continued, so a killed run goes on where it was.

The shape of `reproduce.json`:

    {"version", "recipe", "environment",
     "tables": {name: {"question", "scorers", "runs": {label: {"reference", "rows", "comparisons", "pairs"}}}}}

What methods cost differs from run to run, so it stands in `reproduce.md`, `reproduce.html` and each run's `costs.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pad_cli.evaluation.costs import COSTS
from pad_cli.evaluation.reproduce_report import write_summary
from pad_cli.evaluation.run import evaluate, is_evaluation
from pad_cli.recipe import ReproduceRecipe
from pad_cli.system.processes import processes
from pad_cli.system.progress import note
from pad_cli.system.runs import check_output, environment, only_here, write_json

REPRODUCE = "reproduce.json"
_VERSION = 1
_KEPT = ("reference", "rows", "comparisons", "pairs")


def reproduce(recipe: ReproduceRecipe, *, overwrite: bool = False) -> dict[str, Any]:
    """Run (or continue) all evaluations of a recipe.

    Args:
        recipe: what to do.
        overwrite: whether files in `recipe.output` may be replaced that no reproduction wrote.

    Returns:
        The result, as written to `reproduce.json` in `recipe.output`; `reproduce.md` and `reproduce.html`
        show its main figures and what each method cost.

    Raises:
        DataError, RecipeError, UsageError, CheckpointError, ModelLoadError, StorageError: see `pad_cli.errors`.
    """
    output = Path(recipe.output)
    with only_here(output):
        if processes().main:
            check_output(output, "reproduction of pad reproduce", _is_own, overwrite=overwrite)
        return _reproduce(recipe, overwrite)


def _is_own(directory: Path) -> bool:
    """Was this written by a reproduction, finished or not?"""
    return (directory / REPRODUCE).is_file() or any(map(is_evaluation, directory.glob("*/*")))


def _reproduce(recipe: ReproduceRecipe, overwrite: bool) -> dict[str, Any]:
    output = Path(recipe.output)
    tables: dict[str, Any] = {}
    costs = {}
    for name, table in recipe.tables.items():
        runs = {}
        for label, settings in table.runs.items():
            note(f"Table {name}: {label}")
            report = evaluate(settings.model_copy(update={"output": str(output / name / label)}), overwrite=overwrite)
            runs[label] = {key: report[key] for key in _KEPT}
            costs[name, label] = json.loads((output / name / label / COSTS).read_text(encoding="utf-8"))
        scorers = table.scorers or [scorer.shown for run in table.runs.values() for scorer in run.scorers]
        tables[name] = {"question": table.question, "scorers": list(dict.fromkeys(scorers)), "runs": runs}
    result = {"version": _VERSION, "recipe": recipe.model_dump(), "environment": environment(), "tables": tables}
    write_json(output / REPRODUCE, result)
    write_summary(result, costs, output)
    return result
