"""`run_demo` (floor 6): the embedded models steered and evaluated, with a report."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pad_cli.decoding.engine import PadEngine
from pad_cli.evaluation.run import DEMO_MODEL, evaluate, is_evaluation
from pad_cli.models.checkpoint import CONFIG
from pad_cli.models.language_model import resolve_model
from pad_cli.recipe import EvalRecipe, GenerateRecipe, read_recipe
from pad_cli.runs import check_output, whole_files, write_whole
from pad_cli.training.train import METRICS

_EXAMPLES = (
    ("How do I start with photography?", "humorous"),
    ("What mistakes should I avoid in sailing?", "concise, enthusiastic"),
    ("Why should I try pottery?", "the more ceremonious the better"),
)


@dataclass(frozen=True)
class Demonstration:
    """What a demo shows.

    Attributes:
        examples: prompt, preference, base answer and steered answer.
        metrics: of the reward model, by validation split.
        report: of the evaluation.
        directory: where everything was written.
    """

    examples: list[dict[str, str]]
    metrics: dict[str, dict[str, Any]]
    report: dict[str, Any]
    directory: Path


def run_demo(directory: Path, *, overwrite: bool = False) -> Demonstration:
    """Copy the embedded reward model, steer and evaluate; finished answers are not written again.

    Args:
        directory: where results go.
        overwrite: whether files there may be replaced that no demo wrote.

    Raises:
        UsageError: the directory holds something else.
        StorageError: the directory cannot be written.
    """
    settings = read_recipe("embedded-generate")
    evaluation = read_recipe("embedded-eval", [f"output={json.dumps(str(directory))}"])
    assert isinstance(settings, GenerateRecipe)
    assert isinstance(evaluation, EvalRecipe)
    check_output(directory, "demo of pad", is_evaluation, overwrite=overwrite)
    with whole_files(directory / DEMO_MODEL, last=CONFIG) as scratch:
        for path in Path(resolve_model(settings.reward_model)).iterdir():
            shutil.copy(path, scratch)
    engine = PadEngine.from_recipe(settings)
    examples = []
    for prompt, preference in _EXAMPLES:
        wanted = engine.preference([preference])
        answers = engine.generate(
            [prompt, prompt], [wanted, wanted], settings.decoding, [0.0, settings.decoding.guidance_weight]
        )
        examples.append({"prompt": prompt, "preference": preference, "base": answers[0].text, "pad": answers[1].text})
    write_whole(directory / "examples.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in examples))
    metrics = json.loads((directory / DEMO_MODEL / METRICS).read_text(encoding="utf-8"))
    return Demonstration(examples, metrics, evaluate(evaluation), directory)
