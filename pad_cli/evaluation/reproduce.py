"""`reproduce`: the tables of a paper from one recipe; each table is one or more evaluations, which can be continued.

The shape of `reproduce.json`:

    {"version", "recipe", "environment",
     "tables": {name: {"question", "scorers", "runs": {label: {"reference", "rows", "comparisons", "pairs"}}}}}

The costs of methods differ from run to run, so they are in `reproduce.md`, `reproduce.html` and each run's
`costs.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pad_cli.evaluation.evaluate import evaluate, is_evaluation
from pad_cli.evaluation.outputs import COSTS
from pad_cli.recipe import ReproduceRecipe
from pad_cli.reports.document import markdown, page
from pad_cli.reports.evaluation_tables import reproduction_document
from pad_cli.system.processes import processes
from pad_cli.system.progress import note
from pad_cli.system.runs import check_output, environment, only_here, write_json, write_whole

REPRODUCE, SUMMARY, PAGE = "reproduce.json", "reproduce.md", "reproduce.html"
_VERSION = 1
_FIGURES = ("reference", "rows", "comparisons", "pairs")  # of each run's report


def reproduce(recipe: ReproduceRecipe, *, overwrite: bool = False) -> dict[str, Any]:
    """Run (or continue) all evaluations of a recipe.

    Args:
        recipe: what to do.
        overwrite: whether files in `recipe.output` may be replaced that no reproduction wrote.

    Returns:
        The result, as written to `reproduce.json` in `recipe.output`; `reproduce.md` and `reproduce.html`
        show its main figures and the cost of each method.

    Raises:
        DataError, RecipeError, UsageError, CheckpointError, ModelLoadError, StorageError: see `pad_cli.errors`.
    """
    output = Path(recipe.output)
    with only_here(output):
        if processes().main:
            check_output(output, "reproduction of pad reproduce", _is_reproduction, overwrite=overwrite)
        tables: dict[str, Any] = {}
        costs = {}
        for name, table in recipe.tables.items():
            runs = {}
            for label, settings in table.runs.items():
                note(f"Table {name}: {label}")
                directory = output / name / label
                report = evaluate(settings.model_copy(update={"output": str(directory)}), overwrite=overwrite)
                runs[label] = {key: report[key] for key in _FIGURES}
                costs[name, label] = json.loads((directory / COSTS).read_text(encoding="utf-8"))
            scorers = table.scorers or [scorer.label for run in table.runs.values() for scorer in run.scorers]
            tables[name] = {"question": table.question, "scorers": list(dict.fromkeys(scorers)), "runs": runs}
        result = {"version": _VERSION, "recipe": recipe.model_dump(), "environment": environment(), "tables": tables}
        write_json(output / REPRODUCE, result)
        document = reproduction_document(result, costs)
        links = {f"{name}: {label}": f"{name}/{label}/report.html" for name, label in costs}
        write_whole(output / SUMMARY, markdown(document))
        write_whole(output / PAGE, page(document, "reproduction.html.j2", links=links))
        return result


def _is_reproduction(directory: Path) -> bool:
    """Was this written by a reproduction, finished or not?"""
    return (directory / REPRODUCE).is_file() or any(map(is_evaluation, directory.glob("*/*")))
