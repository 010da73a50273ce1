"""What a reward model made from instructions does beside them: four ways to ask for a principle, measured.

    base          nobody asks
    prompt        the principle's instruction in the prompt
    pad           guided decoding, nothing in the prompt
    pad+prompt    both

The judge of style is a classifier that is fitted to the teacher's answers to the prompts that training held out. On
these, in cross-validation, it has its ceiling: the share of the teacher's own answers that it recognises. The prompts
of the comparison are others again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pad_cli.contrast.source import held_out_answers
from pad_cli.errors import RecipeError
from pad_cli.evaluation.evaluate import evaluate
from pad_cli.evaluation.outputs import COSTS, PAGE
from pad_cli.evaluation.report import POOLED
from pad_cli.evaluation.scorers.style import ceilings, read_labelled
from pad_cli.recipe import EvalRecipe, TrainRecipe, load_recipe
from pad_cli.reports.document import Table
from pad_cli.system.runs import write_json, write_whole
from pad_cli.training.train import TrainedRewardModel

FOLDER = "comparison"
"""Directory of the evaluation, in that of the reward model."""

METHODS = ("base", "prompt", "pad", "pad+prompt")
_ALSO = {"log_perplexity": "nats a token", "repeated_4grams": "repeated 4-grams", "words": "words"}


@dataclass(frozen=True)
class Comparison:
    """The evaluation's report, and what the classifier makes of the teacher's own answers."""

    report: Mapping[str, Any]
    costs: Sequence[Mapping[str, Any]]
    ceilings: Mapping[str, float]  # principle to recall; `plain` is that of answers without an instruction
    page: Path  # the evaluation's report

    def table(self) -> Table:
        """A row for each principle, the shares of answers that are taken for it; then means of all scorers."""
        means = {(row["scorer"], row["preference"], row["method"]): row["mean"] for row in self.report["rows"]}
        names = [name for name in self.ceilings if ("style", name, "base") in means]

        def cells(scorer: str, preference: str) -> dict[str, str]:
            found = {method: means.get((scorer, preference, method)) for method in METHODS}
            return {method: "" if mean is None else f"{mean:.2f}" for method, mean in found.items()}

        rows = [{"": name, **cells("style", name), "teacher": f"{self.ceilings[name]:.2f}"} for name in names]
        ceiling = sum(self.ceilings[name] for name in names) / len(names)
        rows.append({"": "all", **cells("style", POOLED), "teacher": f"{ceiling:.2f}"})
        rows += [{"": label, **cells(scorer, POOLED), "teacher": ""} for scorer, label in _ALSO.items()]
        read = {row["method"]: row["prompt_tokens"] for row in self.costs if row["prompt_tokens"] is not None}
        tokens = {method: f"{read[method]:.0f}" if method in read else "" for method in METHODS}
        rows.append({"": "prompt tokens", **tokens, "teacher": ""})
        columns = {name: name for name in METHODS} | {"teacher": "teacher"}
        return Table.of(rows, {"": ""}, columns, "Share of answers taken for the asked principle")


def compare(recipe: TrainRecipe, trained: TrainedRewardModel) -> Comparison:
    """Answer prompts in the four ways and score the answers; what is there is not done again.

    Args:
        recipe: of the finished run, with `compare` and `source: contrast`.
        trained: its reward model; the evaluation is written to `comparison` in its directory.

    Raises:
        RecipeError: the recipe compares nothing, or there are not enough prompts.
        DataError, ModelLoadError, StorageError: see `pad_cli.errors`.
    """
    settings = recipe.compare
    if settings is None:
        raise RecipeError("compare: is missing", "For example: --set compare.prompts=8")
    directory, names = trained.path, list(trained.record["principles"])
    folder = directory / FOLDER
    rows, prompts = held_out_answers(recipe, settings.prompts)
    answers, asked = directory / "teacher.jsonl", directory / "prompts.jsonl"
    for path, content in ((answers, rows), (asked, prompts)):
        write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content))
    made = load_recipe(
        {
            "kind": "eval",
            "output": str(folder),
            "policies": {"policy": recipe.backbone.model_dump()},
            "reward_model": str(directory),
            "methods": [
                "base",
                {"method": "prompt", "options": {"wording": "instruction"}},
                "pad",
                {
                    "method": "pad+prompt",
                    "options": {"wording": "instruction"},
                    "guidance_weights": [settings.prompted_weight],
                },
            ],
            "guidance_weights": [settings.guidance_weight],
            "benchmarks": [{"benchmark": "jsonl", "options": {"path": str(asked), "preferences": names}}],
            "scorers": [{"scorer": "style", "options": {"answers": str(answers)}}, *_ALSO],
            "decoding": settings.decoding.model_dump(exclude={"guidance_weight", "seed"}),
            "compare_with": "prompt",
        }
    )
    assert isinstance(made, EvalRecipe)
    report = evaluate(made)
    costs = json.loads((folder / COSTS).read_text(encoding="utf-8"))
    found = Comparison(report, costs, ceilings(read_labelled(answers)), folder / PAGE)
    write_json(directory / "ceilings.json", found.ceilings)
    return found
