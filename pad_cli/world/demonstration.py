"""`run_demo`: the embedded models steered and evaluated, with a report."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pad_cli.decoding.engine import PadEngine
from pad_cli.evaluation.evaluate import DEMO_MODEL, evaluate, is_evaluation
from pad_cli.models.checkpoint_files import CONFIG
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.recipe import EvalRecipe, GenerateRecipe, read_recipe
from pad_cli.registry import resolve_model
from pad_cli.system.runs import check_output, whole_files, write_whole

_PROMPT = "How do I start with photography?"
_PREFERENCES = ("humorous", "formal", "concise, humorous", "casual, expert", "the more ceremonious the better")
_PROMPTS, _CROSS_PROMPTS = 40, 10  # of each preference, unless all are asked for


@dataclass(frozen=True)
class Demonstration:
    """What a demo shows.

    Attributes:
        examples: one prompt under several preferences: prompt, preference, base answer and steered answer.
        metrics: of the reward model, by validation split.
        report: of the evaluation.
        directory: where everything was written.
    """

    examples: list[dict[str, str]]
    metrics: dict[str, dict[str, Any]]
    report: dict[str, Any]
    directory: Path


def run_demo(
    directory: Path,
    *,
    full: bool = False,
    on_examples: Callable[[list[dict[str, str]]], None] = lambda _: None,
    overwrite: bool = False,
) -> Demonstration:
    """Copy the embedded reward model, steer and evaluate; finished answers are not written again.

    Args:
        directory: where everything goes.
        full: evaluate on every prompt of the recipe `embedded-eval`, instead of a fifth of them.
        on_examples: called with the examples before the evaluation begins.
        overwrite: whether files there may be replaced that no demo wrote.

    Raises:
        UsageError: the directory holds something else.
        StorageError: the directory cannot be written.
    """
    check_output(directory, "demo of pad", is_evaluation, overwrite=overwrite)
    with _one_thread():
        return _run_demo(directory, full, on_examples)


def _run_demo(directory: Path, full: bool, on_examples: Callable[[list[dict[str, str]]], None]) -> Demonstration:
    settings = read_recipe("embedded-generate")
    evaluation = read_recipe("embedded-eval", values=_changes(directory, full))
    assert isinstance(settings, GenerateRecipe)
    assert isinstance(evaluation, EvalRecipe)
    with whole_files(directory / DEMO_MODEL, last=CONFIG) as scratch:
        for path in Path(resolve_model(settings.reward_model)).iterdir():
            shutil.copy(path, scratch)
    examples = _examples(settings)
    write_whole(directory / "examples.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in examples))
    on_examples(examples)
    metrics = dict(inspect_reward_model(str(directory / DEMO_MODEL)).metrics)
    return Demonstration(examples, metrics, evaluate(evaluation), directory)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """On models this small, threads that wait for each other cost many times what they save."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _changes(directory: Path, full: bool) -> dict[str, Any]:
    """What differs from the shipped recipe, by key."""
    options = {"prompts": _PROMPTS, "cross_prompts": _CROSS_PROMPTS}
    fewer = {} if full else {"benchmarks": [{"benchmark": "embedded", "options": options}]}
    return {"output": str(directory), **fewer}


def _examples(settings: GenerateRecipe) -> list[dict[str, str]]:
    engine = PadEngine.from_recipe(settings)
    preferences = [engine.preference([text]) for text in _PREFERENCES]
    wanted = [preferences[0], *preferences]
    weights = [0.0] + [settings.decoding.guidance_weight] * len(preferences)
    base, *steered = engine.generate([_PROMPT] * len(wanted), wanted, settings.decoding, weights)
    return [
        {"prompt": _PROMPT, "preference": text, "base": base.text, "pad": answer.text}
        for text, answer in zip(_PREFERENCES, steered, strict=True)
    ]
