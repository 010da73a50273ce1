"""`run_demo`: the embedded models steered and evaluated, with a report; `steer_real_model`: a real one steered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pad_cli.decoding.engine import PadEngine
from pad_cli.evaluation.evaluate import evaluate, is_evaluation
from pad_cli.models.inspection import inspect_reward_model
from pad_cli.recipe import EvalRecipe, GenerateRecipe, read_recipe
from pad_cli.system.runs import check_output, write_whole

_PROMPT = "How do I start with photography?"
_PREFERENCES = ("humorous", "formal", "concise, humorous", "casual, expert", "the more ceremonious the better")
_REAL_PROMPT = "Why should I visit the sea?"
_REAL_PREFERENCES = ("pirate", "poetic", "formal", "concise", "pirate, poetic")
_PROMPTS, _CROSS_PROMPTS = 40, 10  # of each preference, unless all are asked for


@dataclass(frozen=True)
class Demonstration:
    """What a demo shows, and where it was written."""

    examples: list[dict[str, str]]  # one prompt under several preferences: prompt, preference, base, pad
    metrics: dict[str, dict[str, Any]]  # of the reward model, by validation split
    report: dict[str, Any]  # of the evaluation
    directory: Path


def run_demo(
    directory: Path,
    *,
    full: bool = False,
    on_examples: Callable[[list[dict[str, str]]], None] = lambda _: None,
    overwrite: bool = False,
) -> Demonstration:
    """Steer and evaluate with the embedded reward model; finished answers are not written again.

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
    changes: dict[str, Any] = {"output": str(directory)}
    if not full:
        options = {"prompts": _PROMPTS, "cross_prompts": _CROSS_PROMPTS}
        changes["benchmarks"] = [{"benchmark": "embedded", "options": options}]
    settings, evaluation = read_recipe("embedded-generate"), read_recipe("embedded-eval", values=changes)
    assert isinstance(settings, GenerateRecipe)
    assert isinstance(evaluation, EvalRecipe)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on models this small, threads that wait for each other cost many times what they save
    try:
        examples = _examples(settings, _PROMPT, _PREFERENCES)
        on_examples(examples)
        report = evaluate(evaluation)
        _write(examples, directory / "examples.jsonl")
        return Demonstration(examples, dict(inspect_reward_model(settings.reward_model).metrics), report, directory)
    finally:
        torch.set_num_threads(threads)


def steer_real_model(directory: Path) -> list[dict[str, str]]:
    """Steer SmolLM2-135M-Instruct with the reward model for it that ships; written to `real-examples.jsonl`.

    Raises:
        ModelLoadError: it is not installed.
    """
    settings = read_recipe("smollm2-generate")
    assert isinstance(settings, GenerateRecipe)
    examples = _examples(settings, _REAL_PROMPT, _REAL_PREFERENCES)
    _write(examples, directory / "real-examples.jsonl")
    return examples


def _write(examples: Sequence[Mapping[str, str]], path: Path) -> None:
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in examples))


def _examples(settings: GenerateRecipe, prompt: str, texts: Sequence[str]) -> list[dict[str, str]]:
    engine = PadEngine.from_recipe(settings)
    preferences = [engine.preference([text]) for text in texts]
    weights = [0.0] + [settings.decoding.guidance_weight] * len(preferences)
    prompts = [prompt] * len(weights)
    base, *steered = engine.generate(prompts, [preferences[0], *preferences], settings.decoding, weights)
    shared = {"policy": engine.policy.name, "prompt": prompt, "base": base.text}
    return [{**shared, "preference": text, "pad": answer.text} for text, answer in zip(texts, steered, strict=True)]
