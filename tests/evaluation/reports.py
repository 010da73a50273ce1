"""Reports to test with: scores as an evaluation would give them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pad_cli.evaluation.contract import load_scorer
from pad_cli.evaluation.report import CellKey, ItemKey, Reference, Scored, build_report
from pad_cli.recipe import EvalRecipe, ScorerSettings

SCORERS = {name: load_scorer(ScorerSettings(scorer=name)) for name in ("words", "hit", "repeated_4grams")}
REFERENCE = Reference("pad", 1.0)


def make_recipe(**changed: Any) -> EvalRecipe:
    content = {
        "kind": "eval",
        "output": "runs/x",
        "policies": {"home": {"model": "m"}},
        "reward_model": "r",
        "benchmarks": [{"benchmark": "jsonl"}],
        "scorers": ["words"],
    }
    return EvalRecipe.model_validate({**content, **changed})


def score(value: float | None, prompt: int | str = 0, **changed: Any) -> Scored:
    """A score of `pad` on the first prompt, unless something is said otherwise."""
    names = {"prompt": str(prompt), "truncated": False, "method": "pad", "policy": "home", "group": "single"}
    fields = {**names, "preference": "formal", "guidance_weight": 1.0, "scorer": "words", **changed}
    item = ItemKey(fields["prompt"], fields["preference"], fields.get("item", f"{fields['preference']}/{prompt}"))
    return Scored(CellKey(**{name: fields[name] for name in CellKey._fields}), item, value, fields["truncated"])


def scores(values: Sequence[float | None], **changed: Any) -> list[Scored]:
    """Scores of as many prompts."""
    return [score(value, prompt, **changed) for prompt, value in enumerate(values)]


def report_of(*scored: Scored, reference: Reference = REFERENCE, **changed: Any) -> dict[str, Any]:
    return build_report(make_recipe(**changed), scored, SCORERS, reference)


def only(rows: Sequence[dict[str, Any]], **wanted: Any) -> dict[str, Any]:
    """The one row that is as wanted."""
    (found,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
    return found
